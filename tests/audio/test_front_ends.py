"""Every named front end against a slow version that is written from what is known of its system."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
from kaldi_features import kaldi_features

from melpatch.audio import front_ends
from melpatch.audio.logmel import LogMel
from melpatch.audio.mel import mel_filters
from melpatch.config import from_dict, to_dict

ALL = {
    "kaldi": front_ends.kaldi(),
    "beats": front_ends.beats(),
    "byol_a": front_ends.byol_a(),
    "mae_ast": front_ends.mae_ast(),
    "maskspec": front_ends.maskspec(),
    "maskspec at 16 kHz": front_ends.maskspec(16000),
    "panns": front_ends.panns(),
    "panns at 16 kHz": front_ends.panns(16000),
    "panns at 8 kHz": front_ends.panns(8000),
    "cola": front_ends.cola(),
    "atst": front_ends.atst(),
    "dasheng": front_ends.dasheng(),
}


def sound(samples, seed=0):
    """Noise under a tone that swells, so that frames differ and some bins are near the floor."""
    time = np.arange(samples) / samples
    noise = np.random.default_rng(seed).standard_normal(samples)
    return 0.05 * noise * time**2 + 0.3 * np.sin(300 * time**2)


def features(config, wave):
    """The spectrogram of one clip in double precision, (mel, frame)."""
    return LogMel(config)(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))[0][0].numpy()


def spectrum(wave, window, hop, n_fft):
    """Magnitudes (bin, frame) of all whole frames; a shorter window lies in the middle of ``n_fft`` samples."""
    window = np.pad(window, (n_fft - len(window)) // 2)
    starts = range(0, len(wave) - n_fft + 1, hop)
    return np.stack(
        [np.abs(np.fft.rfft(wave[start : start + n_fft] * window)) for start in starts], axis=1
    )


def filters(scale, rate, n_fft, n_mels, low, high):
    """Tested in test_mel.py."""
    return mel_filters(
        scale, sample_rate=rate, n_fft=n_fft, n_mels=n_mels, low_hz=low, high_hz=high
    )


def test_kaldi_is_the_default():
    assert front_ends.kaldi() == LogMel.Config()


def test_mae_ast_is_kaldi_with_poveys_window():
    config = front_ends.mae_ast()
    wave = sound(20011).astype(np.float32)
    log_mel = features(config, wave) * (2 * config.std) + config.mean
    np.testing.assert_allclose(log_mel, kaldi_features(config, wave), rtol=0, atol=2e-3)


def test_beats_is_kaldi_with_poveys_window_on_16_bit_samples():
    config = front_ends.beats()
    wave = sound(20011).astype(np.float32)
    log_mel = kaldi_features(config, wave * np.float32(2**15))
    expected = (log_mel - 15.41663) / (2 * 6.55582)
    found = features(config, wave)
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-4)


def test_byol_a():
    config = front_ends.byol_a()
    wave = sound(20011)
    window = scipy.signal.get_window("hann", 1024)
    power = spectrum(np.pad(wave, 512, mode="reflect"), window, 160, 1024) ** 2
    mel = filters("htk", 16000, 1024, 64, 60.0, 7800.0) @ power
    expected = (np.log(mel + 2.0**-23) - config.mean) / config.std
    np.testing.assert_allclose(features(config, wave), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("rate", "n_fft"), [(32000, 1024), (16000, 512)])
def test_maskspec(rate, n_fft):
    wave, hop = sound(20011), rate // 100
    emphasised = np.convolve(wave, [1.0, -0.97], mode="valid")
    window = scipy.signal.get_window("hann", rate // 40, fftbins=False)
    power = spectrum(np.pad(emphasised, n_fft // 2, mode="reflect"), window, hop, n_fft) ** 2
    mel = filters("kaldi", rate, n_fft, 128, 0.0, rate / 2 - 1000) @ power
    np.testing.assert_allclose(
        features(front_ends.maskspec(rate), wave), (np.log(mel + 1e-5) + 4.5) / 5, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize(
    ("rate", "n_fft", "high"), [(32000, 1024, 14e3), (16000, 512, 8e3), (8000, 256, 4e3)]
)
def test_panns(rate, n_fft, high):
    wave, window = sound(20011), scipy.signal.get_window("hann", n_fft)
    power = spectrum(np.pad(wave, n_fft // 2, mode="reflect"), window, rate // 100, n_fft) ** 2
    decibels = 10 * np.log10(
        np.maximum(filters("slaney", rate, n_fft, 64, 50.0, high) @ power, 1e-10)
    )
    np.testing.assert_allclose(features(front_ends.panns(rate), wave), decibels, rtol=0, atol=1e-8)


def test_cola():
    wave, window = sound(16000), scipy.signal.get_window("hann", 400)
    unit, energies = wave / math.sqrt((wave**2).sum()), []
    for start in range(0, 16000 - 400 + 1, 160):
        energies.append(np.abs(np.fft.rfft(unit[start : start + 400] * window, 1024)))
    mel = filters("kaldi", 16000, 1024, 64, 60.0, 7800.0) @ np.array(energies).T
    assert mel.shape == (64, 98)  # what COLA's encoder is given of a second
    np.testing.assert_allclose(
        features(front_ends.cola(), wave), np.log(np.maximum(mel, 1e-5)), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize(
    ("config", "n_fft", "low", "high", "below", "lowest", "width"),
    [
        (front_ends.atst(), 1024, 60.0, 7800.0, 80.0, -79.6482, 130.3324),
        (front_ends.dasheng(), 512, 0.0, 8000.0, 120.0, -1.0, 2.0),
    ],
    ids=["atst", "dasheng"],
)
def test_torchaudios_decibels(config, n_fft, low, high, below, lowest, width):
    wave, window = sound(20011), scipy.signal.get_window("hann", n_fft)
    wave[:4000] = 0.0
    power = spectrum(np.pad(wave, n_fft // 2, mode="reflect"), window, 160, n_fft) ** 2
    decibels = 10 * np.log10(np.maximum(filters("htk", 16000, n_fft, 64, low, high) @ power, 1e-10))
    decibels = np.maximum(decibels, decibels.max() - below)
    np.testing.assert_allclose(
        features(config, wave), (decibels - lowest) / width * 2 - 1, rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_ten_seconds_have_about_a_thousand_frames(config):
    assert LogMel(config).frames(10 * config.sample_rate) in (998, 1000, 1001)


@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_single_precision_deviates_by_rounding_only(config):
    """Absolutely where a bin holds no more than the frame's own rounding noise, otherwise closely."""
    wave = sound(20011)
    exact, single = features(config, wave), features(config, wave.astype(np.float32))
    assert (exact.dtype, single.dtype) == (np.float64, np.float32)
    error = np.abs(single - exact) * config.std * config.scale
    assert error.max() < 0.05
    assert error.mean() < 1e-4


@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_settings_survive_toml(config):
    assert from_dict(LogMel.Config, to_dict(config)) == config
