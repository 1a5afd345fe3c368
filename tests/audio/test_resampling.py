"""Resampling on the device: as soxr does it, clip by clip, whatever lies past a clip's end."""

import numpy as np
import pytest
import soxr
import torch

from melpatch.audio.resampling import resample

RATES = [(32000, 16000), (16000, 32000), (44100, 16000), (8000, 11025), (48000, 22050)]


def sound(rate, seconds=0.5, seed=0):
    """Return three tones in the band of 8 kHz audio that a filter leaves alone."""
    time = np.arange(round(rate * seconds)) / rate
    phases = np.random.default_rng(seed).uniform(0, 6, 3)
    tones = [
        np.sin(2 * np.pi * hertz * time + phase)
        for hertz, phase in zip((200, 900, 3100), phases, strict=True)
    ]
    return torch.from_numpy(sum(tones) / 3)


@pytest.mark.parametrize(("rate", "wanted"), RATES)
def test_a_band_that_both_rates_hold_is_as_soxr_resamples_it(rate, wanted):
    wave = sound(rate)
    ours, lengths = resample(wave[None], torch.tensor([len(wave)]), rate, wanted)
    theirs = torch.from_numpy(soxr.resample(wave.numpy(), rate, wanted, "VHQ"))
    assert abs(int(lengths[0]) - len(theirs)) <= 1
    inside = slice(len(theirs) // 5, -len(theirs) // 5)  # at the ends filters ring
    count = min(len(theirs), ours.shape[1])
    torch.testing.assert_close(ours[0, :count][inside], theirs[:count][inside], rtol=0, atol=1e-3)


def test_what_the_lower_rate_cannot_hold_is_gone():
    tone = torch.sin(2 * torch.pi * 11000 * torch.arange(32000).double() / 32000)[None]
    resampled, _ = resample(tone, torch.tensor([32000]), 32000, 16000)
    assert resampled[0, 1000:-1000].abs().max() < 1e-3


@pytest.mark.parametrize(("rate", "wanted"), RATES)
def test_a_clip_is_the_same_alone_and_beside_a_longer_one(rate, wanted):
    short, long = sound(rate, 0.11), sound(rate, 0.3, seed=1)
    together = torch.full((2, len(long)), 1e6, dtype=torch.float64)  # rubbish past the end
    together[0, : len(short)] = short
    together[1] = long
    lengths = torch.tensor([len(short), len(long)])
    batch, kept = resample(together, lengths, rate, wanted)
    for row, wave in enumerate((short, long)):
        alone, count = resample(wave[None], lengths[row : row + 1], rate, wanted)
        assert kept[row] == count[0] == alone.shape[1] == -(-len(wave) * wanted // rate)
        torch.testing.assert_close(batch[row, : kept[row]], alone[0], rtol=0, atol=1e-12)
        assert not batch[row, kept[row] :].any()


def test_the_same_rate_is_left_alone_and_a_batch_may_be_empty():
    wave = torch.ones(1, 5)
    assert resample(wave, torch.tensor([5]), 8000, 8000)[0] is wave
    none, lengths = resample(torch.zeros(0, 800), torch.zeros(0, dtype=torch.int64), 8000, 16000)
    assert none.shape == (0, 1600)
    assert len(lengths) == 0
