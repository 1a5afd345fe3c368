"""How large a front end may be: what fills the memory by itself is a mistake, or made to do harm.

Mel bins must fit the frequencies that there are.
"""

import math
from typing import Any

from melpatch.config import check

HIGHEST_RATE = 10_000_000
"""Hz."""
LONGEST = 1 << 24
"""Samples of a window, or from one to the next."""
MOST_VALUES = 1 << 28
"""Numbers in the mel filters, or in the spectrogram of a clip: 1 GiB."""


def check_sizes(config: Any) -> None:
    """Raise SettingError if a front end has longer windows, more bins or more frames than fit.

    Args:
        config: a ``LogMel.Config``, which calls this.
    """
    rate = config.sample_rate
    check(rate <= HIGHEST_RATE, "sample_rate", rate, f"up to {HIGHEST_RATE} Hz")
    for name in ("window_ms", "hop_ms"):
        value = getattr(config, name)
        longest = 1000 * LONGEST / rate
        check(value <= longest, name, value, f"up to {longest:g} ({LONGEST} samples)")
    length = config.fft_length
    fits = length is None or length <= 2 * LONGEST
    check(fits, "fft_length", length, f"up to {2 * LONGEST}")

    bins = max(1, config.n_fft // 2)
    most = MOST_VALUES // bins
    allowed = f"1 to {most} with {bins} frequencies; shorten window_ms or fft_length for more"
    check(config.n_mels <= most, "n_mels", config.n_mels, allowed)
    if config.target_frames is not None:
        most = MOST_VALUES // max(1, config.n_mels)
        allowed = f"1 to {most} with n_mels = {config.n_mels}"
        check(config.target_frames <= most, "target_frames", config.target_frames, allowed)


def check_bins(config: Any) -> None:
    """Raise SettingError if a front end's mel bins do not fit its Fourier transform, rate and range.

    Args:
        config: a ``LogMel.Config``, which calls this.
    """
    if config.fft_length is not None:
        fits = config.fft_length >= config.win_length and config.fft_length % 2 == 0
        allowed = f"even numbers from {config.win_length} (window_ms), or None"
        check(fits, "fft_length", config.fft_length, allowed)
    bins = config.n_fft // 2
    longer = "window_ms" if config.fft_length is None else "fft_length"
    allowed = f"1 to {bins}, or more with a longer {longer}"
    check(1 <= config.n_mels <= bins, "n_mels", config.n_mels, allowed)
    nyquist = config.sample_rate / 2
    allowed = f"at most {nyquist:g} Hz, half the sampling rate"
    check(config.top_hz <= nyquist, "high_hz", config.high_hz, allowed)
    allowed = f"0 to below {config.top_hz:g} Hz, the upper edge"
    check(0.0 <= config.low_hz < config.top_hz, "low_hz", config.low_hz, allowed)
    fits = config.range_db is None or 0.0 < config.range_db < math.inf
    check(fits, "range_db", config.range_db, "a finite number above 0, or None")
