"""The sound of a stretch for a browser: as a WAV file, and as a spectrogram of bytes."""

import io
from math import log
from pathlib import Path

import numpy as np
import soundfile
import torch

from melpatch.atomic import file_state
from melpatch.audio.files import read
from melpatch.audio.logmel import LogMel
from melpatch.errors import AudioError
from melpatch.search.index import Index

LONGEST = 120.0
"""Seconds that are served at once, at most."""
STEP = 0.5
"""Decibels between neighbouring values of a spectrogram's bytes."""


def stretch_of(index: Index, row: int, around: float) -> tuple[Path, float, float]:
    """Return the file of a row, and its start and end with some seconds around it.

    Raises:
        AudioError: the file is gone, or has changed since it was indexed.
    """
    place = index.rows[row]
    recording = index.recordings[int(place["recording"])]
    path = Path(recording.path)
    state = file_state(path)
    if state is None:
        raise AudioError(path, "is gone since it was indexed", "put it back, or index it again")
    if recording.state is not None and state != recording.state:
        raise AudioError(path, "has changed since it was indexed", "run melpatch index again")
    around = max(0.0, min(around, LONGEST / 2))
    return path, max(0.0, float(place["start"]) - around), float(place["end"]) + around


def wav_of(path: Path, start: float, end: float) -> bytes:
    """Return a stretch of a file as a WAV file of 16 bits, at the file's own rate.

    Raises:
        AudioError: it cannot be read.
    """
    wave, rate = read(path, start=start, duration=end - start)
    file = io.BytesIO()
    soundfile.write(file, np.clip(wave, -1, 1), rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def spectrogram_of(
    front_end: LogMel, path: Path, start: float, end: float
) -> tuple[np.ndarray, float]:
    """Return the log-mel spectrogram of a stretch as bytes, (mel, frame), and the decibels of 0.

    A byte is half a decibel, so that a browser can change range and gain by itself.

    Raises:
        AudioError: it cannot be read.
    """
    wave, _ = read(path, start=start, duration=end - start, sample_rate=front_end.sample_rate)
    with torch.inference_mode():
        log_mel = front_end.denormalise(front_end(torch.from_numpy(wave))).numpy()
    per_neper = {"power": 10, "magnitude": 20}[front_end.config.spectrum] / log(10)
    decibels = per_neper * log_mel
    floor = float(decibels.max()) - 255 * STEP
    return np.clip((decibels - floor) / STEP, 0, 255).astype(np.uint8), floor
