"""High-pass and band-stop filters of random strength, without phase shift, for a batch at once.

Both are Butterworth filters that run forward and backward, so their gain is 1/2 (-6 dB) at the
cutoffs and falls by 12 or 24 dB per octave. They are applied as a product with the spectrum of the
whole clip. Their impulse responses die out within :data:`_GUARD_SECONDS`, and that many zeros
follow every clip: samples past a clip's end, or the length of the batch, cannot be heard in it.

Source: the ranges are the defaults of audiomentations, which AudioMosaic takes (arXiv 2605.14231).
*Differs:* audiomentations filters forward only, with 12, 18 or 24 dB per octave.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.audio.framing import zero_padding
from melpatch.rng import uniform

LOWEST_HZ = 20.0
"""Lowest cutoff; filters with a lower one would ring longer than the zeros between clips."""
_NARROWEST_HZ = 40.0  # of a stopped band, for the same reason
# exp(-2 pi 20 Hz sin(pi / 4) 0.25 s) = 2e-10 is below the precision of float32.
_GUARD_SECONDS = 0.25

PerClip = Float[Tensor, " clip"]
Response = Float[Tensor, "clip bin"]


def high_pass(
    wave: Float[Tensor, "clip sample"],
    lengths: Int[Tensor, " clip"],
    state: Int[Tensor, " clip"],
    sample_rate: int,
    cutoff_hz: tuple[float, float],
) -> Float[Tensor, "clip sample"]:
    """Remove what is below a cutoff that is drawn uniformly in mel.

    Args:
        wave: samples; what is past the lengths is returned as it is.
        lengths: samples of each clip.
        state: one stream per clip.
        sample_rate: in Hz.
        cutoff_hz: lowest and highest cutoff, in Hz, 20 or more; at most 0.49 of the rate is used.
    """
    draws = uniform(state, 2)
    cutoff = _mel_uniform(draws[:, 0], cutoff_hz).clamp(max=0.49 * sample_rate)
    response = high_pass_response(_frequencies(wave, sample_rate), cutoff, _order(draws[:, 1]))
    return _filtered(wave, lengths, response, sample_rate)


def band_stop(
    wave: Float[Tensor, "clip sample"],
    lengths: Int[Tensor, " clip"],
    state: Int[Tensor, " clip"],
    sample_rate: int,
    centre_hz: tuple[float, float],
    width: tuple[float, float],
) -> Float[Tensor, "clip sample"]:
    """Remove a band whose centre is drawn uniformly in mel, and its width as a share of the centre.

    Args:
        wave: samples; what is past the lengths is returned as it is.
        lengths: samples of each clip.
        state: one stream per clip.
        sample_rate: in Hz.
        centre_hz: lowest and highest centre, in Hz.
        width: smallest and largest width, as a share of the centre, below 2. The edges stay
            between 20 Hz and 0.49 of the rate, and 40 Hz apart or more.
    """
    draws = uniform(state, 3)
    centre = _mel_uniform(draws[:, 0], centre_hz)
    narrowest, widest = width
    half = centre * (narrowest + draws[:, 1] * (widest - narrowest)) / 2.0
    half = half.clamp(min=_NARROWEST_HZ / 2.0)
    low = (centre - half).clamp(LOWEST_HZ, 0.4 * sample_rate)
    high = (centre + half).clamp(max=0.49 * sample_rate)
    frequencies = _frequencies(wave, sample_rate)
    response = band_stop_response(frequencies, low, high, _order(draws[:, 2]))
    return _filtered(wave, lengths, response, sample_rate)


def high_pass_response(
    frequencies: tuple[Float[Tensor, " bin"], int], cutoff: PerClip, order: PerClip
) -> Response:
    """Return the gain of a Butterworth high-pass filter that runs forward and backward.

    Args:
        frequencies: of the bins, in Hz, and the sampling rate.
        cutoff: in Hz, where the gain is 1/2.
        order: of one run, 1 or 2; the slope is 12 dB per octave times that.
    """
    sine, cosine = _warped(*frequencies)
    edge = _tangent(cutoff, frequencies[1])
    # tan^2n / (tan^2n + edge^2n), times cos^2n, which is finite at half the rate.
    passed = _power(sine.square(), order)
    stopped = _power((edge * cosine).square(), order)
    return passed / (passed + stopped)


def band_stop_response(
    frequencies: tuple[Float[Tensor, " bin"], int], low: PerClip, high: PerClip, order: PerClip
) -> Response:
    """Return the gain of a Butterworth band-stop filter that runs forward and backward.

    Args:
        frequencies: of the bins, in Hz, and the sampling rate.
        low: lower edge in Hz, where the gain is 1/2.
        high: upper edge in Hz.
        order: of one run, 1 or 2; the slope is 12 dB per octave times that.
    """
    sine, cosine = _warped(*frequencies)
    below = _tangent(low, frequencies[1])
    above = _tangent(high, frequencies[1])
    # The low-pass prototype at B tan / (T_1 T_2 - tan^2), times cos^2 as above.
    passed = _power((below * above * cosine.square() - sine.square()).square(), order)
    stopped = _power(((above - below) * sine * cosine).square(), order)
    return passed / (passed + stopped)


def _frequencies(
    wave: Float[Tensor, "clip sample"], sample_rate: int
) -> tuple[Float[Tensor, " bin"], int]:
    size = _fft_size(wave.shape[1], sample_rate)
    bins = torch.arange(size // 2 + 1, device=wave.device, dtype=wave.dtype)
    return bins * (sample_rate / size), sample_rate


def _fft_size(samples: int, sample_rate: int) -> int:
    """Return an even number of points that holds a clip and its guard, and has small factors."""
    least = samples + math.ceil(_GUARD_SECONDS * sample_rate)
    step = max(2, 1 << max(0, least.bit_length() - 4))
    return math.ceil(least / step) * step


def _filtered(
    wave: Float[Tensor, "clip sample"],
    lengths: Int[Tensor, " clip"],
    response: Response,
    sample_rate: int,
) -> Float[Tensor, "clip sample"]:
    size = _fft_size(wave.shape[1], sample_rate)
    spectrum = torch.fft.rfft(zero_padding(wave, lengths), n=size)
    filtered = torch.fft.irfft(spectrum * response, n=size)[:, : wave.shape[1]]
    inside = torch.arange(wave.shape[1], device=wave.device) < lengths[:, None]
    return torch.where(inside, filtered, wave)


def _order(draw: PerClip) -> PerClip:
    """Return 1 or 2, each half of the time: 12 or 24 dB per octave."""
    return 1.0 + (draw < 0.5).to(draw.dtype)


def _power(x: Float[Tensor, "*clip bin"], order: PerClip) -> Response:
    """Return x or its square, a tenth of the time of a power."""
    return torch.where(order[:, None] > 1.5, x * x, x)


def _mel_uniform(draw: PerClip, hz: tuple[float, float]) -> PerClip:
    """Return frequencies in Hz that are uniform in mel, which is ln(1 + f / 700) but for a factor."""
    low, high = (math.log1p(limit / 700.0) for limit in hz)
    return 700.0 * torch.expm1(low + draw * (high - low))


def _warped(
    frequencies: Float[Tensor, " bin"], sample_rate: int
) -> tuple[Float[Tensor, " bin"], Float[Tensor, " bin"]]:
    """Return sine and cosine of pi f / rate, whose ratio is the bilinear transform's frequency."""
    angle = frequencies * (math.pi / sample_rate)
    return angle.sin(), angle.cos()


def _tangent(hz: PerClip, sample_rate: int) -> Float[Tensor, "clip 1"]:
    return (hz * (math.pi / sample_rate)).tan()[:, None]
