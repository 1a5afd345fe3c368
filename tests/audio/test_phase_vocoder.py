import math

import pytest
import torch

from melpatch.audio.phase_vocoder import _is_peak, _nearest, play

RATE = 16000


def tone(hertz, seconds=1.5):
    return torch.sin(2 * math.pi * hertz / RATE * torch.arange(round(seconds * RATE)))[None]


def played(wave, rate=1.0, semitones=0.0):
    factor = 2.0 ** (semitones / 12)
    return play(
        wave, torch.tensor([wave.shape[1]]), torch.tensor([rate]), torch.tensor([factor]), RATE
    )[0]


def pitch(wave):
    size = 8 * len(wave)
    spectrum = torch.fft.rfft(wave * torch.hann_window(len(wave)), n=size).abs()
    return float(spectrum.argmax()) * RATE / size


@pytest.mark.parametrize("hertz", [110.0, 440.0, 2990.0])
@pytest.mark.parametrize(
    ("rate", "semitones"), [(0.7, 0.0), (1.3, 0.0), (1.0, 4.0), (1.0, -3.3), (0.8, 2.0)]
)
def test_a_tone_gets_its_pitch_and_keeps_its_level(hertz, rate, semitones):
    middle = played(tone(hertz), rate, semitones)[3000:15000]
    cents = 1200 * math.log2(pitch(middle) / (hertz * 2 ** (semitones / 12)))
    assert abs(cents) < 3
    decibels = 20 * math.log10(float(middle.square().mean().sqrt()) * math.sqrt(2))
    assert abs(decibels) < 1.2


@pytest.mark.parametrize("rate", [0.7, 1.0, 1.3])
def test_a_stretch_moves_clicks(rate):
    wave = torch.zeros(1, 2 * RATE)
    at = torch.tensor([4000, 12000, 19000])
    wave[0, at] = 1.0
    energy = played(wave, rate).square()
    for place in (at / rate).tolist():
        near = slice(round(place) - 1024, round(place) + 1024)
        centre = (energy[near] * torch.arange(near.start, near.stop)).sum() / energy[near].sum()
        assert abs(float(centre) - place) < 300  # 19 ms
        assert energy[near].sum() > 0.2


def test_rate_and_pitch_of_one_change_nothing():
    wave = torch.randn(1, 9000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(played(wave), wave[0], rtol=0, atol=1e-3)


def test_a_faster_clip_ends_in_silence_and_a_slower_one_is_cut():
    wave = torch.ones(1, RATE) * tone(440.0, 1.0)
    fast, slow = played(wave, 1.3), played(wave, 0.7)
    assert fast[: round(RATE / 1.3) - 1024].square().mean() > 0.4
    assert fast[round(RATE / 1.3) + 1024 :].abs().max() < 1e-4
    assert slow[-4000:-1024].square().mean() > 0.4


def test_clips_of_different_lengths_and_factors_are_played_as_alone():
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(4, 8000, generator=generator)
    lengths = torch.tensor([8000, 3001, 1, 500])
    rate, factor = torch.tensor([0.8, 1.2, 1.1, 1.0]), torch.tensor([1.1, 0.9, 1.2, 1.2])
    for garbage in (7.0, math.nan):
        padded = wave.where(torch.arange(8000) < lengths[:, None], garbage)
        batch = play(padded, lengths, rate, factor, RATE)
        for i, length in enumerate(lengths.tolist()):
            alone = play(wave[i : i + 1, :length], lengths[i : i + 1], rate[[i]], factor[[i]], RATE)
            torch.testing.assert_close(batch[i, :length], alone[0], rtol=0, atol=1e-4)
            torch.testing.assert_close(
                batch[i, length:], padded[i, length:], rtol=0, atol=0, equal_nan=True
            )


def test_silence_stays_silence():
    assert (played(torch.zeros(1, 4000), 0.8, 3.0) == 0).all()


def test_each_bin_belongs_to_the_nearest_peak():
    size = torch.tensor([0.0, 1, 5, 2, 1, 0, 0, 3, 9, 1])[None, None]
    nearest, gap = _nearest(_is_peak(size))
    assert nearest[0, 0].tolist() == [2, 2, 2, 2, 2, 2, 8, 8, 8, 8]
    assert gap[0, 0, 2:9].tolist() == [0, 6, 6, 6, 6, 6, 0]


@pytest.mark.parametrize("semitones", [-4.0, -1.7, 3.0, 4.0])
def test_a_shifted_chord_is_a_chord(semitones):
    # Three tones; what is not within 8 Hz of where they belong is 100 times weaker.
    chord = tone(440.0) + tone(1000.0) + tone(3000.0)
    middle = played(chord, 1.0, semitones)[4000:20384]
    spectrum = torch.fft.rfft(middle * torch.hann_window(len(middle))).abs().square()
    hertz = torch.arange(len(spectrum)) * RATE / len(middle)
    wanted = torch.zeros(len(spectrum), dtype=torch.bool)
    for each in (440.0, 1000.0, 3000.0):
        near = (hertz - each * 2 ** (semitones / 12)).abs() < 8
        assert spectrum[near].sum() > spectrum.sum() / 5
        wanted |= near
    assert spectrum[~wanted].sum() < spectrum.sum() / 100


def test_what_would_rise_above_half_the_rate_is_gone():
    middle = played(tone(7000.0) + tone(500.0), 1.0, 4.0)[4000:20384]
    assert abs(pitch(middle) - 500 * 2 ** (4 / 12)) < 2
    assert played(tone(7900.0), 1.0, 4.0)[4000:20000].square().mean() < 1e-3
