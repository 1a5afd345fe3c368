"""Short sound files as bytes and in folders, of which each number gives another one."""

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

RATE = 8000


def wav(number: int, seconds: float = 0.2) -> bytes:
    """Return a WAV file of noise, other for every number."""
    wave = np.random.default_rng(number).normal(0, 0.1, round(seconds * RATE))
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="WAV")
    return file.getvalue()


def write_wavs(folder: Path, numbers: Iterable[int], seconds: float = 0.2) -> Path:
    """Write the sounds of some numbers as ``NUMBER.wav``, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{number}.wav").write_bytes(wav(number, seconds))
    return folder
