"""Steps around framing: level, zeros past the end of a clip, mirrored ends, windows, range of values."""

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.config import check

Window = Literal["hann", "hann_periodic", "povey"]
DECIBELS = 10.0 / math.log(10.0)
"""Decibels in a unit of the natural logarithm."""
LARGEST_FLOAT = 100.0
"""Floats overshoot 1 and may be normalised to a deviation of 1; larger ones are integers."""


def zero_padding(
    wave: Float[Tensor, "*clip sample"], lengths: Int[Tensor, "*clip"]
) -> Float[Tensor, "*clip sample"]:
    """Return the waves with all samples past their lengths set to 0."""
    sample = torch.arange(wave.shape[-1], device=wave.device)
    return torch.where(sample < lengths[..., None], wave, 0.0)


def mirror(
    wave: Float[Tensor, "*clip sample"], lengths: Int[Tensor, "*clip"], win_length: int
) -> Float[Tensor, "*clip mirrored"]:
    """Return the waves extended by half a window at both ends of each clip.

    The new samples are the clip's own, mirrored at its first and last sample as often as needed, as
    by ``numpy.pad(mode="reflect")``.
    """
    right = win_length // 2
    # An odd window is placed as in torch.stft.
    left = win_length - right
    last = (lengths - 1).clamp(min=0)[..., None]

    # Positions outside each clip: -left .. -1 before it, last + 1 .. last + right after it.
    before = torch.arange(-left, 0, device=wave.device).expand(*lengths.shape, -1)
    after = last + 1 + torch.arange(right, device=wave.device)
    outside = torch.cat([before, after], dim=-1)

    # Repeated mirroring is a triangle wave of period 2 * last: 0 .. last .. 0.
    source = last - (last - outside % (2 * last).clamp(min=1)).abs()
    return F.pad(wave, (left, right)).scatter(-1, outside + left, wave.gather(-1, source))


def window_weights(kind: Window, size: int) -> Float[np.ndarray, " sample"]:
    """Return the window in float64: Hann's, symmetric or periodic, or Povey's."""
    if kind == "hann_periodic":
        return np.hanning(size + 1)[:-1]
    hann = np.hanning(size)
    if kind == "povey":
        return hann**0.85
    return hann


def check_level(wave: Float[Tensor, "*clip sample"]) -> None:
    """Raise ConfigError if samples are NaN, infinite, or integers as floats.

    Those of a GPU are not looked at, which would hold it up.
    """
    if wave.device.type != "cpu" or not wave.numel():
        return
    peak = float(wave.detach().abs().max())
    allowed = "finite samples; replace these before"
    check(math.isfinite(peak), "wave", "samples of NaN or infinity", allowed)
    allowed = "floats in [-1, 1]; divide them by the full scale, such as 32768"
    check(peak <= LARGEST_FLOAT, "wave", f"samples that reach {peak:,.6g}", allowed)


def within_range(
    log_mel: Float[Tensor, "*clip mel frame"], inside: Bool[Tensor, "*clip frame"], range_db: float
) -> Float[Tensor, "*clip mel frame"]:
    """Return log-mel values raised to no further below the loudest of their clip than a range.

    Args:
        log_mel: natural logarithms of mel bins.
        inside: False for frames past a clip's end, which hold a share of its last samples.
        range_db: decibels.
    """
    own = log_mel.masked_fill(~inside[..., None, :], -math.inf)
    return log_mel.maximum(own.amax(dim=(-2, -1), keepdim=True) - range_db / DECIBELS)
