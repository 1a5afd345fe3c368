"""Parts of synthetic sounds: tones, noises, rooms and backgrounds at 16 kHz, drawn by a generator."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

SAMPLE_RATE = 16_000
"""Sampling rate of the sounds, in Hz."""

Wave = Float[np.ndarray, " sample"]
Spectrum = Float[np.ndarray, " bin"]
Gain = Callable[[Spectrum], Spectrum]
"""The gain of a spectrum, a function of the octaves above 1 kHz."""
Filter = Callable[[Wave], Wave]
Rng = np.random.Generator


def edges(samples: int) -> Wave:
    """Return a fade-in and fade-out of 10 ms, so that tones and bursts do not click."""
    # The distance of each sample from the nearer end; its level is a squared sine.
    from_end = np.minimum(np.arange(samples), np.arange(samples)[::-1]) + 0.5
    level: Wave = np.sin(0.5 * np.pi * np.minimum(from_end / (0.010 * SAMPLE_RATE), 1.0)) ** 2
    return level


def tone(rng: Rng, hz: Wave, partials: int, rolloff: float) -> Wave:
    """Return a harmonic tone of the given pitch in Hz; partial k has level ``k ** -rolloff``."""
    # The phase is the integral of the frequency.
    phase = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE
    wave: Wave = np.zeros_like(phase)
    # Partials near or above half the sampling rate would alias.
    for k in range(1, partials + 1):
        audible = k * hz < 0.475 * SAMPLE_RATE
        wave += audible * k**-rolloff * np.sin(k * phase + rng.uniform(0, 2 * np.pi))
    wave *= edges(len(wave)) / wave.std()
    return wave


def _octaves(samples: int) -> Spectrum:
    """Return the octaves above 1 kHz of each bin of a spectrum, at least those of 60 Hz."""
    hz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
    octaves: Spectrum = np.log2(np.maximum(hz, 60.0) / 1000)
    return octaves


def noise(rng: Rng, samples: int, gain: Gain) -> Wave:
    """Return Gaussian noise of unit deviation with a spectrum shaped by ``gain``.

    The argument of ``gain`` is the octaves above 1 kHz.
    """
    # Transforms of other sizes than powers of two can be many times slower.
    size = 1 << (samples - 1).bit_length()
    real, imaginary = rng.standard_normal((2, size // 2 + 1))
    spectrum = (real + 1j * imaginary) * gain(_octaves(size))
    # No constant offset.
    spectrum[0] = 0
    wave: Wave = np.fft.irfft(spectrum, size)[:samples]
    wave /= wave.std()
    return wave


def draw_band(rng: Rng) -> Gain:
    """Return a random band, 0.4 to 4.6 kHz at its centre and 0.5 to 2 octaves wide."""
    centre = rng.uniform(-1.3, 2.2)
    width = rng.uniform(0.5, 2.0)
    return lambda octaves: np.exp(-0.5 * ((octaves - centre) / (0.5 * width)) ** 2)


def draw_timbre(rng: Rng) -> tuple[int, float]:
    """Return a random number of partials and their rolloff."""
    return int(rng.integers(1, 7)), rng.uniform(0.3, 1.5)


def draw_pitch(rng: Rng) -> float:
    """Return a random pitch in Hz, three octaves from 180 Hz."""
    return float(180 * 2 ** rng.uniform(0, 3))


def draw_room(rng: Rng) -> Filter:
    """Return a random room with a spectral tilt, as a function that filters sounds.

    The echo is exponentially decaying noise, 4 to 20 dB softer than the direct sound. It decays by
    60 dB within 0.1 to 0.4 s. The tilt is -4 to 4 dB per octave. What lasts longer than the given
    samples is cut off.
    """
    time = np.arange(0, 0.4, 1 / SAMPLE_RATE)
    echo = rng.standard_normal(len(time)) * 10 ** (-3 * time / rng.uniform(0.1, 0.4))
    echo *= 10 ** (rng.uniform(-20, -4) / 20) / np.linalg.norm(echo)
    # The direct sound.
    echo[0] = 1.0
    slope = rng.uniform(-4, 4)

    def filtered(wave: Wave) -> Wave:
        # Convolution as a product of spectra, long enough not to wrap around.
        size = len(wave) + len(echo)
        spectrum = np.fft.rfft(wave, size) * np.fft.rfft(echo, size)
        tilt = slope * _octaves(size)
        return np.fft.irfft(spectrum * 10 ** (tilt / 20), size)[: len(wave)]

    return filtered


def background(rng: Rng, samples: int) -> Wave:
    """Return noise of unit deviation whose spectrum falls by 0 to 6 dB per octave."""
    slope = rng.uniform(-6, 0)
    return noise(rng, samples, lambda octaves: 10 ** (slope * octaves / 20))


def loudest(wave: Wave, seconds: float = 0.05) -> float:
    """Return the highest effective level of any stretch of a sound of this length."""
    window = min(round(seconds * SAMPLE_RATE), len(wave))
    energy = np.cumsum(np.concatenate([[0.0], wave**2]))
    return float(np.sqrt((energy[window:] - energy[:-window]).max() / window))
