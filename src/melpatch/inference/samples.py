"""Audio as users have it, files, open files, arrays and tensors, as windows at the model's rate."""

import io
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from jaxtyping import Float
from torch import Tensor

from melpatch.audio.files import Channel, stream
from melpatch.audio.framing import LARGEST_FLOAT
from melpatch.audio.open_file import BinaryFile, OpenFile
from melpatch.data.sound import Samples
from melpatch.errors import ConfigError
from melpatch.inference.arguments import check_sample_rate
from melpatch.inference.windows import (
    RecordingEnd,
    Span,
    Window,
    WindowSpec,
    clip_of_file,
    is_silent,
    read_windows,
    recording_windows,
    too_short,
)

Audio = str | PathLike[str] | BinaryFile | np.ndarray | Tensor | Sequence[float]
"""A sound file, an open one, or samples, whose types and shapes :func:`mono` checks."""

MOST_CHANNELS = 32
"""Longest axis of a two-dimensional array that is taken for its channels."""

_FULL_SCALE = {np.dtype(np.int8): 2**7, np.dtype(np.int16): 2**15, np.dtype(np.int32): 2**31}


def windows_of(
    audio: Any, sample_rate: int | None, spec: WindowSpec, number: int = 0
) -> Iterator[Window | RecordingEnd]:
    """Return the windows of one recording and its end.

    Args:
        audio: an :data:`Audio`: a file, an open binary file, which stays open, or samples, see
            :func:`mono`. Anything else is refused with a message.
        sample_rate: rate of samples in Hz; files state their own.
        spec: how the recording is cut.
        number: number of the recording.

    Raises:
        ConfigError: the samples are not audio, or their rate is not given.
        AudioError: no sample is left at the model's rate.
    """
    if isinstance(audio, str | PathLike):
        return read_windows([(number, clip_of_file(Path(audio)))], spec)
    if isinstance(audio, bytes | bytearray | memoryview):
        fix = "wrap the bytes of a file in io.BytesIO, or give samples as an array"
        raise ConfigError(f"audio of type {type(audio).__name__}: {fix}")
    if isinstance(audio, io.TextIOBase):
        raise ConfigError(f"audio of type {type(audio).__name__}: open the file in mode 'rb'")
    if isinstance(audio, np.ndarray | Tensor) or not hasattr(audio, "read"):
        return _windows_of_samples(audio, sample_rate, spec, number)
    source = OpenFile(audio)
    pieces = partial(stream, source, spec.seconds, spec.hop, spec.sample_rate, channel=spec.channel)
    return recording_windows(number, source, pieces, spec.sample_rate)


def _windows_of_samples(
    audio: Any, sample_rate: int | None, spec: WindowSpec, number: int
) -> Iterator[Window | RecordingEnd]:
    if sample_rate is None:
        raise ConfigError(
            "samples were given without sample_rate; say at how many Hz they were taken"
        )
    check_sample_rate(sample_rate)
    wave = mono(audio, spec.channel)
    if sample_rate != spec.sample_rate:
        wave = soxr.resample(wave, sample_rate, spec.sample_rate, quality="HQ")
        wave = np.asarray(wave, np.float32)
    if not len(wave):
        raise too_short("the samples", spec.sample_rate)
    for start, piece in _cut(wave, spec):
        end = start + len(piece) / spec.sample_rate
        yield Window(Span(number, start, end, is_silent(piece)), torch.from_numpy(piece))
    yield RecordingEnd(number, len(wave) / spec.sample_rate, None)


def _cut(wave: Samples, spec: WindowSpec) -> Iterator[tuple[float, Samples]]:
    """Yield start and samples of each window, as those of a file come from its decoder."""
    length = round(spec.seconds * spec.sample_rate)
    for number in itertools.count():
        first = round(number * spec.hop * spec.sample_rate)
        if first < len(wave):
            yield first / spec.sample_rate, wave[first : first + length]
        if first + length >= len(wave):
            return


