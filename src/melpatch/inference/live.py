"""Predictions for sound that is still coming: from a pipe or a microphone, one answer per hop."""

import math
import struct
from collections.abc import Iterator
from io import BufferedIOBase
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
import soxr
from jaxtyping import Float

from melpatch.config import check
from melpatch.errors import AudioError, MelpatchError
from melpatch.inference.model import Model
from melpatch.inference.results import Prediction

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_LONGEST_CHUNK = 1 << 20  # bytes of what may stand before the samples of a WAV
# Lengths of samples that are written where the end is not known yet: 0, or about the largest.
_ENDLESS = 0x7F00_0000
_SAMPLES = {(_PCM, 16): "<i2", (_PCM, 32): "<i4", (_FLOAT, 32): "<f4", (_FLOAT, 64): "<f8"}


class Encoding(NamedTuple):
    """How samples are written one after the other."""

    sample_rate: int
    """In Hz."""
    channels: int = 1
    kind: str = "<i2"
    """Their type, as NumPy has it."""
    size: int | None = None
    """Bytes of all samples, after which something else may follow; None: up to the end."""


def predict_live(
    model: Model, blocks: Iterator[Float[np.ndarray, " _"]], sample_rate: int
) -> Iterator[Prediction]:
    """Yield a prediction after each block of sound, for the window that ends with it.

    The window is as long as the model's input, or as what there was so far. Memory is bounded by
    it.

    Args:
        model: a classifier.
        blocks: mono samples in [-1, 1], one after the other.
        sample_rate: their rate in Hz.

    Raises:
        ConfigError: the model was not trained with labels.
    """
    length = round(model.seconds * model.sample_rate)
    resampler = None
    if sample_rate != model.sample_rate:
        resampler = soxr.ResampleStream(sample_rate, model.sample_rate, 1, dtype="float32")
    window = np.zeros(0, dtype=np.float32)
    done = 0
    for block in blocks:
        new = block.astype(np.float32)
        if resampler is not None:
            new = resampler.resample_chunk(new)
        # A resampler holds back less than 0.1 s; a short first block may give nothing yet.
        if not len(new):
            continue
        done += len(new)
        window = np.concatenate([window, new])[-length:]
        (answer,) = model.predict(window, model.sample_rate)
        begin = (done - len(window)) / model.sample_rate
        yield answer._replace(start=begin, end=done / model.sample_rate)


def piped_blocks(
    stream: BufferedIOBase, hop: float, raw_rate: int | None
) -> tuple[int, Iterator[Float[np.ndarray, " _"]]]:
    """Return the rate of the sound that comes through a pipe, and its blocks of ``hop`` seconds.

    It is a WAV, or raw samples: 16 bits, little-endian, mono. The last block may be shorter.

    Args:
        stream: the pipe.
        hop: seconds of a block.
        raw_rate: rate of raw samples in Hz; None: the stream is a WAV.

    Raises:
        AudioError: it is no WAV and no rate is given, or a WAV of another encoding.
    """
    start = stream.read(4)
    if start == b"RIFF":
        encoding, rest = _wav_encoding(stream), b""
    elif raw_rate is None:
        fix = "give the rate of raw samples (16 bits, mono) with --raw-rate, or pipe a WAV"
        raise AudioError("-", "is no WAV", fix)
    else:
        encoding, rest = Encoding(raw_rate), start
    return encoding.sample_rate, _blocks(stream, hop, encoding, rest)


def _wav_encoding(stream: BufferedIOBase) -> Encoding:
    """Return how the samples are written that follow in a WAV of which RIFF has been read."""
    fix = "pipe a WAV of 16 or 32 bits, or raw samples with --raw-rate"
    encoding = None
    stream.read(8)  # the length, which a pipe does not know, and WAVE
    while len(head := stream.read(8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == b"data" and encoding is not None:
            is_known = 0 < size < _ENDLESS
            return encoding._replace(size=size if is_known else None)
        if name == b"data" or size > _LONGEST_CHUNK:
            break
        content = stream.read(size + size % 2)
        if name == b"fmt " and len(content) >= 16:
            code, channels, rate, _, _, bits = struct.unpack("<HHIIHH", content[:16])
            if code == _EXTENSIBLE and len(content) >= 26:
                (code,) = struct.unpack("<H", content[24:26])
            kind = _SAMPLES.get((code, bits))
            if kind is None or not channels or not rate:
                raise AudioError("-", f"a WAV of {bits} bits (format {code})", fix)
            encoding = Encoding(rate, channels, kind)
    raise AudioError("-", "a WAV without samples", fix)


def _blocks(
    stream: BufferedIOBase, hop: float, encoding: Encoding, rest: bytes
) -> Iterator[Float[np.ndarray, " _"]]:
    kind = np.dtype(encoding.kind)
    frame = kind.itemsize * encoding.channels
    size = max(1, round(hop * encoding.sample_rate)) * frame
    # The full scale of whole numbers is 1.
    scale = 1.0 if kind.kind == "f" else float(np.iinfo(kind).max) + 1
    left = math.inf if encoding.size is None else encoding.size
    while True:
        content = rest + stream.read(int(min(size, left)) - len(rest))
        left -= len(content)
        rest = b""
        frames = len(content) // frame
        if not frames:
            return
        samples = np.frombuffer(content[: frames * frame], kind).astype(np.float64) / scale
        yield samples.reshape(frames, encoding.channels).mean(axis=1)


def microphone_blocks(hop: float) -> tuple[int, Iterator[Float[np.ndarray, " _"]]]:
    """Return the rate of the default microphone, and its blocks of ``hop`` seconds, without an end.

    Raises:
        MelpatchError: sounddevice is not installed, or there is no microphone.
    """
    try:
        import sounddevice
    except (ModuleNotFoundError, OSError) as error:
        raise MelpatchError(
            "--live needs sounddevice and PortAudio; install them with: "
            "pip install 'melpatch[live]' (on Linux also the package libportaudio2)"
        ) from error
    try:
        rate = int(sounddevice.query_devices(kind="input")["default_samplerate"])
    except (sounddevice.PortAudioError, ValueError) as error:
        raise MelpatchError(
            f"--live: no microphone ({error}); connect one, or pipe the sound: melpatch predict RUN -"
        ) from error
    check(hop * rate >= 1, "hop", hop, f"at least one sample, 1/{rate} s")
    return rate, _recorded(sounddevice, rate, round(hop * rate))


def _recorded(sounddevice: Any, rate: int, size: int) -> Iterator[Float[np.ndarray, " _"]]:
    # The microphone fills the queue while the network computes, so that no sound is lost.
    queue: SimpleQueue[Float[np.ndarray, " _"]] = SimpleQueue()

    def keep(recorded: Any, *_: Any) -> None:
        queue.put(recorded[:, 0].copy())

    with sounddevice.InputStream(rate, size, channels=1, dtype="float32", callback=keep):
        while True:
            yield queue.get()
