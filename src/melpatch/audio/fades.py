"""Slow and sudden changes of level: fades of waves and spectrograms, and bursts of noise."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.rng import normal, uniform

_SHAPES = 5
# A clip that becomes this much softer, in energy (-60 dB), counts as silenced.
_SILENT = 1e-6

Spectrogram = Float[Tensor, "clip mel frame"]
Wave = Float[Tensor, "clip sample"]
PerClip = Int[Tensor, " clip"]


def fade(wave: Wave, lengths: PerClip, state: PerClip, longest: float) -> Wave:
    """Fade clips in and out, over lengths that are drawn for each end, in one of five shapes.

    The shapes are linear, exponential, logarithmic, and a quarter or half of a sine. The middle of
    a clip always keeps its level.

    Source: CLAR (Al-Tahan and Mohsenzadeh 2021, arXiv 2010.09542) and the published code.

    Args:
        wave: samples; what is past the lengths is returned as it is.
        lengths: samples of each clip.
        state: one stream per clip.
        longest: longest fade as a share of the clip, up to 0.5.
    """
    draws = uniform(state, 3)
    fades = (draws[:, :2] * longest * lengths[:, None]).long()
    sample = torch.arange(wave.shape[1], device=wave.device)
    # From 0 at an end to 1 where its fade ends.
    rising = sample / (fades[:, :1] - 1).clamp(min=1)
    falling = (lengths[:, None] - 1 - sample) / (fades[:, 1:] - 1).clamp(min=1)
    ramp = torch.minimum(
        rising.where(fades[:, :1] > 0, 1.0), falling.where(fades[:, 1:] > 0, 1.0)
    ).clamp(0.0, 1.0)
    level = _shaped(ramp, (draws[:, 2] * _SHAPES).long())
    inside = sample < lengths[:, None]
    return torch.where(inside, wave * level, wave)


def _shaped(ramp: Float[Tensor, "clip sample"], shape: PerClip) -> Float[Tensor, "clip sample"]:
    """Return ramps from 0 to 1 bent into the shape of each clip."""
    shapes = (
        ramp,
        2.0 ** (ramp - 1.0) * ramp,
        1.0 + (0.1 + ramp).log10(),
        (ramp * (math.pi / 2.0)).sin(),
        (1.0 - (ramp * math.pi).cos()) / 2.0,
    )
    level = ramp
    for number, values in enumerate(shapes):
        level = values.where((shape == number)[:, None], level)
    return level.clamp(0.0, 1.0)


def noise_burst(
    wave: Wave, lengths: PerClip, state: PerClip, share: float, deviation: float
) -> Wave:
    """Replace a stretch of each clip, at a random place, with white noise.

    A clip that is silent outside of the stretch stays as it is.

    Source: CLAR (Al-Tahan and Mohsenzadeh 2021, arXiv 2010.09542) and the published code.

    Args:
        wave: samples; what is past the lengths is returned as it is.
        lengths: samples of each clip.
        state: one stream per clip.
        share: length of the stretch as a share of the clip, below 1.
        deviation: standard deviation of the noise.
    """
    extent = (lengths * share).long()
    start = (uniform(state, 1)[:, 0] * (lengths - extent + 1)).long()
    sample = torch.arange(wave.shape[1], device=wave.device)
    covered = (sample >= start[:, None]) & (sample < (start + extent)[:, None])
    # The first number of the stream is the start.
    longest = int(wave.shape[1] * share) + 1
    numbers = deviation * normal(state, longest + 1)[:, 1:]
    burst = numbers.gather(1, (sample - start[:, None]).clamp(0, longest - 1))
    covered &= still_sounds(wave.masked_fill(covered, 0.0), wave, lengths)
    return torch.where(covered, burst.to(wave.dtype), wave)


def linear_fader(
    spectrogram: Spectrogram, frames: PerClip, state: PerClip, most: float
) -> Spectrogram:
    """Add a straight line over time to each clip, whose ends are uniform from -most to most.

    Source: BYOL for Audio v2 (Niizumi et al. 2023, arXiv 2204.07402).

    Args:
        spectrogram: log-mel values; padding is returned as it is.
        frames: valid frames of each clip; one that has a single frame gets the line's start.
        state: one stream per clip.
        most: largest change, in units of the spectrogram.
    """
    ends = most * (2.0 * uniform(state, 2) - 1.0)
    first = ends[:, :1]
    last = ends[:, 1:]
    frame = torch.arange(spectrogram.shape[2], device=frames.device)
    line = first + (last - first) * frame / (frames[:, None] - 1).clamp(min=1)
    inside = frame < frames[:, None]
    added: Tensor = line.where(inside, 0.0).to(spectrogram.dtype)
    return spectrogram + added[:, None]


def still_sounds(changed: Wave, wave: Wave, lengths: PerClip) -> Bool[Tensor, "clip 1"]:
    """Return whether a change leaves something of each clip to hear, or found it silent."""
    inside = torch.arange(wave.shape[1], device=wave.device) < lengths[:, None]
    before = torch.where(inside, wave, 0.0).square().sum(dim=1, keepdim=True)
    after = torch.where(inside, changed, 0.0).square().sum(dim=1, keepdim=True)
    return after >= _SILENT * before
