"""Which patches are hidden: every sampler ranks a clip's patches, and :func:`take` hides the first of the ranking.

A sampler returns a *priority* ``(clip, token)``; lower is hidden earlier, infinity is never hidden. All are batched
tensor operations on the device, and draw from counter-based streams in which the numbers of a patch depend on its row
and column
alone: a clip's mask is the same alone, in a batch, and beside a longer clip.
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
