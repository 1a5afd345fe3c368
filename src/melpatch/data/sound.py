"""Decode clips from files, parts of files, and local or remote shards."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, islice
from math import inf
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from melpatch.audio.byte_range import ByteRange, HeldRange
from melpatch.audio.files import Source, read, stream
from melpatch.data.clip import Clip
from melpatch.data.packed import packed
from melpatch.data.ranges import fetched_alone
from melpatch.data.remote import fetch
from melpatch.errors import AudioError

T = TypeVar("T")
Samples = Float[np.ndarray, " _"]
"""Samples of one channel."""


def decode(clip: Clip, sample_rate: int) -> Float[np.ndarray, " sample"]:
    """Return a clip's samples, mono, resampled to ``sample_rate``, nominally in [-1, 1].

    Raises:
        AudioError: the clip is missing, damaged or not sound, or its shard cannot be fetched.
    """

    def read_segment(source: Source) -> Samples:
        wave, _ = read(
            source,
            start=clip.start,
            duration=clip.duration,
            sample_rate=sample_rate,
            channel=clip.channel,
        )
        return wave

    return with_source(clip, read_segment)


def decode_windows(
    clip: Clip, seconds: float, hop: float, sample_rate: int, *, salvage: bool = False
) -> Iterator[tuple[float, Samples]]:
    """Return the windows of a clip, as from :func:`melpatch.audio.files.stream`, in bounded memory.

    Raises:
        AudioError: as :func:`decode`, in this call or while iterating.
    """
    duration = None if clip.duration == inf else clip.duration

    def open_windows(source: Source) -> Iterator[tuple[float, Samples]]:
        windows = stream(
            source,
            seconds,
            hop,
            sample_rate,
            start=clip.start,
            duration=duration,
            channel=clip.channel,
            salvage=salvage,
        )
        # The first window opens the file. After that, it may be deleted from the cache.
        first = list(islice(windows, 1))
        return chain(first, windows)

    return with_source(clip, open_windows)


def loudest(clip: Clip, seconds: float, sample_rate: int) -> Clip:
    """Return the loudest part of a clip that is no longer than ``seconds``, in steps of a half of it.

    A clip that is no longer is returned as it is, unread.

    Raises:
        AudioError: as :func:`decode`.
    """
    if clip.duration <= seconds:
        return clip
    most = -1.0
    start = clip.start
    length = seconds
    for offset, wave in decode_windows(clip, seconds, seconds / 2, sample_rate):
        energy = float(np.square(wave, dtype=np.float64).sum())
        if energy > most:
            most = energy
            start = clip.start + offset
            length = min(seconds, len(wave) / sample_rate)
    return replace(clip, start=start, duration=length)


def with_source(clip: Clip, action: Callable[[Source], T]) -> T:
    """Return the result of an action that opens the file or byte range of a clip.

    If its shard is deleted from the cache before the action opens it, it is fetched again.

    Raises:
        AudioError: the shard cannot be fetched, or the action failed.
    """
    while True:
        source = clip_source(clip)
        try:
            return action(source)
        except AudioError:
            if not clip.url or isinstance(source, HeldRange) or clip.path.exists():
                raise
            # Between fetching and opening, another process deleted the shard to make room.


def clip_source(clip: Clip) -> Source:
    """Return the file of a clip, or its byte range in a shard, as from :func:`byte_range`.

    Raises:
        AudioError: the shard cannot be fetched.
    """
    if not clip.size:
        return clip.path
    return byte_range(clip)


def byte_range(clip: Clip) -> ByteRange:
    """Return the byte range of a packed clip in its shard.

    Of a remote shard the clip is fetched or, where more of it is wanted, the shard.

    Raises:
        AudioError: the shard or clip cannot be fetched.
    """
    place = packed(clip.path, clip.offset, clip.size, clip.crc32, clip.location)
    if clip.url:
        content = fetched_alone(clip)
        if content is not None:
            return HeldRange.of(place, content)
        fetch(clip.url, clip.path)
    return place
