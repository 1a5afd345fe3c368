"""The samples of a clip, wherever it lies: a file, a part of one, or a stretch of a shard here or elsewhere."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from melpatch.audio.files import Source, read
from melpatch.audio.stretch import Stretch
from melpatch.data.clip import Clip
from melpatch.data.remote import fetch
from melpatch.errors import AudioError

T = TypeVar("T")


def decode(clip: Clip, sample_rate: int) -> Float[np.ndarray, " sample"]:
    """Return a clip's samples: mono, at the rate asked for, nominally in [-1, 1].

    Raises:
        AudioError: it is missing, damaged or not sound, or its shard cannot be fetched.
    """
    return opened(clip, lambda found: read(found, start=clip.start, duration=clip.duration, sample_rate=sample_rate)[0])


def opened(clip: Clip, action: Callable[[Source], T]) -> T:
    """Return what an action makes of the file or stretch of a clip, which it opens; a shard that goes from the cache
    before it is open is fetched again.

    Raises:
        AudioError: the shard cannot be fetched, or what the action raised.
    """
    while True:
        found = source(clip)
        try:
            return action(found)
        except AudioError:
            if not clip.url or clip.path.exists():
                raise
            # Between fetching and opening, another process has made room for a shard of its own.


def source(clip: Clip) -> Source:
    """Return the file of a clip, or the stretch of a shard, which is fetched if it lies elsewhere.

    Raises:
        AudioError: the shard cannot be fetched.
    """
    return held(clip) if clip.size else clip.path


def held(clip: Clip) -> Stretch:
    """Return the stretch of a shard that holds a packed clip; the shard is fetched if it lies elsewhere.

    Raises:
        AudioError: the shard cannot be fetched.
    """
    if clip.url:
        fetch(clip.url, clip.path)
    return Stretch(clip.path, clip.offset, clip.size, clip.crc32, clip.place)
