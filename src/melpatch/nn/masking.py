"""Which patches or pixels are hidden.

A sampler of patches ranks those of a clip, and :func:`take` hides the first of the ranking: it returns a *priority*
``(clip, token)``; lower is hidden earlier, infinity is never hidden. :func:`blocks` hides pixels. All are batched
tensor operations on the device, and draw from counter-based streams in which the numbers of a patch depend on its row
and column alone, and those of a rectangle on its place in the sequence: a clip's mask is the same alone, in a batch,
and beside a longer clip.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.rng import integers, uniform

Priority = Float[Tensor, "clip token"]


class Hidden(NamedTuple):
    """The hidden patches of a batch: token numbers, and which of them are real (clips may hide different numbers)."""

    tokens: Int[Tensor, "clip hidden"]
    valid: Bool[Tensor, "clip hidden"]

    def mask(self, tokens: int) -> Bool[Tensor, "clip token"]:
        """Return True at every hidden token."""
        empty = torch.zeros(len(self.tokens), tokens, dtype=torch.bool, device=self.tokens.device)
        return empty.scatter(1, self.tokens, self.valid)

    def gather(self, values: Float[Tensor, "clip token dim"]) -> Float[Tensor, "clip hidden dim"]:
        """Return the values of the hidden tokens."""
        return values.gather(1, self.tokens[..., None].expand(-1, -1, values.shape[-1]))


def amount(patches: Int[Tensor, " clip"], *, ratio: float, number: int | None, window: int) -> Int[Tensor, " clip"]:
    """Return how many patches each clip hides: its share of its own patches, and never all of them.

    Args:
        patches: real patches per clip.
        ratio: share to hide, used when ``number`` is None.
        number: patches to hide in a clip that fills the window; a shorter clip hides the same share of its own.
        window: patches of a clip that fills the window.
    """
    share = ratio if number is None else number / window
    wanted = torch.floor(patches.double() * share + 1e-9).long()  # 1e-9: 400 / 512 * 512 is to be 400
    return torch.minimum(wanted, (patches - 1).clamp(min=0))


def take(priority: Priority, counts: Int[Tensor, " clip"], most: int) -> Hidden:
    """Hide the ``counts`` first patches of each clip's ranking; ``most`` is the largest count, known without a look.

    There is always one place, if need be an invalid one, so that losses never meet an empty axis.
    """
    index = priority.argsort(dim=1, stable=True)[:, : max(most, 1)]
    return Hidden(index, torch.arange(index.shape[1], device=index.device) < counts[:, None])


def random(states: Int[Tensor, " clip"], rows: int, columns: Int[Tensor, " clip"], width: int) -> Priority:
    """Rank the patches of each clip uniformly at random; ``columns`` are real, ``width`` is the padded number."""
    # Numbered column by column, so that a wider batch leaves a patch its number.
    rank = uniform(states, width, rows).transpose(1, 2)
    padding = torch.arange(width, device=states.device) >= columns[:, None, None]
    return rank.masked_fill(padding, torch.inf).flatten(1)


def cluster(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
    sides: tuple[int, ...] = (3, 4, 5),
) -> Priority:
    """Rank patches by the first of a sequence of random squares that covers them; the surplus falls to chance.

    Gong et al. 2022 (arXiv 2110.09784), section 2.2: the side C is drawn once per clip, squares of C x C until enough
    patches are covered. *Differs* from the published sampler, which favours high mels (see :func:`cluster_legacy`):
    corners are drawn from [-(C-1), rows-1] x [-(C-1), columns-1] and squares clipped to the grid, so that a square
    covers every patch equally often; surplus patches of the last square are dropped at random. Low and high mels are
    hidden alike; edges up to 0.01 more or less often than the middle where 75 % are hidden, more where few are.
    """
    side, largest = _sides(states, sides), max(sides)
    # Four times the expected need of a half-covered grid; what no square reaches ranks behind, at random.
    blocks = (4 * (rows + largest - 1) * (columns + largest - 1) // min(sides) ** 2) + 8
    most = 4 * (rows + largest - 1) * (width + largest - 1) // min(sides) ** 2 + 8
    corner = uniform(states, most + 1, 2)[:, 1:]  # number 0 chose the side
    reach = torch.stack([side + (rows - 1), side + (columns - 1)], dim=1)
    corner = (corner * reach[:, None]).long() - (side - 1)[:, None, None]
    step = torch.arange(largest, device=states.device)
    row, column = (corner[..., axis, None] + step for axis in (0, 1))
    inside_row = (step < side[:, None, None]) & (row >= 0) & (row < rows)
    inside_column = (step < side[:, None, None]) & (column >= 0) & (column < columns[:, None, None])
    used = torch.arange(most, device=states.device) < blocks[:, None]
    inside = inside_row[..., :, None] & inside_column[..., None, :] & used[..., None, None]
    cell = (row[..., :, None] * width + column[..., None, :]).masked_fill(~inside, rows * width)
    first = _first_cover(cell.flatten(2), rows * width)
    return first + random(ties, rows, columns, width).double()


def cluster_legacy(
    states: Int[Tensor, " clip"], rows: int, columns: int, number: int, sides: tuple[int, ...] = (3, 4, 5)
) -> Priority:
    """Rank the patches of clips without padding as the published code does, biases included.

    Squares start at a uniform patch number and grow upward, wrap at a row's end into the next row, and never hold patch
    0. Once more than ``number`` patches are covered, the lowest numbers are kept, so low mels stay visible far more
    often. Where squares cannot cover so many, the lowest numbers but 0 are hidden; the published code never returns.

    Source: the published SSAST code (commit a1a3eec), ``gen_maskid_patch``. *Differs*: sorts where the original lists a
    Python set, which is the same for 512 patches and more than 70 hidden ones.
    """
    tokens, side, largest = rows * columns, _sides(states, sides), max(sides)
    blocks = 4 * tokens  # far more than the published loop ever draws
    start = integers(states, 0, tokens, blocks + 1)[:, 1:]
    step = torch.arange(largest, device=states.device)
    inside = (step < side[:, None])[:, None, :, None] & (step < side[:, None])[:, None, None, :]
    cell = start[..., None, None] + columns * step[:, None] + step
    cell = cell.masked_fill(~inside | (cell == 0) | (cell >= tokens), tokens)
    first = _first_cover(cell.flatten(2), tokens)
    # The square with which the set outgrows ``number``.
    last = first.sort(dim=1).values[:, min(number, tokens - 1), None]
    lowest_first = torch.arange(tokens, device=states.device, dtype=torch.float64)
    lowest_first[0] = torch.inf
    return lowest_first.masked_fill(first > last, torch.inf)


def _sides(states: Int[Tensor, " clip"], sides: tuple[int, ...]) -> Int[Tensor, " clip"]:
    choice = integers(states, 0, len(sides), 1)[:, 0]
    return torch.tensor(sides, device=states.device)[choice]


def _first_cover(cell: Int[Tensor, "clip block cell"], tokens: int) -> Float[Tensor, "clip token"]:
    """Return the number of the first block that covers each token, or the number of blocks if none does."""
    clips, blocks, _ = cell.shape
    block = torch.arange(blocks, device=cell.device, dtype=torch.float64)[:, None].expand(cell.shape)
    first = torch.full((clips, tokens + 1), float(blocks), dtype=torch.float64, device=cell.device)
    return first.scatter_reduce(1, cell.flatten(1), block.flatten(1), "amin")[:, :tokens]


def blocks(
    states: Int[Tensor, " clip"],
    frames: Int[Tensor, " clip"],
    n_mels: int,
    width: int,
    share: Float[Tensor, " clip"],
    *,
    block_share: float = 0.3,
    align: tuple[int, int] = (1, 1),
) -> Bool[Tensor, "clip mel frame"]:
    """Hide random rectangles, one after the other, until so large a share of a clip's own pixels is hidden.

    Overlaps count once and the last rectangle overshoots. Each side is drawn evenly, from one unit of ``align`` to less
    than ``block_share`` of the clip's side.

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
        block_share: what the sides of a rectangle stay below, as a share of the clip's sides. The number of rectangles,
            and the cost, grow with its inverse square.
        align: (mels, frames) of which corners and sides are multiples.
    """
    # More than any of 100,000 simulated clips of 1 to 592 frames needed for share 0.9, at block_share 0.05 to 1.
    steps = [128] * (2 + int(0.085 / block_share**2)) + [64, 32, 16, 8, 4, 2, 1]
    draws = uniform(states, sum(steps) + 1, 2, 2).double()
    edges = (
        _edges(draws[:, :, 0], torch.full_like(frames, n_mels), align[0], block_share),
        _edges(draws[:, :, 1], frames, align[1], block_share),
    )
    target = share.double() * frames * n_mels - 1e-9  # 1e-9: 0.1 of 30 pixels is to be 3
    covered, used = torch.zeros(len(states), n_mels, width, device=states.device), torch.zeros_like(states)
    with torch.autocast(states.device.type, enabled=False):  # sums must be exact
        # A binary search for the longest sequence that still falls short; one more rectangle reaches the target.
        for step in steps:
            more = _cover(covered, edges, used, step)
            short = more.sum(dim=1).sum(dim=1, dtype=torch.float64) < target
            covered, used = covered.lerp_(more, short[:, None, None].float()), used + step * short
        covered = _cover(covered, edges, used, 1)
    return covered.bool() | _remainder(covered, frames, target, align[1])[:, None]


def _edges(
    draws: Float[Tensor, "clip block 2"], size: Int[Tensor, " clip"], unit: int, block_share: float
) -> Int[Tensor, "clip block 2"]:
    """Return the first place of each rectangle along an axis, and the one after its last."""
    size = size[:, None]
    whole = (size + unit - 1) // unit * unit
    limit = (whole.double() * block_share).long().clamp(min=unit + 1)
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
        chosen, place = axis_edges.take_along_dim(block, dim=1), torch.arange(size, device=first.device)
        inside.append(((place >= chosen[..., :1]) & (place < chosen[..., 1:])).float())
    return torch.bmm(inside[0].mT, inside[1]).add_(covered).clamp_(max=1.0)


def _remainder(
    covered: Float[Tensor, "clip mel frame"], frames: Int[Tensor, " clip"], target: Float[Tensor, " clip"], unit: int
) -> Bool[Tensor, "clip frame"]:
    """Return the first frames of each clip, whole units, that hold as many uncovered pixels as its target lacks."""
    frame = torch.arange(covered.shape[2], device=frames.device)
    inside = frame < frames[:, None]
    left = (covered.shape[1] - covered.sum(dim=1).double()) * inside
    before = (left.cumsum(dim=1) - left)[:, frame // unit * unit]
    lacking = target - (frames * covered.shape[1] - left.sum(dim=1))
    return (before < lacking[:, None]) & inside
