"""Rankings of patches: which patches of a clip are masked first.

A sampler returns a *priority* ``(clip, token)`` of integers: lower is masked earlier, ``PADDING``
comes last. A priority is a rank (the number of the first block that covers the patch) in the upper
bits and a random number in the lower 24, which breaks ties. Integers keep both exactly, and need no
float64, which Apple's GPUs lack.

All samplers are batched tensor operations on the device. They draw from counter-based streams in
which the numbers of a patch depend on its row and column alone, and those of a block on its place
in the sequence, so that a clip's ranking is the same alone, in a batch, and beside a longer clip.

Samplers share their arguments: ``states`` and ``ties`` are one stream per clip, the second for
breaking ties; ``rows`` of patches are the same for all clips, ``columns`` are each clip's own,
``width`` is their padded number.
"""

from functools import lru_cache
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.rng import integers, uniform, uniform_bits

Priority = Int[Tensor, "clip token"]
PADDING = 2**62
"""Priority of padding: behind everything."""
Count = TypeVar("Count", int, Tensor)


def random(
    states: Int[Tensor, " clip"], rows: int, columns: Int[Tensor, " clip"], width: int
) -> Priority:
    """Rank the patches of each clip uniformly at random."""
    return _ranked(
        torch.zeros((), dtype=torch.int64, device=states.device), states, rows, columns, width
    )


