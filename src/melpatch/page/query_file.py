"""A sound file that a browser sends as a query: bounded, read like any other, and never kept."""

import tempfile
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Float
from numpy import ndarray
from starlette.requests import Request

from melpatch.audio.files import count_samples, probe
from melpatch.errors import AudioError, ConfigError
from melpatch.inference.model import Model
from melpatch.search.query import Stretch, query_vectors
from melpatch.search.segment import Identity

MOST_BYTES = 64 << 20
"""Size of a file, at most; of a longer one the user gives a part."""
LONGEST = 20.0
"""Seconds from its start that are looked at, at most."""


class Query(NamedTuple):
    """What is searched for.

    Attributes:
        vectors: of its windows.
        seconds: that were looked at, from the start.
        whole: whether these are all.
    """

    vectors: Float[ndarray, "query dim"]
    seconds: float
    whole: bool


async def received(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        ConfigError: it is larger than :data:`MOST_BYTES`, or empty.
    """
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MOST_BYTES:
            raise ConfigError(
                f"the file is larger than {MOST_BYTES >> 20} MiB; give a part of it, or search for "
                "it with: melpatch search INDEX FILE@START-END"
            )
    if not content:
        raise ConfigError("the file is empty; give a sound file")
    return bytes(content)


def query_of(model: Model, identity: Identity, name: str, content: bytes) -> Query:
    """Return the vectors of a sound file, or of its first :data:`LONGEST` seconds.

    Args:
        model: the model that made the index.
        identity: that of the index.
        name: what the file is called, for errors.
        content: the file.

    Raises:
        AudioError: it cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="melpatch-query-") as folder:
        path = Path(folder) / "query"
        path.write_bytes(content)
        try:
            info = probe(path)
            duration = info.duration or count_samples(path) / info.sample_rate
            seconds = min(duration, LONGEST)
            vectors = query_vectors(model, identity, [Stretch(path, 0.0, seconds)])
        except AudioError as error:
            raise AudioError(name, error.reason, error.fix) from error
    return Query(vectors, seconds, seconds == duration)
