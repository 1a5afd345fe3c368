"""The samples of a clip, wherever it lies: a file, a part of one, or a stretch of a shard here or elsewhere."""

from collections.abc import Callable, Iterator
from itertools import chain, islice
from math import inf
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from melpatch.audio.byte_range import ByteRange
from melpatch.audio.files import Source, read, stream
from melpatch.data.clip import Clip
from melpatch.data.remote import fetch
from melpatch.errors import AudioError

T = TypeVar("T")
Samples = Float[np.ndarray, " _"]
"""One channel; of every window another number."""


def decode(clip: Clip, sample_rate: int) -> Float[np.ndarray, " sample"]:
    """Return a clip's samples: mono, at the rate asked for, nominally in [-1, 1].

    Raises:
        AudioError: it is missing, damaged or not sound, or its shard cannot be fetched.
    """
    return with_source(
        clip,
        lambda found: read(
            found, start=clip.start, duration=clip.duration, sample_rate=sample_rate
        )[0],
    )


def decode_windows(
    clip: Clip, seconds: float, hop: float, sample_rate: int
) -> Iterator[tuple[float, Samples]]:
    """Return a clip's windows as :func:`melpatch.audio.files.stream` yields them, in bounded memory.

    Raises:
        AudioError: as :func:`decode`, when this is called or as it is read.
    """
    duration = None if clip.duration == inf else clip.duration

    def begin(found: Source) -> Iterator[tuple[float, Samples]]:
        pieces = stream(found, seconds, hop, sample_rate, start=clip.start, duration=duration)
        return chain(
            [*islice(pieces, 1)], pieces
        )  # the file is open now: that it goes later does no harm

    return with_source(clip, begin)


def with_source(clip: Clip, action: Callable[[Source], T]) -> T:
    """Return what an action makes of the file or stretch of a clip, which it opens; a shard that goes from the cache
    before it is open is fetched again.

    Raises:
        AudioError: the shard cannot be fetched, or what the action raised.
    """
    while True:
        found = clip_source(clip)
        try:
            return action(found)
        except AudioError:
            if not clip.url or clip.path.exists():
                raise
            # Between fetching and opening, another process has made room for a shard of its own.


def clip_source(clip: Clip) -> Source:
    """Return the file of a clip, or the stretch of a shard, which is fetched if it lies elsewhere.

    Raises:
        AudioError: the shard cannot be fetched.
    """
    return byte_range(clip) if clip.size else clip.path


def byte_range(clip: Clip) -> ByteRange:
    """Return the stretch of a shard that holds a packed clip; the shard is fetched if it lies elsewhere.

    Raises:
        AudioError: the shard cannot be fetched.
    """
    if clip.url:
        fetch(clip.url, clip.path)
    return ByteRange(clip.path, clip.offset, clip.size, clip.crc32, clip.location)
