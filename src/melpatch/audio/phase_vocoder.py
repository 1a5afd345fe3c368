"""Time stretch and pitch shift of a batch of clips by a phase vocoder, with a factor for each clip.

A clip is cut into windows of 64 ms, a quarter apart. Output window m is the input window nearest to
m * rate. Each peak of its spectrum moves, with the bins around it, to ``pitch`` times its
frequency, and its phase goes on from window to window at its new frequency; the phases of the bins
around it stay as they are to the peak's.

Quality: steady tones keep their level within 1 dB, and get the right pitch; clicks are smeared over up to a
window, as with any phase vocoder; tones less than about 60 Hz apart share a peak and move together,
keeping their distance in Hz. Made for views of a clip, not for listening.

Source: Laroche and Dolson 1999, "New phase-vocoder techniques for pitch-shifting, harmonizing and
other exotic effects" (WASPAA), with the phase locking of their "Improved phase vocoder" (1999).
*Differs:* phases are summed for every bin, and the peak's is then taken, so that there is no loop
over windows.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float, Int
from torch import Tensor

from melpatch.audio.framing import zero_padding

_WINDOW_SECONDS = 0.064
_OVERLAP = 4  # windows that cover a sample

Spectra = Complex[Tensor, "clip bin window"]
PerClip = Float[Tensor, " clip"]


def play(
    wave: Float[Tensor, "clip sample"],
    lengths: Int[Tensor, " clip"],
    rate: PerClip,
    pitch: PerClip,
    sample_rate: int,
) -> Float[Tensor, "clip sample"]:
    """Return clips played at another rate and pitch, at their own lengths.

    What is too long is cut, and what is too short is followed by silence.

    Args:
        wave: samples; what is past the lengths is returned as it is.
        lengths: samples of each clip.
        rate: how many times as fast each clip goes.
        pitch: factor of its frequencies.
        sample_rate: in Hz.
    """
    size = 1 << round(math.log2(_WINDOW_SECONDS * sample_rate))
    hop = size // _OVERLAP
    samples = wave.shape[1]
    window = torch.hann_window(size, device=wave.device, dtype=wave.dtype)
    # With a window of zeros at the end all windows that reach into a clip are there, whatever the
    # length of the batch, and the last one is silent.
    padded = F.pad(zero_padding(wave, lengths), (0, size))
    spectra = torch.stft(
        padded, size, hop, window=window, center=True, pad_mode="constant", return_complex=True
    )
    # Phases are those at the middle of a window, where all bins of a tone have the same.
    signs = 1.0 - 2.0 * (torch.arange(spectra.shape[1], device=wave.device) % 2)
    moved = _moved(spectra * signs[:, None], rate, pitch) * signs[:, None]
    played = torch.istft(moved, size, hop, window=window, center=True, length=samples)
    inside = torch.arange(samples, device=wave.device) < lengths[:, None]
    return torch.where(inside, played, wave)


def _moved(spectra: Spectra, rate: PerClip, pitch: PerClip) -> Spectra:
    """Return the spectra of the output windows."""
    bins, windows = spectra.shape[1:]
    device = spectra.device
    factor = pitch[:, None, None]

    # The input window of each output window; the last one is silent.
    window = torch.arange(windows, device=device)
    source = (window * rate[:, None]).round().long().clamp(max=windows - 1)
    source = source[:, None].expand(-1, bins, -1)
    phase = _phases(spectra, source, factor)
    peak = _nearest_peak(spectra.abs()).gather(2, source)
    spectra = spectra.gather(2, source)
    turned = torch.polar(torch.ones_like(phase), 2.0 * math.pi * phase) * _unit(spectra).conj()

    # Output bin j belongs to the peak around j / pitch, which moves by a whole number of bins.
    place = torch.arange(bins, device=device)[:, None]
    origin = (place / factor).round().long()
    peak = peak.gather(1, origin.clamp(max=bins - 1).expand(-1, -1, windows))
    shift = (peak * factor).round().long() - peak
    origin_bin = place - shift
    exists = (origin < bins) & (origin_bin >= 0) & (origin_bin < bins)
    moved = spectra.gather(1, origin_bin.clamp(0, bins - 1)) * turned.gather(1, peak)
    return torch.where(exists, moved, 0.0)


def _phases(
    spectra: Spectra, source: Int[Tensor, "clip bin window"], factor: Float[Tensor, "clip 1 1"]
) -> Float[Tensor, "clip bin window"]:
    """Return the output phase of each input bin, in turns, summed over the output windows."""
    phase = spectra.angle() / (2.0 * math.pi)
    # What a tone in the middle of bin k turns from window to window, and what this one differs.
    expected = torch.arange(spectra.shape[1], device=spectra.device)[:, None] / _OVERLAP
    differs = phase.diff(dim=2, prepend=phase[:, :, :1]) - expected
    turns = expected + differs - differs.round()
    # Whole turns are dropped before the sum, which keeps its precision.
    steps = (turns.gather(2, source) * factor).frac()
    steps[:, :, 0] = phase[:, :, 0]
    return steps.cumsum(dim=2).frac()


def _nearest_peak(size: Float[Tensor, "clip bin window"]) -> Int[Tensor, "clip bin window"]:
    """Return the nearest peak of each bin: a bin that none of its two neighbours exceeds."""
    bins = size.shape[1]
    place = torch.arange(bins, device=size.device)[:, None]
    highest = F.max_pool2d(size, (5, 1), stride=1, padding=(2, 0))
    is_peak = size >= highest
    # Peaks at or below each bin, and at or above it; -1 and bins where there is none.
    below = place.where(is_peak, -1).cummax(dim=1).values
    above = place.where(is_peak, bins).flip(1).cummin(dim=1).values.flip(1)
    nearer_below = (above == bins) | ((below >= 0) & (place - below <= above - place))
    return torch.where(nearer_below, below, above)


def _unit(spectra: Spectra) -> Spectra:
    """Return numbers of the same phase and size 1, or 0 for silence."""
    return spectra / spectra.abs().clamp(min=1e-30)
