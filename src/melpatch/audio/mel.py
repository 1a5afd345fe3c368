"""Mel filter banks: Kaldi's, HTK's and Slaney's."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float

MelScale = Literal["kaldi", "htk", "slaney"]


def mel_filters(
    scale: MelScale, *, sample_rate: int, n_fft: int, n_mels: int, low_hz: float, high_hz: float
) -> Float[np.ndarray, "mel bin"]:
    """Return the weight of every FFT bin in every mel bin, in float64.

    "kaldi": triangles of height 1, linear in HTK's mels, as in TensorFlow's
    ``linear_to_mel_weight_matrix``. "htk": the same corners, but linear in hertz, as in torchaudio
    by default. "slaney": triangles of area 1 Hz, linear in hertz, with corners
    on the mel scale of Slaney's Auditory Toolbox (1998), as in librosa by default.

    Narrow triangles may fall between two FFT bins and stay empty, as in these libraries: the fourth
    of Kaldi's 128 at 16 kHz and 512 points does.

    Args:
        scale: "kaldi", "htk" or "slaney".
        sample_rate: sampling rate in Hz.
        n_fft: points of the Fourier transform, even; there are ``n_fft // 2 + 1`` FFT bins.
        n_mels: number of mel bins.
        low_hz: lower edge of the lowest mel bin, in Hz.
        high_hz: upper edge of the highest mel bin, in Hz.
    """
    # The last FFT bin, at half the sampling rate, has no weight; it is padded in the end.
    hz = np.arange(n_fft // 2) * sample_rate / n_fft
    if scale == "kaldi":
        bins = _htk(hz)
        corners = np.linspace(_htk(low_hz), _htk(high_hz), n_mels + 2)[:, None]
        height = 1.0
    elif scale == "htk":
        bins = hz
        corners = _htk_hz(np.linspace(_htk(low_hz), _htk(high_hz), n_mels + 2))[:, None]
        height = 1.0
    else:
        bins = hz
        corners = _slaney_hz(np.linspace(_slaney(low_hz), _slaney(high_hz), n_mels + 2))[:, None]
        height = 2.0 / (corners[2:] - corners[:-2])

    # Filter i rises from corner i to corner i + 1 and falls to corner i + 2.
    left = corners[:-2]
    centre = corners[1:-1]
    right = corners[2:]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    triangles = np.minimum(rising, falling).clip(min=0.0)
    return np.pad(height * triangles, [(0, 0), (0, 1)])


def mel_position(
    scale: MelScale, hz: float, *, n_mels: int, low_hz: float, high_hz: float
) -> float:
    """Return where a frequency lies among the mel bins: i + 0.5 is the centre of bin i, from 0.

    Args:
        scale: as for :func:`mel_filters`, and so are the others.
        hz: the frequency.
        n_mels: number of mel bins.
        low_hz: lower edge of the lowest mel bin.
        high_hz: upper edge of the highest mel bin.
    """
    to_mel = _slaney if scale == "slaney" else _htk
    # Corner i + 1 of n_mels + 2 equal steps is the centre of bin i.
    step = (to_mel(high_hz) - to_mel(low_hz)) / (n_mels + 1)
    return float((to_mel(hz) - to_mel(low_hz)) / step - 0.5)


def _htk(hz: Any) -> Any:
    """Return HTK's mels, with the natural logarithm as in Kaldi."""
    return 1127.0 * np.log1p(hz / 700.0)


def _htk_hz(mel: Any) -> Any:
    """Return the hertz of HTK's mels."""
    return 700.0 * np.expm1(mel / 1127.0)


def _slaney(hz: Any) -> Any:
    """Return Slaney's mels: linear up to 15 at 1000 Hz, then 27 more per factor of 6.4."""
    linear = np.minimum(hz, 1000.0) * 0.015
    return linear + 27.0 * np.log(np.maximum(hz, 1000.0) / 1000.0) / np.log(6.4)


def _slaney_hz(mel: Any) -> Any:
    """Return the hertz of Slaney's mels."""
    return np.minimum(mel, 15.0) / 0.015 * 6.4 ** (np.maximum(mel - 15.0, 0.0) / 27.0)
