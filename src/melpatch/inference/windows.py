"""Recordings of any length as windows, in their order: decoded forward in bounded memory, in this process or in others
beside it.
"""

import itertools
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from melpatch.config import check
from melpatch.data.clip import Clip
from melpatch.data.loader import started, undisturbed
from melpatch.data.sound import Samples, decode, streamed
from melpatch.errors import AudioError, ConfigError
from melpatch.rng import hash_text

_AHEAD = 4  # windows that a decoding process has ready
_SHORT = 120.0  # seconds of a clip up to which it is decoded at once, as training does


class Windowing(NamedTuple):
    """How recordings are cut into windows."""

    seconds: float
    """Length of a window; the last one of a recording may be shorter."""
    hop: float
    """Seconds from the beginning of a window to that of the next; one sample at least."""
    sample_rate: int
    """Hz."""


class Span(NamedTuple):
    """Where a window lies."""

    recording: int
    """The number of its recording."""
    start: float
    """Seconds from the beginning of the recording."""
    end: float


class Window(NamedTuple):
    """A piece of a recording."""

    span: Span
    wave: Float[Tensor, " sample"]


class End(NamedTuple):
    """That a recording has no further window."""

    recording: int
    """Its number."""
    seconds: float
    """How much of it was decoded."""
    error: AudioError | None
    """What is wrong with it; None if nothing is."""


Numbered = Sequence[tuple[int, Clip]]
"""Recordings with their numbers in the output."""


def whole(path: Path) -> Clip:
    """Return a sound file as one recording, without opening it: how long it is shows when it is decoded."""
    return Clip(path, hash_text(str(path)), 0.0, inf)


def windows(recordings: Numbered, cut: Windowing, workers: int = 0) -> Iterator[Window | End]:
    """Return the windows of each recording and then its end, in the order of the recordings.

    Args:
        recordings: what to decode.
        cut: into which windows.
        workers: processes that decode, a recording at a time each; none holds more than a few windows. 0 decodes here.
    """
    if workers == 0:
        return _decoded(recordings, cut)
    workers = min(workers, len(recordings))
    # A loader each, since one loader would take from all in turn, and not a recording from its beginning to its end.
    # They start at once, for what is forked in an executor's thread, where the windows may be asked for, ends as if it
    # had failed: Python has every thread of an executor joined at the end, and this one would have to join itself.
    loaders = [
        started(
            DataLoader(
                _Share(recordings[first::workers], cut),
                batch_size=None,
                num_workers=1,
                prefetch_factor=_AHEAD,
                worker_init_fn=undisturbed,
            )
        )
        for first in range(workers)
    ]
    return _in_turn(loaders, len(recordings))


def _in_turn(loaders: Sequence[Iterator[Window | End]], count: int) -> Iterator[Window | End]:
    """Yield a recording from each loader in turn."""
    for place in range(count):
        for item in loaders[place % len(loaders)]:
            yield item
            if isinstance(item, End):
                break


class _Share(IterableDataset[Window | End]):
    """What one process decodes."""

    def __init__(self, recordings: Numbered, cut: Windowing) -> None:
        self.recordings, self.cut = recordings, cut

    def __iter__(self) -> Iterator[Window | End]:
        return _decoded(self.recordings, self.cut)


def _decoded(recordings: Numbered, cut: Windowing) -> Iterator[Window | End]:
    for number, clip in recordings:
        end, wrong = 0.0, None
        try:
            for start, wave in _pieces(clip, cut):
                end = start + len(wave) / cut.sample_rate
                # A copy, for a piece is a view that would keep all that was decoded with it.
                yield Window(Span(number, start, end), torch.from_numpy(wave.copy()))
            wrong = None if end else _too_short(clip.place, cut.sample_rate)
        except AudioError as error:
            wrong = error
        yield End(number, end, wrong)


def _pieces(clip: Clip, cut: Windowing) -> Iterator[tuple[float, Samples]]:
    """Return the start within the clip and the samples of each window."""
    if clip.duration <= _SHORT:
        return _slices(decode(clip, cut.sample_rate), cut)
    return streamed(clip, cut.seconds, cut.hop, cut.sample_rate)


def _slices(wave: Samples, cut: Windowing) -> Iterator[tuple[float, Samples]]:
    """Yield what :func:`melpatch.audio.files.stream` yields for a file; the samples are views."""
    length, rate = round(cut.seconds * cut.sample_rate), cut.sample_rate
    for number in itertools.count():
        first = round(number * cut.hop * rate)
        if first < len(wave):
            yield first / rate, wave[first : first + length]
        if first + length >= len(wave):
            return


def _too_short(name: object, rate: int) -> AudioError:
    return AudioError(name, f"shorter than one sample at {rate} Hz", "give a longer recording")


def windows_of_samples(
    audio: np.ndarray | Tensor, rate: int | None, cut: Windowing
) -> Iterator[Window | End]:
    """Yield the windows of one channel's samples, as those of recording 0, and its end.

    Args:
        audio: floats in [-1, 1].
        rate: theirs, in Hz.
        cut: into which windows, of which rate.

    Raises:
        ConfigError: they are no such samples, or their rate is not given.
        AudioError: no sample is left at the rate that is asked for.
    """
    wave = _resampled(audio, rate, cut.sample_rate)
    if not len(wave):
        raise _too_short("the samples", cut.sample_rate)
    for start, piece in _slices(wave, cut):
        yield Window(Span(0, start, start + len(piece) / cut.sample_rate), torch.from_numpy(piece))
    yield End(0, len(wave) / cut.sample_rate, None)


def _resampled(audio: np.ndarray | Tensor, rate: int | None, wanted: int) -> Samples:
    if rate is None:
        raise ConfigError(
            "samples were given without sample_rate; say at how many Hz they were taken"
        )
    check(rate > 0, "sample_rate", rate, "the rate of the samples in Hz")
    wave = audio.numpy(force=True) if isinstance(audio, Tensor) else np.asarray(audio)
    fits = (
        wave.ndim == 1
        and len(wave)
        and np.issubdtype(wave.dtype, np.floating)
        and np.isfinite(wave).all()
    )
    if not fits:
        raise ConfigError(
            f"samples of shape {wave.shape} and type {wave.dtype}; allowed: one channel of finite floats in "
            "[-1, 1]; average channels, and divide 16-bit integers by 32768"
        )
    wave = np.ascontiguousarray(wave, dtype=np.float32)
    return (
        wave
        if rate == wanted
        else np.asarray(soxr.resample(wave, rate, wanted, quality="HQ"), np.float32)
    )
