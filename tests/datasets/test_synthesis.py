"""The parts of synthetic sounds: what a room, a background, a tone and a noise are."""

import numpy as np

from melpatch.datasets import synthesis

RATE = synthesis.SAMPLE_RATE


def slope(wave):
    """Decibels by which the power density of a sound rises per octave from 250 Hz to 4 kHz."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    hz = np.fft.rfftfreq(len(wave), 1 / RATE)
    octaves = np.arange(-2, 2.1, 0.5)
    levels = [
        10 * np.log10(power[np.abs(np.log2(np.maximum(hz, 1) / 1000) - octave) < 0.25].mean())
        for octave in octaves
    ]
    return np.polyfit(octaves, levels, 1)[0]


def test_a_tone_has_its_partials_and_none_that_alias():
    wave = synthesis.tone(np.random.default_rng(0), np.full(RATE, 3000.0), 4, 1.0)
    power = np.abs(np.fft.rfft(wave)) ** 2
    assert set(np.argsort(power)[-2:]) == {3000, 6000}
    assert power[2900:3100].sum() + power[5900:6100].sum() > 0.9999 * power.sum()
    assert (
        20 * np.log10(2) - 0.1 < 10 * np.log10(power[3000] / power[6000]) < 20 * np.log10(2) + 0.1
    )


def test_noise_has_unit_deviation_and_its_spectrum():
    wave = synthesis.noise(np.random.default_rng(0), 30_000, lambda octaves: 10 ** (octaves / 4))
    assert abs(wave.std() - 1) < 1e-9
    assert abs(slope(wave) - 5) < 0.5


def test_a_background_falls_by_up_to_6_decibels_per_octave():
    slopes = [
        slope(synthesis.background(np.random.default_rng(seed), 30_000)) for seed in range(40)
    ]
    assert -6.7 < min(slopes) < -5
    assert -1 < max(slopes) < 0.7


def test_a_room_is_linear_and_echoes_for_less_than_half_a_second():
    filtered = synthesis.draw_room(np.random.default_rng(3))
    impulse = np.zeros(RATE)
    impulse[100] = 1.0
    echo = filtered(impulse)
    assert np.argmax(np.abs(echo)) == 100
    energy = echo**2
    assert energy[101:7000].sum() > 1e-3
    assert energy[7000:].sum() < 1e-3 * energy.sum()
    twice = filtered(2 * impulse + np.roll(impulse, 50))
    np.testing.assert_allclose(twice[:7000], (2 * echo + np.roll(echo, 50))[:7000], atol=1e-3)


def test_edges_begin_and_end_softly():
    level = synthesis.edges(1600)
    assert level[0] == level[-1] < 1e-4
    assert np.all(np.diff(level[:160]) > 0)
    assert np.all(level[160:-160] == 1)


def test_the_loudest_stretch_is_found_wherever_it_is():
    wave = np.full(RATE, 0.1)
    wave[5000:5400] = 0.5
    assert abs(synthesis.loudest(wave, 0.025) - 0.5) < 1e-9
    assert abs(synthesis.loudest(wave, 0.05) - np.sqrt((0.25 + 0.01) / 2)) < 1e-9
    assert abs(synthesis.loudest(wave, 5.0) - np.sqrt(np.mean(wave**2))) < 1e-9
