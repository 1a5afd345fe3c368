"""What is searched for: a file, a stretch of one, or a label."""

import re
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from melpatch.data.clip import Clip
from melpatch.data.file_names import absolute, path_text
from melpatch.errors import ConfigError
from melpatch.inference.engine import InferenceTask, infer_many
from melpatch.inference.model import Model
from melpatch.inference.rows import Row
from melpatch.inference.tasks import stretch_task
from melpatch.search.index import Index
from melpatch.search.segment import Identity

_STRETCH = re.compile(r"(?P<path>.+)@(?P<start>\d+(?:\.\d+)?)-(?P<end>\d+(?:\.\d+)?)")


class Stretch(NamedTuple):
    """A part of a sound file, in seconds; the end of a whole one is infinite."""

    path: Path
    start: float = 0.0
    end: float = inf


def parse_query(text: str, labels: Sequence[str] = ()) -> Stretch | str:
    """Return what a query names: a file, a stretch of one as in ``dawn.wav@12.5-15``, or a label.

    >>> parse_query("robin", ["robin", "wren"])
    'robin'

    Args:
        text: the query.
        labels: labels that there are.

    Raises:
        ConfigError: it names nothing that exists.
    """
    if Path(text).is_file():
        return Stretch(Path(text))
    match = _STRETCH.fullmatch(text)
    if match is not None and Path(match["path"]).is_file():
        start, end = float(match["start"]), float(match["end"])
        if start >= end:
            raise ConfigError(f"{text}: the stretch ends before it starts; write FILE@START-END")
        return Stretch(Path(match["path"]), start, end)
    if text in labels:
        return text
    known = ", ".join(labels) or "none yet"
    raise ConfigError(
        f"{text}: neither a sound file, nor FILE@START-END in seconds, nor a label; labels: {known}"
    )


def task_of(model: Model, identity: Identity, *, salvage: bool = False) -> InferenceTask:
    """Return the task of computing vectors of the kind that an index has.

    Raises:
        ConfigError: the model takes no such windows, or has no such pooling.
    """
    return stretch_task(
        model.network,
        model.seconds,
        window=identity.window,
        hop=identity.hop,
        pooling=identity.spelling,
        layer=identity.layer,
        channel=model.config.channel,
        salvage=salvage,
    )


def query_vectors(
    model: Model, identity: Identity, stretches: Sequence[Stretch]
) -> Float[np.ndarray, "query dim"]:
    """Return the vectors of the windows of some stretches; one of a stretch shorter than a window.

    Args:
        model: the model that made the index.
        identity: that of the index.
        stretches: parts of sound files.

    Raises:
        AudioError: a file cannot be read, or has no such stretch.
    """
    task = task_of(model, identity)
    clips = [
        (number, Clip(stretch.path, number, stretch.start, stretch.end - stretch.start))
        for number, stretch in enumerate(stretches)
    ]
    vectors = []
    for item in infer_many(task, [clips], batch_size=model.default_batch_size):
        if isinstance(item, Row):
            vectors.append(item.values)
        elif item.error is not None:
            raise item.error
    return np.stack(vectors)


def label_vectors(
    index: Index, model: Callable[[], Model], stretches: Sequence[Stretch]
) -> Float[np.ndarray, "query dim"]:
    """Return one vector for each labelled stretch: that of its row, or computed where it has none.

    Args:
        index: the index.
        model: returns the model that made it.
        stretches: parts of sound files, in the index or not.
    """
    rows = [
        index.nearest_row(path_text(absolute(stretch.path)), stretch.start, stretch.end)
        for stretch in stretches
    ]
    known = index.vectors(np.array([row for row in rows if row is not None], np.int64))
    others = [stretch for stretch, row in zip(stretches, rows, strict=True) if row is None]
    if not others:
        return known
    return np.concatenate([known, query_vectors(model(), index.identity, others)])