def _ranked(
    rank: Int[Tensor, "*clip_token"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
) -> Priority:
    """Return the priority of patches with these ranks; equal ranks are ordered at random."""
    # Numbered column by column, so that a wider batch leaves a patch its number.
    tie = uniform_bits(ties, width, rows).transpose(1, 2).flatten(1)
    padding = torch.arange(width, device=ties.device) >= columns[:, None, None]
    padding = padding.expand(-1, rows, -1).flatten(1)
    return ((rank << 24) + tie).masked_fill(padding, PADDING)


def cluster(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
    sides: tuple[int, ...],
) -> Priority:
    """Rank patches by the first of a sequence of random squares that covers them, ties at random.

    Gong et al. 2022 (arXiv 2110.09784), section 2.2: the side C is drawn once per clip, 3, 4 or 5
    there; squares of C x C until enough patches are covered. *Differs* from the published sampler,
    which favours high mels (see :func:`cluster_legacy`): corners are drawn from [-(C-1), rows-1] x
    [-(C-1), columns-1] and squares clipped to the grid, so that a square covers every patch equally
    often; surplus patches of the last square are dropped at random. Low and high mels are masked
    alike; edges up to 0.01 more or less often than the middle where 75 % are masked, more where few
    are.
    """
    first = _squares(states, rows, columns, width, sides)
    return _ranked(first, ties, rows, columns, width)


def inverse_block(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
    sides: tuple[int, ...],
) -> Priority:
    """Rank patches so that the visible ones form squares: :func:`cluster` upside down.

    Baevski et al. 2022 (data2vec 2.0, arXiv 2212.07525), "inverse block masking"; Chen et al. 2024
    (EAT, arXiv 2401.03497), squares of 5 x 5. *Differs:* squares are placed one after the other
    until they hold as many patches as stay visible, instead of a number of them that does so on
    average, with random patches for the rest (see :func:`inverse_block_legacy`).
    """
    first = _squares(states, rows, columns, width, sides)
    return _ranked(-first, ties, rows, columns, width)


def inverse_block_legacy(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
    sides: tuple[int, ...],
    cover: Int[Tensor, " clip"],
) -> Priority:
    """Rank patches outside of a fixed number of squares first, as the published EAT does.

    The centres of the squares are drawn uniformly from the grid, which cuts the squares off, so
    that patches at its edges are visible less often. If the squares hold too many patches, random
    ones of them are masked; if too few, random ones elsewhere stay visible, most of them alone.

    Source: a description of the published EAT code (commit 06c1c34), ``utils/data_utils.py``.
    *Differs:* a clip has at least one square, of however few patches it is; the centre of an even
    side is the later of its two middle patches.

    Args:
        states: see the module.
        ties: see the module.
        rows: see the module.
        columns: see the module.
        width: see the module.
        sides: of the squares; one is drawn per clip.
        cover: patches that a clip's squares would hold if they neither overlapped nor were cut off,
            rounded down to whole squares; less than twice the clip's patches.
    """
    side = _sides(states, sides)
    most = max(2 * rows * width // min(sides) ** 2, 1)
    place = uniform(states, most + 1, 2)[:, 1:]  # number 0 chose the side
    ends = torch.stack([torch.full_like(columns, rows), columns], dim=1)[:, None]
    size = side[:, None, None].expand_as(place)
    corner = (place * ends).long() - size // 2
    number = (cover // side**2).clamp(min=1)
    frame = (max(sides), max(sides))
    first = _first_of_blocks(corner, size, number, ends, (rows, width), frame)
    return _ranked((first < most).long(), ties, rows, columns, width)


def block(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
    sides: tuple[int, ...],
) -> Priority:
    """Rank patches as :func:`cluster`, by rectangles with height and width drawn from ``sides``.

    After the block masking of BEiT (Bao et al. 2021, arXiv 2106.08254). *Differs:* sides in patches
    instead of areas and aspect ratios, and corners as in :func:`cluster`.
    """
    draws = uniform(states, _enough(rows, width, sides, sides), 4)
    size = _table(sides, states.device)[(draws[..., 2:] * len(sides)).long()]
    first = _first_block(draws[..., :2], size, rows, columns, width, sides, sides)
    return _ranked(first, ties, rows, columns, width)


def span(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
    length: int,
) -> Priority:
    """Rank patches by the first of a sequence of random spans that covers them, ties at random.

    Spans run through the patches in the order of time: all rows of a column, then the next column.
    Baevski et al. 2020 (wav2vec 2.0, arXiv 2006.11477), section 3.1, spans of 10, as MAE-AST has it
    (Baade et al. 2022, arXiv 2203.16691). *Differs:* spans are drawn until enough patches are
    covered, instead of a number of them that does so on average; they may start before the clip, so
    that every patch is covered equally often.
    """
    # A span is a block of one row on a grid that is all columns, one after the other.
    tokens = width * rows
    heights = (1,)
    lengths = (length,)
    place = uniform(states, _enough(1, tokens, heights, lengths), 2)
    size = _table((1, length), states.device).expand_as(place)
    first = _first_block(place, size, 1, columns * rows, tokens, heights, lengths)
    first = first.view(-1, width, rows).transpose(1, 2).flatten(1)
    return _ranked(first, ties, rows, columns, width)


def time(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
) -> Priority:
    """Rank whole columns at random, and the patches of each column at random."""
    order = random(states, 1, columns, width)
    rank = order.argsort(dim=1, stable=True).argsort(dim=1)
    return _ranked(rank.repeat(1, rows), ties, rows, columns, width)


def frequency(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
) -> Priority:
    """Rank whole rows at random, and the patches of each row at random."""
    rank = uniform_bits(states, rows).argsort(dim=1, stable=True).argsort(dim=1)
    return _ranked(rank.repeat_interleave(width, dim=1), ties, rows, columns, width)


def time_legacy(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
) -> Priority:
    """Rank runs of neighbouring columns at random: what the published AudioMosaic takes for columns.

    Its tokens are numbered in the order of time, all rows of a column, then the next column; its
    mask takes them for ``rows`` columns of ``columns`` patches each. With 8 x 64 patches these are
    8 runs of 8 whole columns. Other grids cut a run within a column.

    Source: the published AudioMosaic code (commit 67a86a8), ``models/audiomosaic.py``.
    """
    order = uniform_bits(states, rows).argsort(dim=1, stable=True).argsort(dim=1)
    # Padding would be in runs that do not exist.
    run = (_in_time(rows, width, ties.device) // columns[:, None]).clamp(max=rows - 1)
    return _ranked(order.gather(1, run), ties, rows, columns, width)


def frequency_legacy(
    states: Int[Tensor, " clip"],
    ties: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
) -> Priority:
    """Rank places in a run at random, the same in all runs: what :func:`time_legacy` makes of rows.

    With 8 x 64 patches these are the 64 patches of 8 columns, so the mask repeats itself every 8
    columns, and hides no row as a whole.
    """
    order = random(states, 1, columns, width).argsort(dim=1, stable=True).argsort(dim=1)
    place = _in_time(rows, width, ties.device) % columns[:, None]
    return _ranked(order.gather(1, place), ties, rows, columns, width)


def _in_time(rows: int, width: int, device: torch.device) -> Int[Tensor, " token"]:
    """Return the number of each token in the order of time."""
    column = torch.arange(width, device=device)
    row = torch.arange(rows, device=device)[:, None]
    return (rows * column + row).flatten()


def cluster_legacy(
    states: Int[Tensor, " clip"], rows: int, columns: int, number: int, sides: tuple[int, ...]
) -> Priority:
    """Rank the patches of clips without padding as the published code does, biases included.

    Squares start at a uniform patch number and grow upward, wrap at a row's end into the next row,
    and never hold patch 0. Once more than ``number`` patches are covered, the lowest numbers are
    kept, so low mels stay visible far more often. Where squares cannot cover that many, the lowest
    numbers but 0 are masked; the published code never returns.

    Source: the published SSAST code (commit a1a3eec), ``gen_maskid_patch``. *Differs*: sorts where
    the original lists a Python set, which is the same for 512 patches and more than 70 masked ones.
    """
    tokens = rows * columns
    side = _sides(states, sides)
    blocks = 4 * tokens  # far more than the published loop ever draws
    start = integers(states, 0, tokens, blocks + 1)[:, 1:]  # number 0 chose the side
    # Cells of each square: start + row * columns + column, in a frame of the largest side. Cells
    # outside of the square, patch 0 and cells past the end go to an extra token, which is dropped.
    offset = torch.arange(max(sides), device=states.device)
    in_side = offset < side[:, None]
    inside = in_side[:, None, :, None] & in_side[:, None, None, :]
    cell = start[..., None, None] + columns * offset[:, None] + offset
    cell = cell.masked_fill(~inside | (cell == 0) | (cell >= tokens), tokens)
    first = _first_cover(cell.flatten(2), tokens)
    # The square with which more than ``number`` patches are covered; all later ones are not drawn.
    last = first.sort(dim=1).values[:, min(number, tokens - 1), None]
    patch = torch.arange(tokens, device=states.device)
    return patch + tokens * ((first > last) | (patch == 0))


def _squares(
    states: Int[Tensor, " clip"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
    sides: tuple[int, ...],
) -> Int[Tensor, "clip token"]:
    """Return the first of a clip's squares, all of one random side, that covers each patch."""
    place = uniform(states, _enough(rows, width, sides, sides) + 1, 2)
    place = place[:, 1:]  # number 0 chose the side
    size = _sides(states, sides)[:, None, None].expand_as(place)
    return _first_block(place, size, rows, columns, width, sides, sides)


def _sides(states: Int[Tensor, " clip"], sides: tuple[int, ...]) -> Int[Tensor, " clip"]:
    choice = integers(states, 0, len(sides), 1)[:, 0]
    return _table(sides, states.device)[choice]


@lru_cache(maxsize=16)
def _table(sizes: tuple[int, ...], device: torch.device) -> Int[Tensor, " size"]:
    """Return these sizes on the device; only the first call has to wait for it."""
    with torch.inference_mode(False):
        return torch.tensor(sizes, device=device)


def _enough(rows: int, columns: Count, heights: tuple[int, ...], widths: tuple[int, ...]) -> Count:
    """Return a number of blocks four times the expected need of a half-covered grid."""
    corners = (rows + max(heights) - 1) * (columns + max(widths) - 1)
    return 4 * corners // (min(heights) * min(widths)) + 8


def _first_block(
    place: Float[Tensor, "clip block 2"],
    size: Int[Tensor, "clip block 2"],
    rows: int,
    columns: Int[Tensor, " clip"],
    width: int,
    heights: tuple[int, ...],
    widths: tuple[int, ...],
) -> Int[Tensor, "clip token"]:
    """Return the number of the first block that covers each patch; if none, the number of blocks.

    Args:
        place: two numbers in [0, 1) per block: where its corner lies between the lowest and
            earliest place at which the block still touches the grid, and the last one.
        size: height and width of each block.
        rows: of the grid.
        columns: of each clip's grid.
        width: columns of the padded grid.
        heights: what the heights are drawn from.
        widths: what the widths are drawn from.
    """
    ends = torch.stack([torch.full_like(columns, rows), columns], dim=1)[:, None]
    corner = (place * (ends + size - 1)).long() - (size - 1)
    # A clip has its own number of blocks, whatever the width of its batch.
    number = _enough(rows, columns, heights, widths)
    frame = (max(heights), max(widths))
    return _first_of_blocks(corner, size, number, ends, (rows, width), frame)


def _first_of_blocks(
    corner: Int[Tensor, "clip block 2"],
    size: Int[Tensor, "clip block 2"],
    number: Int[Tensor, " clip"],
    ends: Int[Tensor, "clip 1 2"],
    grid: tuple[int, int],
    frame: tuple[int, int],
) -> Int[Tensor, "clip token"]:
    """Return the number of the first block that covers each patch; if none, the number of blocks.

    Args:
        corner: lowest row and earliest column of each block, which may lie outside of the grid.
        size: height and width of each block.
        number: how many of the blocks each clip has.
        ends: rows and columns of each clip's grid.
        grid: rows and columns of the padded grid.
        frame: the largest height and the largest width.
    """
    # The lines of a block along each axis, in a frame of the largest size, and which of them count.
    lines = []
    inside = []
    for axis in (0, 1):
        offset = torch.arange(frame[axis], device=corner.device)
        line = corner[..., axis, None] + offset
        in_grid = (line >= 0) & (line < ends[..., axis, None])
        lines.append(line)
        inside.append((offset < size[..., axis, None]) & in_grid)
    used = torch.arange(corner.shape[1], device=corner.device) < number[:, None]
    covers = inside[0][..., :, None] & inside[1][..., None, :] & used[..., None, None]
    rows, width = grid
    cells = lines[0][..., :, None] * width + lines[1][..., None, :]
    cells = cells.masked_fill(~covers, rows * width)
    return _first_cover(cells.flatten(2), rows * width)


def _first_cover(cell: Int[Tensor, "clip block cell"], tokens: int) -> Int[Tensor, "clip token"]:
    """Return the number of the first block that covers each token; if none, how many there are."""
    clips, blocks, _ = cell.shape
    # int32 holds every number of blocks; cells that cover nothing point at an extra last token.
    block = torch.arange(blocks, device=cell.device, dtype=torch.int32)[:, None].expand(cell.shape)
    first = torch.full((clips, tokens + 1), blocks, dtype=torch.int32, device=cell.device)
    first = first.scatter_reduce(1, cell.flatten(1), block.flatten(1), "amin")
    return first[:, :tokens].long()
