"""Random rectangles of pixels: which part of each spectrogram of a batch a corruption overwrites.

Batched tensor operations on the device. The numbers of a rectangle depend on its place in the sequence alone: a clip's
mask is the same alone, in a batch, and beside a longer clip.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.rng import uniform


def rectangles(
    states: Int[Tensor, " clip"],
    frames: Int[Tensor, " clip"],
    n_mels: int,
    width: int,
    share: Float[Tensor, " clip"],
    *,
    max_block_ratio: float = 0.3,
    align: tuple[int, int] = (1, 1),
) -> Bool[Tensor, "clip mel frame"]:
    """Hide random rectangles, one after the other, until so large a share of a clip's own pixels is hidden.

    Overlaps count once and the last rectangle overshoots. Each side is drawn evenly, from one unit of ``align`` to less
    than ``max_block_ratio`` of the clip's side.

    Source: the block corruption of the published ASiT (commit 1f1d63c), itself from GMML (Atito et al. 2022, arXiv
    2205.14986), quirks included: the outermost frame and mel are never a corner, so that the edges are hidden less
    often. *Differs* where that cannot cover a clip, because all rectangles are one unit long: then every unit is a
    corner. The last unit of an aligned clip may be partial. What 384 rectangles or more leave short, practically never
    for shares up to 0.9, is taken from the clip's start, in units as high as the spectrogram.

    Args:
        states: one stream per clip.
        frames: each clip's own frames; none beyond is hidden.
        n_mels: height of the mask.
        width: frames of the mask.
        share: share of each clip's own pixels to hide, above 0.
        max_block_ratio: what the sides of a rectangle stay below, as a share of the clip's sides. The number of
            rectangles, and the cost, grow with its inverse square.
        align: (mels, frames) of which corners and sides are multiples.
    """
    # More than any of 100,000 simulated clips of 1 to 592 frames needed for share 0.9, at max_block_ratio 0.05 to 1.
    steps = [128] * (2 + int(0.085 / max_block_ratio**2)) + [64, 32, 16, 8, 4, 2, 1]
    draws = uniform(states, sum(steps) + 1, 2, 2).double()
    edges = (
        _edges(draws[:, :, 0], torch.full_like(frames, n_mels), align[0], max_block_ratio),
        _edges(draws[:, :, 1], frames, align[1], max_block_ratio),
    )
    target = share.double() * frames * n_mels - 1e-9  # 1e-9: 0.1 of 30 pixels is to be 3
    used = torch.zeros_like(states)
    covered = torch.zeros(len(states), n_mels, width, dtype=torch.float32, device=states.device)
    with torch.autocast(states.device.type, enabled=False):  # sums must be exact
        # A binary search for the longest sequence that still falls short; one more rectangle reaches the target.
        for step in steps:
            more = _cover(covered, edges, used, step)
            short = more.sum(dim=1).sum(dim=1, dtype=torch.float64) < target
            covered, used = covered.lerp_(more, short[:, None, None].float()), used + step * short
        covered = _cover(covered, edges, used, 1)
    return covered.bool() | _remainder(covered, frames, target, align[1])[:, None]


def _edges(
    draws: Float[Tensor, "clip block 2"],
    size: Int[Tensor, " clip"],
    unit: int,
    max_block_ratio: float,
) -> Int[Tensor, "clip block 2"]:
    """Return the first place of each rectangle along an axis, and the one after its last."""
    size = size[:, None]
    whole = (size + unit - 1) // unit * unit
    limit = (whole.double() * max_block_ratio).long().clamp(min=unit + 1)
    corners = torch.where(_rounded(limit - 1, unit) > unit, whole - unit, whole)
    start = (draws[..., 0] * corners).long() // unit * unit
    length = unit + (draws[..., 1] * (limit - unit)).long()
    end = start + _rounded(torch.minimum(length, whole - start), unit)
    return torch.stack([start, torch.minimum(end, size)], dim=2)


def _rounded(length: Int[Tensor, "clip block"], unit: int) -> Int[Tensor, "clip block"]:
    """Round to a multiple, halves to the even one, as Python and the published code do."""
    return (length / unit).round().long() * unit


def _cover(
    covered: Float[Tensor, "clip mel frame"],
    edges: tuple[Int[Tensor, "clip block 2"], Int[Tensor, "clip block 2"]],
    first: Int[Tensor, " clip"],
    number: int,
) -> Float[Tensor, "clip mel frame"]:
    """Return 1 where pixels are covered already, or by so many rectangles from each clip's ``first`` on; else 0."""
    block = (first[:, None] + torch.arange(number, device=first.device))[..., None]
    inside = []
    for axis_edges, size in zip(edges, covered.shape[1:], strict=True):
        chosen, place = (
            axis_edges.take_along_dim(block, dim=1),
            torch.arange(size, device=first.device),
        )
        inside.append(((place >= chosen[..., :1]) & (place < chosen[..., 1:])).float())
    return torch.bmm(inside[0].mT, inside[1]).add_(covered).clamp_(max=1.0)


def _remainder(
    covered: Float[Tensor, "clip mel frame"],
    frames: Int[Tensor, " clip"],
    target: Float[Tensor, " clip"],
    unit: int,
) -> Bool[Tensor, "clip frame"]:
    """Return the first frames of each clip, whole units, that hold as many uncovered pixels as its target lacks."""
    frame = torch.arange(covered.shape[2], device=frames.device)
    inside = frame < frames[:, None]
    left = (covered.shape[1] - covered.sum(dim=1).double()) * inside
    before = (left.cumsum(dim=1) - left)[:, frame // unit * unit]
    lacking = target - (frames * covered.shape[1] - left.sum(dim=1))
    return (before < lacking[:, None]) & inside
