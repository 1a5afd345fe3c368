"""Samples to the bytes of a 16-bit sound file."""

import io
from typing import Literal

import numpy as np
import soundfile
from jaxtyping import Float

Codec = Literal["flac", "pcm"]
ENDINGS: dict[Codec, str] = {"flac": "flac", "pcm": "wav"}
"""The container of each codec, which is also the ending of its files."""
HIGHEST_FLAC_RATE = 655_350
"""The highest sampling rate that FLAC can state, in Hz."""
_FULL = 1 << 15


def encode(wave: Float[np.ndarray, " sample"], sample_rate: int, codec: Codec) -> tuple[bytes, float]:
    """Return samples as a mono sound file of 16 bits, and which share of them was beyond full scale and is cut off
    there.

    What was decoded from 16 bits comes back to the last bit.

    Args:
        wave: samples, nominally in [-1, 1].
        sample_rate: in Hz.
        codec: ``flac``, which is half as large, or ``pcm``, which is decoded in no time.
    """
    scaled = np.rint(wave * np.float32(_FULL))
    beyond = float(np.mean((scaled > _FULL) | (scaled < -_FULL)))  # 1.0 itself, one step too much, is no harm
    whole = np.clip(scaled, -_FULL, _FULL - 1).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, whole, sample_rate, subtype="PCM_16", format=ENDINGS[codec].upper())
    return file.getvalue(), beyond
