"""Positions in weights with timm's names: how their patches lie, and fitted to an encoder's grid."""

from collections.abc import Mapping

import torch
from torch import Tensor

from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.interop.base import Converted, Reading
from melpatch.nn.position_tables import Geometry, frequency_major
from melpatch.nn.positions import Resize, resize

State = Mapping[str, Tensor]
"""Tensors under timm's names."""


def class_token_names(state: State) -> list[str]:
    """Return the names of the class tokens that a file holds."""
    return [name for name in ("cls_token", "dist_token") if name in state]


def patch_positions(state: State) -> Tensor | None:
    """Return the positions of the patches (token, dim), without those of the class tokens."""
    if "pos_embed" not in state:
        return None
    return state["pos_embed"][0, len(class_token_names(state)) :]


def geometry_of(encoder: ViT, state: State, reading: Reading) -> Geometry | None:
    """Return the encoder's own geometry, if the table has exactly as many positions.

    Raises:
        ConfigError: the encoder has learned positions, but not of this number.
    """
    grid = encoder.grid
    patches = patch_positions(state)
    count = 0 if patches is None else len(patches)
    columns = count // grid.rows
    if encoder.position_table is None:
        fits = count % grid.rows == 0
    else:
        columns = encoder.config.columns
        fits = count == grid.rows * columns
    if fits:
        axes = reading.axes == "frame_mel"
        return Geometry(grid.rows, columns, grid.stride, grid.n_mels, axes)
    if encoder.position_table is None:
        return None
    raise ConfigError(
        f"pos_embed has {count} positions of unknown geometry, but the encoder has {grid.rows} x "
        f"{columns}; give the geometry that the weights were trained with (--front-end.n-mels, "
        "--encoder.stride, --front-end.target-frames), or --encoder.positions sincos to leave them "
        "out"
    )


def table_of(state: State, geometry: Geometry | None) -> Tensor | None:
    """Return the positions of the patches, frequency-major; None if none can be used."""
    values = patch_positions(state)
    if values is None or geometry is None:
        return None
    return frequency_major(values, geometry)


def convert_positions(
    geometry: Geometry | None, table: Tensor | None, encoder: ViT, how: Resize
) -> Converted:
    """Return the position table resized to the encoder's grid; nothing if its own is fixed.

    Raises:
        ConfigError: the encoder needs positions, and there are none.
    """
    if encoder.position_table is None:
        if geometry is not None and table is not None and _is_own(table, geometry, encoder):
            return Converted({}, [])
        note = (
            "its positions are left out for the fixed ones of the encoder "
            "(--encoder.positions learned takes them)"
        )
        return Converted({}, [note])
    if geometry is None or table is None:
        raise ConfigError("holds no positions; use --encoder.positions sincos")
    old = (geometry.rows, geometry.columns)
    new = (encoder.grid.rows, encoder.config.columns)
    notes = []
    if old != new:
        notes.append(f"positions {old[0]} x {old[1]} fitted to {new[0]} x {new[1]} ({how})")
    return Converted({"position_table": resize(table, old, new, how)}, notes)


def _is_own(table: Tensor, geometry: Geometry, encoder: ViT) -> bool:
    """Return whether a table holds the encoder's fixed positions, up to rounding."""
    if geometry.rows != encoder.grid.rows:
        return False
    # On the table's device: an encoder may have been built without weights.
    own = encoder.fixed_positions(geometry.columns, table.device)
    return torch.allclose(table.float(), own, atol=1e-4)
