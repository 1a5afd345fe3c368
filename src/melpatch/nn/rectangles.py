"""Random rectangles of pixels: which part of each spectrogram of a batch a corruption overwrites.

Batched tensor operations on the device, in integers and float32, since Apple's GPUs lack float64.
The numbers of a rectangle depend on its place in the sequence alone: a clip's mask is the same
alone, in a batch, and beside a longer clip.

>>> frames = torch.tensor([100, 60])  # valid frames of two clips
>>> position = torch.full((2,), 2**23)  # half way between the lowest and the highest share
>>> target = pixel_targets(frames, 128, 100, (0.5, 0.7), position)
>>> target
tensor([7680, 4608])
>>> states = stream(0, "blocks", torch.arange(2), step=0)  # melpatch.rng
>>> mask = rectangles(states, frames, 128, 100, target)
>>> mask.sum(dim=(1, 2)) >= target
tensor([True, True])
"""

import math
from fractions import Fraction
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.rng import uniform_bits

_FRACTION_BITS = 38


def rectangles(
    states: Int[Tensor, " clip"],
    frames: Int[Tensor, " clip"],
    n_mels: int,
    width: int,
    target: Int[Tensor, " clip"],
    *,
    max_block_ratio: float = 0.3,
    align: tuple[int, int] = (1, 1),
) -> Bool[Tensor, "clip mel frame"]:
    """Mask random rectangles, one after the other, until enough of each clip's pixels are masked.

    Overlaps count once and the last rectangle overshoots. Each side is drawn evenly, from one unit
    of ``align`` to less than ``max_block_ratio`` of the clip's side.

    Source: the block corruption of the published ASiT (commit 1f1d63c), itself from GMML (Atito et
    al. 2022, arXiv 2205.14986), quirks included: the outermost frame and mel are never a corner, so
    that the edges are masked less often. *Differs* where that cannot cover a clip, because all
    rectangles are one unit long: then every unit is a corner. The last unit of an aligned clip may
    be partial. What 384 rectangles or more leave short, practically never for shares up to 0.9, is
    taken from the clip's start, in units as high as the spectrogram.

    Args:
        states: one stream per clip.
        frames: valid frames of each clip; later frames are not masked.
        n_mels: height of the mask.
        width: frames of the mask.
        target: pixels to mask in each clip, from :func:`pixel_targets`.
        max_block_ratio: upper limit of a rectangle's sides, as a share of the clip's sides. The
            number of rectangles, and the cost, grow with its inverse square.
        align: (mels, frames) of which corners and sides are multiples.
    """
    # More than any of 100,000 simulated clips of 1 to 592 frames needed for share 0.9, at
    # max_block_ratio 0.05 to 1.
    steps = [128] * (2 + int(0.085 / max_block_ratio**2)) + [64, 32, 16, 8, 4, 2, 1]
    draws = uniform_bits(states, sum(steps) + 1, 2, 2)
    mels = torch.full_like(frames, n_mels)
    edges = (
        _edges(draws[:, :, 0], mels, n_mels, align[0], max_block_ratio),
        _edges(draws[:, :, 1], frames, width, align[1], max_block_ratio),
    )
    used = torch.zeros_like(states)
    covered = torch.zeros(len(states), n_mels, width, dtype=torch.float32, device=states.device)
    with torch.autocast(states.device.type, enabled=False):  # sums must be exact
        # A binary search for the longest sequence that still falls short; one more rectangle
        # reaches the target.
        for step in steps:
            more = _cover(covered, edges, used, step)
            short = more.sum(dim=1).long().sum(dim=1) < target
            covered = covered.lerp_(more, short[:, None, None].float())
            used = used + step * short
        covered = _cover(covered, edges, used, 1)
    return covered.bool() | _remainder(covered, frames, target, align[1])[:, None]


def pixel_targets(
    frames: Int[Tensor, " clip"],
    n_mels: int,
    width: int,
    ratio: tuple[float, float],
    position: Int[Tensor, " clip"],
) -> Int[Tensor, " clip"]:
    """Return how many pixels of each clip to mask, drawn between two shares of its pixels.

    That is ceil((low + (high - low) * position / 2**24) * pixels).

    Args:
        frames: valid frames of each clip.
        n_mels: mels of the spectrogram.
        width: frames of the longest clip.
        ratio: lowest and highest share of the pixels.
        position: 24 random bits per clip, where its share lies between the two.
    """
    table = _pixel_table(n_mels, width, *ratio, frames.device)
    low, low_fraction, span, span_fraction = table[:, frames]
    # (span + span_fraction) * position / 2**24 in two limbs, so that no product exceeds 2**63.
    product = span * position
    fraction = low_fraction
    fraction = fraction + ((product & (2**24 - 1)) << (_FRACTION_BITS - 24))
    fraction = fraction + ((span_fraction * position) >> 24)
    # Rounded up, but for 1e-9: 0.1 of 30 pixels must be 3.
    unit = 1 << _FRACTION_BITS
    slack = int(1e-9 * unit)
    targets: Tensor = low + (product >> 24) + ((fraction - slack + unit - 1) >> _FRACTION_BITS)
    return targets


