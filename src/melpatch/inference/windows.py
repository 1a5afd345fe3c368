"""Windows of recordings of any length, decoded in bounded memory, here or by worker processes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from melpatch.audio.files import Channel
from melpatch.audio.survey import SILENT_PEAK
from melpatch.data.clip import Clip
from melpatch.data.loader import ignore_signals, start_workers
from melpatch.data.remote import fetch
from melpatch.data.sound import Samples, decode_windows
from melpatch.errors import AudioError
from melpatch.rng import hash_text

_PREFETCHED_WINDOWS = 4  # that each decoding process keeps ready


class WindowSpec(NamedTuple):
    """How recordings are cut into windows."""

    seconds: float
    """Length of a window; the last one of a recording may be shorter."""
    hop: float
    """Seconds between the starts of consecutive windows; at least one sample."""
    sample_rate: int
    """Rate of the windows' samples, in Hz."""
    channel: Channel = "mean"
    """What is taken of recordings of several channels, unless their clips say it."""
    salvage: bool = False
    """Whether the rest before damage is a window too."""
    whole: frozenset[str] = frozenset()
    """URLs of shards that are fetched whole, of which the recordings take much."""


class Span(NamedTuple):
    """Where a window lies."""

    recording: int
    """Number of the recording."""
    start: float
    """Seconds from the start of the recording."""
    end: float
    """Seconds from the start of the recording."""
    silent: bool = False
    """Whether there is no sound in it."""


class Window(NamedTuple):
    """A piece of a recording."""

    span: Span
    wave: Float[Tensor, " sample"]


class RecordingEnd(NamedTuple):
    """Marks that a recording has no further windows."""

    recording: int
    """Number of the recording."""
    seconds: float
    """Seconds that were decoded."""
    error: AudioError | None
    """Why the recording could not be read to its end; None if it was."""


NumberedClips = Sequence[tuple[int, Clip]]
"""Recordings with their row numbers in the output."""


def clip_of_file(path: Path) -> Clip:
    """Return a clip that covers a whole file, without opening it; its duration is infinite."""
    return Clip(path, hash_text(str(path)), 0.0, inf)


def read_windows(
    clips: NumberedClips, spec: WindowSpec, workers: int = 0
) -> Iterator[Window | RecordingEnd]:
    """Return the windows of each recording followed by its end, in the order of the recordings.

    Args:
        clips: recordings to decode.
        spec: how they are cut.
        workers: decoding processes, each of which reads one recording at a time and holds a few
            windows; 0 decodes in this process.
    """
    if workers == 0:
        return _decode(clips, spec)
    workers = min(workers, len(clips))
    # One loader of one process per worker: a single loader would interleave the windows of all
    # workers, but a recording must arrive from its first window to its end.
    # The processes start now and not at the first `next`, which may run in an executor's thread.
    # A process forked there exits as if it had failed, because at exit Python joins all threads
    # of executors, and the forked one would have to join itself.
    loaders = [
        start_workers(
            DataLoader(
                _WorkerClips(clips[first::workers], spec),
                batch_size=None,
                num_workers=1,
                prefetch_factor=_PREFETCHED_WINDOWS,
                worker_init_fn=ignore_signals,
            )
        )
        for first in range(workers)
    ]
    return _take_turns(loaders, len(clips))


def _take_turns(
    loaders: Sequence[Iterator[Window | RecordingEnd]], recordings: int
) -> Iterator[Window | RecordingEnd]:
    """Yield one whole recording from each loader in turn, which restores the order of the clips."""
    for number in range(recordings):
        for item in loaders[number % len(loaders)]:
            yield item
            if isinstance(item, RecordingEnd):
                break


class _WorkerClips(IterableDataset[Window | RecordingEnd]):
    """The recordings that one process decodes."""

    def __init__(self, clips: NumberedClips, spec: WindowSpec) -> None:
        self.clips = clips
        self.spec = spec

    def __iter__(self) -> Iterator[Window | RecordingEnd]:
        return _decode(self.clips, self.spec)


def _decode(clips: NumberedClips, spec: WindowSpec) -> Iterator[Window | RecordingEnd]:
    for number, listed in clips:
        clip = listed
        if listed.channel == "mean" != spec.channel:
            clip = replace(listed, channel=spec.channel)
        yield from recording_windows(
            number, clip.location, partial(_open, clip, spec), spec.sample_rate
        )


def _open(clip: Clip, spec: WindowSpec) -> Iterator[tuple[float, Samples]]:
    """Open a clip and return start and samples of each window."""
    if clip.url in spec.whole:
        fetch(clip.url, clip.path)
    return decode_windows(clip, spec.seconds, spec.hop, spec.sample_rate, salvage=spec.salvage)


def recording_windows(
    number: int,
    name: object,
    open_pieces: Callable[[], Iterator[tuple[float, Samples]]],
    sample_rate: int,
) -> Iterator[Window | RecordingEnd]:
    """Yield the windows of a recording and its end, which holds the error if there is one.

    Args:
        number: number of the recording.
        name: what errors call it.
        open_pieces: opens the recording, and returns start and samples of each window.
        sample_rate: rate of the samples, in Hz.
    """
    end = 0.0
    error: AudioError | None = None
    try:
        for start, wave in open_pieces():
            end = start + len(wave) / sample_rate
            # A copy, because `wave` is a view that keeps the whole decoded block alive.
            span = Span(number, start, end, is_silent(wave))
            yield Window(span, torch.from_numpy(wave.copy()))
        if not end:
            error = too_short(name, sample_rate)
    except AudioError as caught:
        error = caught
    yield RecordingEnd(number, end, error)


def is_silent(wave: Samples) -> bool:
    """Return whether no sample is further from the others than the noise of 16 bits."""
    return float(wave.max()) - float(wave.min()) <= 2 * SILENT_PEAK


def too_short(name: object, sample_rate: int) -> AudioError:
    """Return the error for a recording of which resampling leaves no sample."""
    reason = f"shorter than one sample at {sample_rate} Hz"
    return AudioError(name, reason, "give a longer recording")
