"""Rankings of patches: which of a clip are hidden first.

A sampler returns a *priority* ``(clip, token)``: lower is hidden earlier, infinity is padding. All are batched tensor
operations on the device, and draw from counter-based streams in which the numbers of a patch depend on its row and
column alone, and those of a block on its place in the sequence: a clip's ranking is the same alone, in a batch, and
beside a longer clip.

Samplers share their arguments: ``states`` and ``ties`` are one stream per clip, the second for what is left to chance;
``rows`` of patches are the same for all, ``columns`` are each clip's own, ``width`` is their padded number.
"""

from functools import lru_cache
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.rng import integers, uniform

Priority = Float[Tensor, "clip token"]
Count = TypeVar("Count", int, Tensor)


def random(
    states: Int[Tensor, " clip"], rows: int, columns: Int[Tensor, " clip"], width: int
) -> Priority:
    """Rank the patches of each clip uniformly at random."""
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
    sides: tuple[int, ...],
) -> Priority:
    """Rank patches by the first of a sequence of random squares that covers them; the surplus falls to chance.

    Gong et al. 2022 (arXiv 2110.09784), section 2.2: the side C is drawn once per clip, 3, 4 or 5 there; squares of C x
    C until enough patches are covered. *Differs* from the published sampler, which favours high mels (see
    :func:`cluster_legacy`): corners are drawn from [-(C-1), rows-1] x [-(C-1), columns-1] and squares clipped to the
    grid, so that a square covers every patch equally often; surplus patches of the last square are dropped at random.
    Low and high mels are hidden alike; edges up to 0.01 more or less often than the middle where 75 % are hidden, more
    where few are.
    """
    return (
        _squares(states, rows, columns, width, sides) + random(ties, rows, columns, width).double()
    )


def inverse_block(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
    sides: tuple[int, ...],
) -> Priority:
    """Rank patches so that what stays visible are squares: the ranking of :func:`cluster` upside down.

    Baevski et al. 2022 (data2vec 2.0, arXiv 2212.07525), "inverse block masking"; Chen et al. 2024 (EAT, arXiv
    2401.03497), squares of 5 x 5. *Differs:* squares are placed one after the other until they hold as many patches as
    stay visible, instead of a number of them that does so on average and random patches for the rest.
    """
    return random(ties, rows, columns, width).double() - _squares(
        states, rows, columns, width, sides
    )


def block(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
    sides: tuple[int, ...],
) -> Priority:
    """Rank patches as :func:`cluster` does, but by rectangles that each draw height and width from ``sides``.

    After the block masking of BEiT (Bao et al. 2021, arXiv 2106.08254). *Differs:* sides in patches instead of areas
    and aspect ratios, and corners as in :func:`cluster`.
    """
    draws = uniform(states, _enough(rows, width, sides, sides), 4)
    size = _table(sides, states.device)[(draws[..., 2:] * len(sides)).long()]
    first = _first_block(draws[..., :2], size, rows, columns, width, sides, sides)
    return first + random(ties, rows, columns, width).double()


def span(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
    length: int,
) -> Priority:
    """Rank patches by the first of a sequence of random spans that covers them; the surplus falls to chance.

    Spans run through the patches in the order of time: all rows of a column, then the next column. Baevski et al. 2020
    (wav2vec 2.0, arXiv 2006.11477), section 3.1, spans of 10, as MAE-AST has it (Baade et al. 2022, arXiv 2203.16691).
    *Differs:* spans are drawn until enough patches are covered, instead of a number of them that does so on average;
    they may start before the clip, so that every patch is covered equally often.
    """
    patches, tokens, high, long = columns * rows, width * rows, (1,), (length,)
    place = uniform(states, _enough(1, tokens, high, long), 2)
    size = _table((1, length), states.device).expand_as(place)
    first = _first_block(place, size, 1, patches, tokens, high, long)
    first = first.view(-1, width, rows).transpose(1, 2).flatten(1)
    return first + random(ties, rows, columns, width).double()


def time(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
) -> Priority:
    """Rank whole columns at random; where a column is cut through, chance says which of its patches are hidden."""
    chance = random(states, 1, columns, width)
    rank = chance.argsort(dim=1, stable=True).argsort(dim=1)
    return rank.repeat(1, rows) + random(ties, rows, columns, width).double()


