"""Position tables of other code: the grid of their patches, their order, and fixed sines in them."""

from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from melpatch.errors import ConfigError
from melpatch.nn.positions import sincos

Half = Literal["row", "column"]


class Geometry(NamedTuple):
    """How the patches of published weights lie in the spectrogram or image."""

    rows: int
    """Patches along frequency."""
    columns: int
    """Patches along time."""
    stride: tuple[int, int] | None
    """Distance between patches (mels, frames); None for images, which fix none."""
    n_mels: int | None
    """Mel bins; None for images."""
    time_major: bool
    """Whether tokens and kernel pixels are numbered time-major."""


class Sines(NamedTuple):
    """The grid that a table of fixed 2-D sines was written for, row by row."""

    rows: int
    columns: int
    first: Half
    """What the first half of the channels encodes: "column", as in MAE's code, or "row"."""


def sines(table: Float[Tensor, "token dim"]) -> Sines | None:
    """Return the grid for which a table of fixed sines was written; None if it is another table."""
    if len(table) == 0 or table.shape[1] % 4:
        return None
    # The vectors of the first row share the half that encodes the row; the next vector does not.
    halves = table.float().chunk(2, dim=1)
    for first, of_row in (("column", halves[1]), ("row", halves[0])):
        shared = torch.isclose(of_row, of_row[0], atol=1e-5).all(dim=1)
        columns = int(shared.long().cumprod(dim=0).sum())
        half = cast("Half", first)
        if len(table) % columns == 0 and _holds(table, len(table) // columns, columns, half):
            return Sines(len(table) // columns, columns, half)
    return None


def frequency_major(
    table: Float[Tensor, "token dim"], geometry: Geometry
) -> Float[Tensor, "token dim"]:
    """Return a table in the order of our grids: row by row, the lowest mels first.

    Raises:
        ConfigError: it has another number of positions than the geometry has patches.
    """
    rows = geometry.rows
    columns = geometry.columns
    if len(table) != rows * columns:
        raise ConfigError(
            f"pos_embed has {len(table)} positions, but {rows} x {columns} patches; give the "
            "published file"
        )
    if not geometry.time_major:
        return table
    return table.reshape(columns, rows, -1).transpose(0, 1).flatten(0, 1)


def fixed_half(
    table: Float[Tensor, "token dim"], geometry: Geometry, patch: tuple[int, int]
) -> Half | None:
    """Return which half comes first in a table of an encoder's own fixed sines; None if others.

    Args:
        table: one vector per patch, frequency-major.
        geometry: the grid of the patches.
        patch: size of a patch (mels, frames), the unit of fixed positions.
    """
    stride = geometry.stride or patch
    step = (stride[0] / patch[0], stride[1] / patch[1])
    halves: tuple[Half, ...] = ("column", "row")
    for first in halves:
        if _holds(table, geometry.rows, geometry.columns, first, step):
            return first
    return None


def _holds(
    table: Tensor, rows: int, columns: int, first: Half, step: tuple[float, float] = (1.0, 1.0)
) -> bool:
    """Return whether a table holds the fixed sines of a grid, up to rounding."""
    if table.shape[1] % 4:
        return False
    expected = sincos(rows, columns, table.shape[1], step=step, first=first)
    return torch.allclose(table.float().cpu(), expected, atol=1e-4)