@lru_cache(maxsize=64)
def _pixel_table(
    n_mels: int, width: int, low: float, high: float, device: torch.device
) -> Int[Tensor, "4 _frames"]:
    """Return low and (high - low) times the pixels of 0 to ``width`` frames, in fixed point.

    The rows are the whole number and the binary fraction of each of the two.
    """
    rows: list[list[int]] = []
    for share in (Fraction(low), Fraction(high - low)):
        scaled = [round(share * n * n_mels * 2**_FRACTION_BITS) for n in range(width + 1)]
        rows.append([number >> _FRACTION_BITS for number in scaled])
        rows.append([number & (2**_FRACTION_BITS - 1) for number in scaled])
    with torch.inference_mode(False):
        return torch.tensor(rows, dtype=torch.int64, device=device)


def _edges(
    draws: Int[Tensor, "clip block 2"],
    size: Int[Tensor, " clip"],
    largest: int,
    unit: int,
    max_block_ratio: float,
) -> Int[Tensor, "clip block 2"]:
    """Return the first place of each rectangle along an axis, and the one after its last.

    Args:
        draws: 24 random bits for the place and the length of each rectangle.
        size: each clip's length along the axis.
        largest: the largest possible of them.
        unit: of which places and lengths are multiples.
        max_block_ratio: upper limit of the lengths, as a share of the clip's.
    """
    limit = _limit_table(largest, unit, max_block_ratio, size.device)[size][:, None]
    size = size[:, None]
    whole = (size + unit - 1) // unit * unit
    # The last unit is no place to start, unless all rectangles are one unit long.
    places = torch.where(_rounded(limit - 1, unit) > unit, whole - unit, whole)
    # floor(draw / 2**24 * range), exactly
    start = ((draws[..., 0] * places) >> 24) // unit * unit
    length = unit + ((draws[..., 1] * (limit - unit)) >> 24)
    end = start + _rounded(torch.minimum(length, whole - start), unit)
    return torch.stack([start, torch.minimum(end, size)], dim=2)


@lru_cache(maxsize=64)
def _limit_table(
    largest: int, unit: int, max_block_ratio: float, device: torch.device
) -> Int[Tensor, " size"]:
    """Return the upper limit of a rectangle's side for clips of 0 to ``largest``, from the CPU."""
    wholes = [(size + unit - 1) // unit * unit for size in range(largest + 1)]
    limits = [max(math.floor(whole * max_block_ratio), unit + 1) for whole in wholes]
    with torch.inference_mode(False):
        return torch.tensor(limits, dtype=torch.int64, device=device)


def _rounded(length: Int[Tensor, "clip block"], unit: int) -> Int[Tensor, "clip block"]:
    """Round to a multiple, halves to the even one, as Python and the published code do."""
    return (length / unit).round().long() * unit


def _cover(
    covered: Float[Tensor, "clip mel frame"],
    edges: tuple[Int[Tensor, "clip block 2"], Int[Tensor, "clip block 2"]],
    first: Int[Tensor, " clip"],
    number: int,
) -> Float[Tensor, "clip mel frame"]:
    """Return 1 where pixels are covered, after ``number`` more rectangles from ``first`` on; else
    0."""
    block = (first[:, None] + torch.arange(number, device=first.device))[..., None]
    inside = []
    for axis_edges, size in zip(edges, covered.shape[1:], strict=True):
        chosen = axis_edges.take_along_dim(block, dim=1)
        place = torch.arange(size, device=first.device)
        inside.append(((place >= chosen[..., :1]) & (place < chosen[..., 1:])).float())
    # A rectangle is the outer product of its mels and its frames; their sum counts the rectangles.
    return torch.bmm(inside[0].mT, inside[1]).add_(covered).clamp_(max=1.0)


def _remainder(
    covered: Float[Tensor, "clip mel frame"],
    frames: Int[Tensor, " clip"],
    target: Int[Tensor, " clip"],
    unit: int,
) -> Bool[Tensor, "clip frame"]:
    """Return the first frames of each clip that hold the uncovered pixels its target lacks."""
    n_mels = covered.shape[1]
    frame = torch.arange(covered.shape[2], device=frames.device)
    valid = frame < frames[:, None]
    uncovered = (n_mels - covered.sum(dim=1).long()) * valid
    before = (uncovered.cumsum(dim=1) - uncovered)[:, frame // unit * unit]
    # target - covered pixels, where covered = all of the clip's pixels - uncovered ones
    lacking = target - (frames * n_mels - uncovered.sum(dim=1))
    return (before < lacking[:, None]) & valid