def frequency(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
) -> Priority:
    """Rank whole rows at random; where a row is cut through, chance says which of its patches are hidden."""
    rank = uniform(states, rows).argsort(dim=1, stable=True).argsort(dim=1)
    return rank.repeat_interleave(width, dim=1) + random(ties, rows, columns, width).double()


def cluster_legacy(
    states: Int[Tensor, " clip"], rows: int, columns: int, number: int, sides: tuple[int, ...]
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
    patch = torch.arange(tokens, device=states.device, dtype=torch.float64)
    return patch + tokens * ((first > last) | (patch == 0))


def _squares(
    states: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
    sides: tuple[int, ...],
) -> Float[Tensor, "clip token"]:
    """Return the first of a clip's squares, all of one random side, that covers each patch."""
    place = uniform(states, _enough(rows, width, sides, sides) + 1, 2)[
        :, 1:
    ]  # number 0 chose the side
    size = _sides(states, sides)[:, None, None].expand_as(place)
    return _first_block(place, size, rows, columns, width, sides, sides)


def _sides(states: Int[Tensor, " clip"], sides: tuple[int, ...]) -> Int[Tensor, " clip"]:
    choice = integers(states, 0, len(sides), 1)[:, 0]
    return _table(sides, states.device)[choice]


@lru_cache(maxsize=16)
def _table(sizes: tuple[int, ...], device: torch.device) -> Int[Tensor, " size"]:
    """Return these sizes on the device, which has to be waited for the first time only."""
    with torch.inference_mode(False):
        return torch.tensor(sizes, device=device)


def _enough(rows: int, columns: Count, heights: tuple[int, ...], widths: tuple[int, ...]) -> Count:
    """Return a number of blocks four times the expected need of a half-covered grid."""
    return (
        4 * (rows + max(heights) - 1) * (columns + max(widths) - 1) // (min(heights) * min(widths))
        + 8
    )


def _first_block(
    place: Float[Tensor, "clip block 2"],
    size: Int[Tensor, "clip block 2"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
    heights: tuple[int, ...],
    widths: tuple[int, ...],
) -> Float[Tensor, "clip token"]:
    """Return the number of the first block that covers each patch; what none reaches gets a number behind all.

    Args:
        place: two numbers in [0, 1) per block, from the lowest and earliest corner that still touches the grid to the
            last.
        size: height and width of each block.
        rows: of the grid.
        columns: of each clip's grid.
        width: columns of the padded grid.
        heights: what the heights are drawn from.
        widths: what the widths are drawn from.
    """
    ends = torch.stack([torch.full_like(columns, rows), columns], dim=1)[:, None]
    corner = (place * (ends + size - 1)).long() - (size - 1)
    inside, cell = [], []
    for axis, sides in enumerate((heights, widths)):
        step = torch.arange(max(sides), device=place.device)
        line = corner[..., axis, None] + step
        inside.append((step < size[..., axis, None]) & (line >= 0) & (line < ends[..., axis, None]))
        cell.append(line)
    # A clip has its own number of blocks, whatever the width of its batch.
    used = (
        torch.arange(place.shape[1], device=place.device)
        < _enough(rows, columns, heights, widths)[:, None]
    )
    covers = inside[0][..., :, None] & inside[1][..., None, :] & used[..., None, None]
    cells = cell[0][..., :, None] * width + cell[1][..., None, :]
    return _first_cover(cells.masked_fill(~covers, rows * width).flatten(2), rows * width)


def _first_cover(cell: Int[Tensor, "clip block cell"], tokens: int) -> Float[Tensor, "clip token"]:
    """Return the number of the first block that covers each token, or the number of blocks if none does."""
    clips, blocks, _ = cell.shape
    block = torch.arange(blocks, device=cell.device, dtype=torch.float64)[:, None].expand(
        cell.shape
    )
    first = torch.full((clips, tokens + 1), float(blocks), dtype=torch.float64, device=cell.device)
    return first.scatter_reduce(1, cell.flatten(1), block.flatten(1), "amin")[:, :tokens]