def mono(audio: Any, channel: Channel = "mean") -> Samples:
    """Return an array, tensor or list of samples as float32 of one channel, nominally in [-1, 1].

    Floats are taken as they are, whatever their precision. Signed integers and uint8 are PCM and
    are divided by the full scale of their type. Of a two-dimensional array the axis of at most
    ``MOST_CHANNELS`` entries holds the channels, first or last, and their mean or one of them is
    taken, as of the channels of a file.

    Raises:
        ConfigError: the samples are not of such a type or shape, empty, or not finite.
    """
    if isinstance(audio, Tensor):
        # Only float32 and float64 have a counterpart in numpy for certain; bfloat16 has none.
        wide = audio.float() if audio.dtype in (torch.bfloat16, torch.float16) else audio
        wave = wide.numpy(force=True)
    else:
        wave = np.asarray(audio)
    name = f"samples of shape {wave.shape} and type {wave.dtype}"
    wave = _one_channel(_scaled(wave, name), name, channel)
    if not len(wave):
        raise ConfigError(f"{name}: there is no sample; give at least one")
    if not np.isfinite(wave).all():
        raise ConfigError(f"{name}: not all are finite; replace NaN and infinity before")
    return np.ascontiguousarray(wave, dtype=np.float32)


def _scaled(wave: np.ndarray, name: str) -> np.ndarray:
    """Return samples of any type as float32, those of integers divided by their full scale."""
    if np.issubdtype(wave.dtype, np.floating):
        peak = float(np.abs(wave).max()) if wave.size else 0.0
        if np.isfinite(peak) and peak > LARGEST_FLOAT:
            raise ConfigError(
                f"{name}: they reach {peak:,.6g}, but floats are expected in [-1, 1]; "
                "divide them by the full scale, such as 32768, or give PCM as int16"
            )
        return wave.astype(np.float32, copy=False)
    if wave.dtype == np.uint8:
        # 8-bit WAV files are unsigned, with silence at 128.
        return (wave.astype(np.float32) - 128) / np.float32(128)
    native = wave.dtype.newbyteorder("=")
    if native in _FULL_SCALE:
        return wave.astype(np.float32) / np.float32(_FULL_SCALE[native])
    raise ConfigError(
        f"{name}: no type of samples; give floats in [-1, 1], or PCM as int8, uint8, int16 or int32"
    )


def _one_channel(wave: Float[np.ndarray, "*_"], name: str, channel: Channel) -> Samples:
    if wave.ndim == 1:
        return wave
    if wave.ndim != 2:
        raise ConfigError(
            f"{name}: neither (sample,), (channel, sample) nor (sample, channel); "
            "give one recording at a time"
        )
    axes = _channel_axes(wave.shape)
    if len(axes) == 1:
        return _taken(np.moveaxis(wave, axes[0], 0), channel)
    fix = "give one channel, such as audio[0], or their mean, such as audio.mean(0)"
    if axes:
        raise ConfigError(f"{name}: either axis may be the channels; {fix}")
    raise ConfigError(f"{name}: no axis has {MOST_CHANNELS} or fewer entries to be channels; {fix}")


def _taken(channels: Float[np.ndarray, "channel sample"], channel: Channel) -> Samples:
    """Return the mean of channels, or one of them."""
    if channel == "mean":
        return np.asarray(channels.mean(axis=0))
    if channel == "loudest":
        number = int(np.square(channels, dtype=np.float64).sum(axis=1).argmax())
    else:
        number = min(int(channel == "right"), len(channels) - 1)
    return np.asarray(channels[number])


def _channel_axes(shape: tuple[int, ...]) -> list[int]:
    """Return the axes that may be the channels; an axis of one entry decides it on its own."""
    if 1 in shape:
        return [shape.index(1)]
    return [axis for axis, size in enumerate(shape) if size <= MOST_CHANNELS]
