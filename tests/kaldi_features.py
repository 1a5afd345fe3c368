"""Log-mel features by kaldi-native-fbank, an independent port of Kaldi's own code."""

import kaldi_native_fbank as knf
import numpy as np

from melpatch.audio.logmel import LOG_FLOOR, LogMel
from melpatch.audio.mel import mel_filters

FEWEST = 3
"""Filters in the smallest bank that kaldi-native-fbank makes."""
WINDOWS = {"hann": "hanning", "povey": "povey"}


def kaldi_features(config: LogMel.Config, wave: np.ndarray) -> np.ndarray:
    """Return Kaldi's log-mel values (mel, frame) of one clip, before normalisation.

    Since 1.23, kaldi-native-fbank refuses a bank with an empty filter, such as the fourth of 128 at
    16 kHz. Each run of filters between empty ones is therefore a bank of its own, with the same
    corners. An empty filter gives the floor; a run of fewer than three is refused too, and is NaN.
    """
    empty = np.flatnonzero(~_filters(config).any(axis=1))
    corners = _corners_hz(config)
    out = np.full((config.n_mels, LogMel(config).frames(len(wave))), np.nan)
    out[empty] = np.log(LOG_FLOOR)
    for first, stop in zip([0, *(empty + 1)], [*empty, config.n_mels], strict=True):
        if stop - first >= FEWEST:
            options = _options(config, corners[first], corners[stop + 1], stop - first)
            bank = knf.OnlineFbank(options)
            bank.accept_waveform(config.sample_rate, wave.tolist())
            bank.input_finished()
            frames = [bank.get_frame(index) for index in range(bank.num_frames_ready)]
            out[first:stop] = np.stack(frames, axis=1)
    return out


def _filters(config: LogMel.Config) -> np.ndarray:
    """Return the weights of Kaldi's filters, to see which are empty; test_mel.py tests them."""
    return mel_filters(
        "kaldi",
        sample_rate=config.sample_rate,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        low_hz=config.low_hz,
        high_hz=config.top_hz,
    )


def _corners_hz(config: LogMel.Config) -> np.ndarray:
    """Return the corners of the filters: filter i lies between corners i and i + 2."""
    low, high = 1127.0 * np.log1p(np.array([config.low_hz, config.top_hz]) / 700.0)
    return 700.0 * np.expm1(np.linspace(low, high, config.n_mels + 2) / 1127.0)


def _options(config: LogMel.Config, low_hz: float, high_hz: float, n_mels: int) -> knf.FbankOptions:
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = config.sample_rate
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = WINDOWS[config.window]
    options.mel_opts.num_bins = n_mels
    options.mel_opts.low_freq = low_hz
    options.mel_opts.high_freq = min(high_hz, config.sample_rate / 2)
    return options
