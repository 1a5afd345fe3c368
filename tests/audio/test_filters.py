import math

import numpy as np
import pytest
import torch
from scipy.signal import butter, sosfiltfilt

from melpatch.audio import filters
from melpatch.audio.filters import band_stop, band_stop_response, high_pass, high_pass_response
from melpatch.rng import stream

RATE = 16000
KEYS = torch.tensor([3, -8, 2**50])
STATE = stream(0, "test", KEYS)


def tone(hertz, samples=RATE):
    return torch.sin(2 * math.pi * hertz / RATE * torch.arange(samples, dtype=torch.float64))


def level(wave):
    """Return the level of the middle of a tone of amplitude 1, in dB."""
    middle = wave[len(wave) // 4 : -len(wave) // 4]
    return 10 * math.log10(2 * float(middle.square().mean()) + 1e-30)


def fixed(function, *edges, order):
    """Return a clip filtered with given edges instead of drawn ones."""

    def run(wave):
        frequencies = filters._frequencies(wave, RATE)
        numbers = [torch.tensor([float(edge)], dtype=wave.dtype) for edge in edges]
        response = function(frequencies, *numbers, torch.tensor([float(order)]))
        return filters._filtered(wave, torch.tensor([wave.shape[1]]), response, RATE)

    return run


@pytest.mark.parametrize("order", [1, 2])
def test_filters_equal_those_of_scipy_run_forward_and_backward(order):
    wave = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    silence = 8000
    inner = np.pad(wave[0].numpy(), silence)
    for ours, sections in (
        (
            fixed(high_pass_response, 700, order=order),
            butter(order, 700, "highpass", fs=RATE, output="sos"),
        ),
        (
            fixed(band_stop_response, 500, 1500, order=order),
            butter(order, [500, 1500], "bandstop", fs=RATE, output="sos"),
        ),
    ):
        expected = sosfiltfilt(sections, inner, padtype=None)[silence:-silence]
        np.testing.assert_allclose(ours(wave)[0].numpy(), expected, atol=1e-9)


def test_a_high_pass_filter_removes_the_low_tone_and_leaves_the_high_one():
    run = fixed(high_pass_response, 1000, order=2)
    assert level(run(tone(100)[None])[0]) < -75
    assert level(run(tone(1000)[None])[0]) == pytest.approx(-6.02, abs=0.01)
    assert level(run(tone(6000)[None])[0]) == pytest.approx(0.0, abs=0.05)


def test_a_band_stop_filter_removes_the_tone_in_its_band_only():
    run = fixed(band_stop_response, 500, 1500, order=2)
    assert level(run(tone(870)[None])[0]) < -60
    assert abs(level(run(tone(60)[None])[0])) < 0.1
    assert abs(level(run(tone(6000)[None])[0])) < 0.1


def test_cutoffs_and_bands_are_drawn_in_their_ranges(monkeypatch):
    drawn = []

    def noted(frequencies, *edges):
        drawn.append(torch.stack(edges))
        return torch.ones(edges[0].shape[0], len(frequencies[0]))

    monkeypatch.setattr(filters, "high_pass_response", noted)
    monkeypatch.setattr(filters, "band_stop_response", noted)
    state = stream(0, "test", torch.arange(2000))
    wave, lengths = torch.zeros(2000, 8), torch.full((2000,), 8)
    high_pass(wave, lengths, state, RATE, (20.0, 2400.0))
    band_stop(wave, lengths, state, RATE, (200.0, 4000.0), (0.5, 1.99))
    cutoff, order = drawn[0]
    assert 20 <= cutoff.min() < 30
    assert 2350 < cutoff.max() <= 2400.01
    assert set(order.tolist()) == {1.0, 2.0}
    # Half of them lie below the middle in mel.
    middle = 700 * math.expm1((math.log1p(20 / 700) + math.log1p(2400 / 700)) / 2)
    assert 0.45 < (cutoff < middle).float().mean() < 0.55
    low, high, _ = drawn[1]
    assert low.min() >= 20
    assert high.max() <= 0.49 * RATE
    centre, width = (low + high) / 2, high - low
    inner = (low > 20) & (high < 0.48 * RATE)
    share = (width / centre)[inner]
    assert 0.499 <= share.min() < 0.52
    assert 1.9 < share.max() <= 1.991
    assert ((centre >= 199.9) & (centre <= 4000.1))[inner].all()


@pytest.mark.parametrize("rate", [4000, 8000, 44100])
def test_any_rate_is_filtered(rate):
    wave = torch.randn(3, 2000, generator=torch.Generator().manual_seed(0))
    lengths = torch.full((3,), 2000)
    for filtered in (
        high_pass(wave, lengths, STATE, rate, (20.0, 2400.0)),
        band_stop(wave, lengths, STATE, rate, (200.0, 4000.0), (0.5, 1.99)),
    ):
        assert filtered.isfinite().all()
        assert filtered.square().mean() < wave.square().mean()


def test_the_narrowest_and_lowest_filters_do_not_wrap_around():
    # A click at the end of a clip must not be heard at its start.
    wave = torch.zeros(1, 4000, dtype=torch.float64)
    wave[0, -1] = 1.0
    for run in (
        fixed(high_pass_response, 20, order=2),
        fixed(band_stop_response, 20, 60, order=2),
    ):
        far = torch.cat([torch.zeros(1, 40000, dtype=torch.float64), wave], dim=1)
        torch.testing.assert_close(run(wave), run(far)[:, 40000:], rtol=0, atol=3e-9)
