import math

import numpy as np
import pytest

from melpatch.audio.mel import mel_filters


def triangles(n_mels, low, high, to_mel, from_mel, bins):
    """(left, centre, right, weights) of each mel bin with corners evenly spaced in mels, straight in ``bins``."""
    corners = [from_mel(mel) for mel in np.linspace(to_mel(low), to_mel(high), n_mels + 2)]
    for left, centre, right in zip(corners, corners[1:], corners[2:], strict=False):
        yield left, centre, right, np.interp(bins, [left, centre, right], [0.0, 1.0, 0.0])


def htk(hz):
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def htk_hz(mel):
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def slaney(hz):
    return hz * 3 / 200 if hz < 1000 else 15 + math.log(hz / 1000) / (math.log(6.4) / 27)


def slaney_hz(mel):
    return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)


LAYOUTS = [
    (16000, 512, 128, 20.0, 8000.0),
    (32000, 1024, 64, 50.0, 14000.0),
    (8000, 300, 20, 0.0, 3000.0),
]


@pytest.mark.parametrize(("rate", "n_fft", "n_mels", "low", "high"), LAYOUTS)
def test_slaneys_filters_are_triangles_of_area_1_over_hertz(rate, n_fft, n_mels, low, high):
    bins = np.linspace(0, rate / 2, n_fft // 2 + 1)
    rows = triangles(n_mels, low, high, slaney, slaney_hz, bins)
    expected = [weights / ((right - left) / 2) for left, _, right, weights in rows]
    ours = mel_filters(
        "slaney", sample_rate=rate, n_fft=n_fft, n_mels=n_mels, low_hz=low, high_hz=high
    )
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("rate", "n_fft", "n_mels", "low", "high"), LAYOUTS)
def test_htks_filters_are_triangles_of_height_1_over_hertz(rate, n_fft, n_mels, low, high):
    bins = np.linspace(0, rate / 2, n_fft // 2 + 1)
    expected = [weights for *_, weights in triangles(n_mels, low, high, htk, htk_hz, bins)]
    ours = mel_filters(
        "htk", sample_rate=rate, n_fft=n_fft, n_mels=n_mels, low_hz=low, high_hz=high
    )
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("rate", "n_fft", "n_mels", "low", "high"), LAYOUTS)
def test_kaldis_filters_are_tensorflows_triangles_of_height_1_over_mels(
    rate, n_fft, n_mels, low, high
):
    bins = np.array([htk(hz) for hz in np.linspace(0, rate / 2, n_fft // 2 + 1)])
    expected = np.array(
        [row[3] for row in triangles(n_mels, htk(low), htk(high), float, float, bins)]
    )
    expected[:, 0] = (
        0.0  # linear_to_mel_weight_matrix leaves the constant part out; it has no weight anyway
    )
    ours = mel_filters(
        "kaldi", sample_rate=rate, n_fft=n_fft, n_mels=n_mels, low_hz=low, high_hz=high
    )
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("rate", "n_fft", "total", "above_0", "peaks"),
    [
        (
            32000,
            1024,
            2.048126180533764,
            866,
            [(0, 3, 0.015011813107179294), (63, 424, 0.0013412120839159758)],
        ),
        (
            16000,
            512,
            2.049347809571307,
            495,
            [(0, 3, 0.02100643545293654), (63, 244, 0.002725728183331589)],
        ),
        (
            8000,
            256,
            2.048408960229918,
            247,
            [(0, 3, 0.021545926047735826), (63, 123, 0.006435862501034218)],
        ),
    ],
)
def test_slaneys_filters_are_those_of_librosa(rate, n_fft, total, above_0, peaks):
    """Figures of ``librosa.filters.mel(..., n_mels=64, fmin=50, dtype=float64)``, version 0.11.0."""
    high = min(14000.0, rate / 2)
    ours = mel_filters(
        "slaney", sample_rate=rate, n_fft=n_fft, n_mels=64, low_hz=50.0, high_hz=high
    )
    assert ours.sum() == pytest.approx(total, abs=1e-12)
    assert np.count_nonzero(ours) == above_0
    for row, column, value in peaks:
        assert ours[row].argmax() == column
        assert ours[row, column] == pytest.approx(value, abs=1e-15)
