"""Resample batches of waves on the device, where one batch is to be heard at two rates.

A band-limited interpolation: with rates L / M in lowest terms, output sample n is the sum over the
input samples m of x_m h(n M / L - m), where h is a sinc at 0.95 of the lower of the two Nyquist
frequencies under Kaiser's window (Smith, "Digital Audio Resampling Home Page", and Crochiere and
Rabiner 1983, chapter 2). The L phases of h are the channels of one strided convolution.

>>> wave = torch.sin(2 * math.pi * 440 * torch.arange(32000) / 32000)[None]
>>> resampled, lengths = resample(wave, torch.tensor([32000]), 32000, 16000)
>>> resampled.shape, lengths
(torch.Size([1, 16000]), tensor([16000]))
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.audio.framing import zero_padding

_ROLLOFF = 0.95
# Zero crossings on either side, and the shape of the window: aliases lie 80 dB below.
_CROSSINGS = 32
_BETA = 8.0


def resample(
    wave: Float[Tensor, "clip sample"], lengths: Int[Tensor, " clip"], rate: int, wanted: int
) -> tuple[Float[Tensor, "clip newsample"], Int[Tensor, " clip"]]:
    """Return waves at another rate, with zeros past each clip's end, and their lengths.

    Args:
        wave: samples at ``rate``.
        lengths: samples of each clip; what lies beyond counts as silence.
        rate: sampling rate of ``wave``, in Hz.
        wanted: sampling rate of the result, in Hz.
    """
    if rate == wanted:
        return wave, lengths
    divisor = math.gcd(rate, wanted)
    up = wanted // divisor
    down = rate // divisor
    kernel, before = _kernel(up, down)
    kernel = kernel.to(dtype=wave.dtype).to(wave.device)
    samples = -(-wave.shape[1] * up // down)
    blocks = -(-samples // up)
    # The last block of outputs begins at input sample (blocks - 1) * down.
    after = (blocks - 1) * down - before + kernel.shape[2] - wave.shape[1]
    padded = F.pad(zero_padding(wave, lengths), (before, max(0, after)))
    with torch.autocast(wave.device.type, enabled=False):
        phases = F.conv1d(padded[:, None], kernel, stride=down)
    # (clip, phase, block) -> (clip, block * phase)
    resampled = phases.transpose(1, 2).flatten(1)[:, :samples]
    kept = -(-lengths * up // down)
    return zero_padding(resampled, kept), kept


@lru_cache(maxsize=16)
def _kernel(up: int, down: int) -> tuple[Float[Tensor, "phase 1 tap"], int]:
    """Return the filter of each phase, and how many samples it reaches back."""
    cutoff = _ROLLOFF * min(1.0, up / down)
    reach = math.ceil(_CROSSINGS / cutoff)
    tap = torch.arange(-reach, reach + down + 1, dtype=torch.float64)
    phase = torch.arange(up, dtype=torch.float64) * down / up
    distance = tap - phase[:, None]
    # Kaiser's window over the reach, which is 0 outside of it.
    inside = (1 - (distance / reach).square()).clamp(min=0).sqrt()
    window = torch.special.i0(_BETA * inside) / torch.special.i0(torch.tensor(_BETA).double())
    window = window * (distance.abs() <= reach)
    return (cutoff * torch.sinc(cutoff * distance) * window)[:, None], reach
