"""Time stretch and pitch shift of a batch of clips by a phase vocoder, with a factor for each clip.

A clip is cut into windows of 64 ms, a quarter apart. Output window m is the input window nearest to
m * rate. Each peak of its spectrum moves, with the bins around it, to ``pitch`` times its
frequency, and its phase goes on from window to window at its new frequency; the phases of the bins
around it stay as they are to the peak's.

Quality: steady tones keep their level within 1 dB, and get the right pitch; clicks are smeared over
up to a window, as with any phase vocoder; tones less than about 60 Hz apart share a peak and move
together, keeping their distance in Hz. Made for views of a clip, not for listening.

Source: Laroche and Dolson 1999, "New phase-vocoder techniques for pitch-shifting, harmonizing and
other exotic effects" (WASPAA), with the phase locking of their "Improved phase vocoder" (1999).
*Differs:* phases are summed for every bin, and the peak's is then taken, so that there is no loop
over windows.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from melpatch.audio.framing import zero_padding

_WINDOW_SECONDS = 0.064
_OVERLAP = 4  # windows that cover a sample

Spectra = Complex[Tensor, "clip window bin"]
Phases = Float[Tensor, "clip window bin"]
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
    moved = _moved(spectra.mT * signs, rate, pitch) * signs
    # torch.istft would wait for the device.
    frames = torch.fft.irfft(moved, n=size) * window
    weights = window.square().expand(1, frames.shape[1], -1)
    own = slice(size // 2, size // 2 + samples)
    played = _overlapped(frames)[:, own] / _overlapped(weights)[:, own]
    inside = torch.arange(samples, device=wave.device) < lengths[:, None]
    return torch.where(inside, played, wave)


def _overlapped(frames: Float[Tensor, "clip window sample"]) -> Float[Tensor, "clip place"]:
    """Return the sum of frames, each a quarter of a frame after the one before."""
    hop = frames.shape[2] // _OVERLAP
    quarters = frames.view(*frames.shape[:2], _OVERLAP, hop)
    late = _OVERLAP - 1
    total = sum(
        F.pad(quarters[:, :, part].flatten(1), (part * hop, (late - part) * hop))
        for part in range(_OVERLAP)
    )
    return torch.as_tensor(total)


def _moved(spectra: Spectra, rate: PerClip, pitch: PerClip) -> Spectra:
    """Return the spectra of the output windows."""
    clips, windows, bins = spectra.shape
    device = spectra.device
    factor = pitch[:, None, None]

    # The input window of each output window; the last one is silent.
    source = (torch.arange(windows, device=device) * rate[:, None]).round().long()
    source = source.clamp(max=windows - 1) + windows * torch.arange(clips, device=device)[:, None]
    phase = spectra.angle() / (2.0 * math.pi)
    # What each bin has turned, beyond its own phase, when it is played at another rate and pitch.
    extra = _summed(_turns(phase), source, factor, phase[:, 0]) - phase.flatten(0, 1)[source]
    spectra = spectra.flatten(0, 1)[source]

    # Each peak moves by a whole number of bins. Of two that meet, the upper one is heard.
    place = torch.arange(bins, device=device)
    target = (place * factor).round().long()
    candidates = place.where(_is_peak(spectra.abs()) & (target < bins), -1)
    target = target.clamp(max=bins - 1).expand_as(candidates)
    peak = torch.full_like(candidates, -1).scatter_reduce(2, target, candidates, "amax")
    nearest, gap = _nearest(peak >= 0)
    peak = peak.gather(2, nearest.clamp(0, bins - 1))

    # The bins around a peak move with it, up to the middle between it and the next one.
    distance = place - nearest
    origin = peak + distance
    exists = (2.0 * factor * distance.abs() <= gap + 1) & (origin >= 0) & (origin < bins)
    # Without any peak none is left, and -1 stands in its place.
    exists &= peak >= 0
    turn = 2.0 * math.pi * extra.gather(2, peak.clamp(min=0))
    moved = spectra.gather(2, origin.clamp(0, bins - 1))
    return moved * torch.polar(exists.to(turn.dtype), turn)


def _turns(phase: Phases) -> Phases:
    """Return how far each bin turns from the window before, in turns, given phases in turns."""
    # What a tone in the middle of bin k turns, and by what this one differs.
    expected = torch.arange(phase.shape[2], device=phase.device) / _OVERLAP
    differs = phase.diff(dim=1, prepend=phase[:, :1]) - expected
    return expected + differs - differs.round()


def _summed(
    turns: Phases,
    source: Int[Tensor, "clip window"],
    factor: Float[Tensor, "clip 1 1"],
    first: Float[Tensor, "clip bin"],
) -> Phases:
    """Return the output phases: the first window's, and on from there at the new frequencies."""
    # Whole turns are dropped before the sum, which keeps its precision.
    steps = (turns.flatten(0, 1)[source] * factor).frac()
    steps[:, 0] = first
    return steps.cumsum(dim=1)


def _is_peak(size: Float[Tensor, "clip window bin"]) -> Bool[Tensor, "clip window bin"]:
    """Return which bins none of the two neighbours at either side exceeds."""
    bins = size.shape[2]
    wide = F.pad(size, (2, 2))
    is_peak = torch.ones_like(size, dtype=torch.bool)
    for neighbour in (0, 1, 3, 4):
        is_peak &= size >= wide[..., neighbour : neighbour + bins]
    return is_peak


def _nearest(
    is_peak: Bool[Tensor, "clip window bin"],
) -> tuple[Int[Tensor, "clip window bin"], Int[Tensor, "clip window bin"]]:
    """Return the nearest peak of each bin, and the distance of the two peaks around the bin."""
    bins = is_peak.shape[2]
    place = torch.arange(bins, device=is_peak.device)
    # Peaks at or below each bin, and at or above it; far away where there is none.
    below = place.where(is_peak, -2 * bins).cummax(dim=2).values
    above = place.where(is_peak, 3 * bins).flip(2).cummin(dim=2).values.flip(2)
    return torch.where(place - below <= above - place, below, above), above - below
