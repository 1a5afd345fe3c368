"""Mel filter banks: Kaldi's and Slaney's."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float

MelScale = Literal["kaldi", "slaney"]


def mel_filters(
    scale: MelScale, *, sample_rate: int, n_fft: int, n_mels: int, low_hz: float, high_hz: float
) -> Float[np.ndarray, "mel bin"]:
    """Return the weight of every FFT bin in every mel bin, in float64.

    "kaldi": triangles of height 1, straight on HTK's mel scale. That is TensorFlow's ``linear_to_mel_weight_matrix`` as
    well. "slaney": triangles of area 1 Hz, straight on the scale of hertz, with corners on the mel scale of Slaney's
    Auditory Toolbox (1998): librosa's default.

    Narrow triangles may fall between two FFT bins and stay empty, there as here: with Kaldi's at 16 kHz, 512 points and
    128 mels, the fourth does.

    Args:
        scale: which of the two.
        sample_rate: sampling rate in Hz.
        n_fft: points of the Fourier transform, an even number; there are ``n_fft // 2 + 1`` FFT bins.
        n_mels: number of mel bins.
        low_hz: lower edge of the lowest mel bin, in Hz.
        high_hz: upper edge of the highest mel bin, in Hz.
    """
    hz = (
        np.arange(n_fft // 2) * sample_rate / n_fft
    )  # the last bin, half the sampling rate, has no weight
    if scale == "kaldi":
        bins, corners = _htk(hz), np.linspace(_htk(low_hz), _htk(high_hz), n_mels + 2)[:, None]
        height = 1.0
    else:
        bins, corners = (
            hz,
            _slaney_hz(np.linspace(_slaney(low_hz), _slaney(high_hz), n_mels + 2))[:, None],
        )
        height = 2.0 / (corners[2:] - corners[:-2])
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    triangles = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clip(
        min=0.0
    )
    return np.pad(height * triangles, [(0, 0), (0, 1)])


def _htk(hz: Any) -> Any:
    return 1127.0 * np.log1p(hz / 700.0)


def _slaney(hz: Any) -> Any:
    """Return mels: 15 up to 1000 Hz, in even steps, and above it 27 for every factor of 6.4."""
    return np.minimum(hz, 1000.0) * 0.015 + 27.0 * np.log(np.maximum(hz, 1000.0) / 1000.0) / np.log(
        6.4
    )


def _slaney_hz(mel: Any) -> Any:
    return np.minimum(mel, 15.0) / 0.015 * 6.4 ** (np.maximum(mel - 15.0, 0.0) / 27.0)
