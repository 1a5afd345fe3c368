"""Weights of vision transformers with timm's names: ViT, DeiT, MAE, MaskSpec and AudioMAE."""

import math
import re
from collections.abc import Mapping, Set
from typing import NamedTuple

import torch
from torch import Tensor

from melpatch.encoders.vit import SIZES, ViT
from melpatch.errors import ConfigError
from melpatch.interop.base import Channels, Converted, WeightFormat, left_out
from melpatch.nn.positions import Resize, resize

_PLAIN = re.compile(r"(blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12])|norm)\.(weight|bias)$")
_TAKEN = re.compile(
    rf"{_PLAIN.pattern}|patch_embed\.proj\.(weight|bias)$|(cls_token|dist_token|pos_embed)$"
)
# Heads and decoders may be left out; a part before or in the blocks changes what they compute.
_NEEDED = re.compile(r"(blocks|encoder|layers|patch_embed|embeddings|norm_pre|reg_token)(\.|$)")


class _Table(NamedTuple):
    """Position table of the patches, learned or fixed."""

    rows: int
    columns: int
    values: Tensor
    """One vector per patch, frequency-major."""
    time_major: bool
    """Whether the file holds positions and kernel pixels time-major; ``values`` is reordered."""


class TimmViT(WeightFormat):
    """A plain pre-norm ViT with timm's names, such as ``blocks.0.attn.qkv`` and ``pos_embed``.

    - The kernel's colour channels are summed or averaged.
    - Positions are resized to the encoder's grid. An encoder with fixed positions keeps its own;
      the file's positions of class tokens are then added to these tokens.
    - An encoder with two class tokens gets the class token twice if there is no distillation token;
      an encoder with fewer leaves the others out.
    - AudioMAE numbers its patches column by column, which its table of fixed sines shows. Its
      kernel is transposed and its table reordered.
    - Heads and decoders are left out.

    Source: the names of timm's vision_transformer; colours and positions as in Gong et al. 2021
    (arXiv 2104.01778), section 2.2, and the published code.
    """

    family = "a ViT under timm's names"
    encoder = "vit"

    def recognises(self, keys: Set[str]) -> bool:
        """Return whether the keys hold timm's patch projection and blocks."""
        return {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= keys

    def renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors under timm's names; those that timm does not have keep their own."""
        return dict(state)

    def convert(
        self, state: Mapping[str, Tensor], encoder: ViT, channels: Channels, how: Resize
    ) -> Converted:
        """Return the weights converted for a :class:`ViT`; see :meth:`WeightFormat.convert`."""
        state = self.renamed(state)
        _check_blocks(state, encoder)
        table = _read_table(state, encoder)
        parts = (
            _convert_blocks(state),
            _convert_projection(state, encoder, channels, table),
            _convert_class_tokens(state, encoder),
            _convert_positions(table, encoder, how),
            _kept_parts(state, encoder),
        )
        converted: dict[str, Tensor] = {}
        notes: list[str] = []
        for part in parts:
            converted |= part.state
            notes += part.notes
        unused = {key.split(".")[0] for key in state if not _TAKEN.match(key)}
        return Converted(converted, notes + left_out(unused))


def _check_blocks(state: Mapping[str, Tensor], encoder: ViT) -> None:
    """Raise ConfigError unless the blocks are plain, and of the encoder's number and width."""
    for key in state:
        if _NEEDED.match(key) and not _TAKEN.match(key):
            raise ConfigError(
                f"{key} has no place in a plain ViT; give the weights of a ViT without it"
            )
    config = encoder.config
    if config.norm != "pre":
        raise ConfigError(
            f"encoder.norm = {config.norm!r}; allowed: 'pre', as in the blocks of these weights"
        )
    width = len(state["patch_embed.proj.weight"])
    blocks = [key for key in state if _PLAIN.match(key) and key.startswith("blocks.")]
    depth = 1 + max(int(key.split(".")[1]) for key in blocks)
    if (width, depth) != (config.embed_dim, config.depth):
        flags = f"--encoder.embed-dim {width} --encoder.depth {depth}"
        sizes = {(size["embed_dim"], size["depth"]): name for name, size in SIZES.items()}
        if (width, depth) in sizes:
            flags = f"--size {sizes[width, depth]}"
        raise ConfigError(
            f"width {width} and {depth} blocks, but the encoder has width {config.embed_dim} and "
            f"{config.depth} blocks; use {flags}"
        )
    hidden = len(state["blocks.0.mlp.fc1.bias"])
    if hidden != int(width * config.mlp_ratio):
        ratio = f"{hidden / width:g}"
        raise ConfigError(
            f"MLPs {hidden} wide, but the encoder's are not; use --encoder.mlp-ratio {ratio}"
        )


def _convert_blocks(state: Mapping[str, Tensor]) -> Converted:
    """Return the blocks and the final norm under the names of :class:`ViT`."""
    blocks = {}
    for key, value in state.items():
        if _PLAIN.match(key):
            name = key.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.2")
            blocks[f"transformer.{name}"] = value
    return Converted(blocks, [])


def _read_table(state: Mapping[str, Tensor], encoder: ViT) -> _Table | None:
    """Return the position table of the patches; None if there is none, or none that can be used.

    Raises:
        ConfigError: the encoder needs positions, but the table does not divide into rows.
    """
    if "pos_embed" not in state:
        return None
    values = state["pos_embed"][0, len(_class_token_names(state)) :]
    kernel = state["patch_embed.proj.weight"]
    is_image_model = kernel.shape[1] > 1
    rows = encoder.grid.rows
    if is_image_model:
        # Image models are trained on squares.
        rows = math.isqrt(len(values))
    elif "p_input_fdim" in state:
        # SSAST's file holds its number of mels.
        rows = int(state["p_input_fdim"]) // kernel.shape[2]
    if len(values) % rows or (is_image_model and len(values) != rows**2):
        if encoder.position_table is None:
            return None
        raise ConfigError(
            f"{len(values)} positions do not make {rows} rows; use the stride that the weights "
            "were trained with (--encoder.stride), or --encoder.positions sincos to leave them out"
        )
    columns = len(values) // rows
    time_major = _is_time_major(values, rows, columns)
    if time_major:
        values = values.reshape(columns, rows, -1).transpose(0, 1).flatten(0, 1)
    return _Table(rows, columns, values, time_major)


def _is_time_major(values: Tensor, rows: int, columns: int) -> bool:
    """Return whether a table of fixed sines numbers the patches column by column."""
    # Half of the channels encode the row, half the column. If the first `rows` vectors share one
    # half, they are the first column; if the first `columns` vectors do, they are the first row.
    first_is_row = _shares_half(values[:columns])
    first_is_column = _shares_half(values[:rows])
    return rows > 1 and first_is_column and not first_is_row


def _shares_half(vectors: Tensor) -> bool:
    """Return whether the first or the second half of the channels is the same in all vectors."""
    return any(bool((half == half[0]).all()) for half in vectors.chunk(2, dim=1))


def _convert_projection(
    state: Mapping[str, Tensor], encoder: ViT, channels: Channels, table: _Table | None
) -> Converted:
    """Return the patch projection as a linear layer over the pixels of a patch.

    Raises:
        ConfigError: the patches are not of the encoder's size.
    """
    kernel = state["patch_embed.proj.weight"]
    colours = kernel.shape[1]
    # A grey image has the same values in all colours: sum_c w_c x = (sum_c w_c) x.
    kernel = kernel.sum(dim=1) if channels == "sum" else kernel.mean(dim=1)
    if table is not None and table.time_major:
        kernel = kernel.transpose(1, 2)
    patch = (kernel.shape[1], kernel.shape[2])
    if patch != encoder.grid.patch:
        raise ConfigError(
            f"patches of {patch[0]} x {patch[1]}, but the encoder's are {encoder.grid.patch[0]} x "
            f"{encoder.grid.patch[1]}; use --encoder.patch {patch[0]} {patch[1]}"
        )
    notes = []
    if colours > 1:
        merged = {"sum": "summed", "mean": "averaged"}
        notes.append(f"{colours} colours {merged[channels]}")
    projection = {
        "projection.weight": kernel.flatten(1),
        "projection.bias": state["patch_embed.proj.bias"],
    }
    return Converted(projection, notes)


def _class_token_names(state: Mapping[str, Tensor]) -> list[str]:
    return [name for name in ("cls_token", "dist_token") if name in state]


def _convert_class_tokens(state: Mapping[str, Tensor], encoder: ViT) -> Converted:
    """Return the class tokens and their positions, for as many tokens as the encoder has."""
    count = encoder.config.cls_tokens
    names = _class_token_names(state)
    if not count:
        return Converted({}, [])
    if not names:
        note = "no class token in it, so the encoder keeps its own"
        return Converted(_own_state(encoder, ("cls_",)), [note])
    # The last token in the file stands for every further token of the encoder.
    chosen = [min(number, len(names) - 1) for number in range(count)]
    tokens = torch.cat([state[name][0] for name in names])[chosen]
    positions = torch.zeros_like(tokens)
    if "pos_embed" in state:
        positions = state["pos_embed"][0, chosen]
    notes = []
    if count > len(names):
        notes.append("class token taken twice")
    if encoder.cls_position is None:
        return Converted({"cls_token": tokens + positions}, notes)
    return Converted({"cls_token": tokens, "cls_position": positions}, notes)


def _convert_positions(table: _Table | None, encoder: ViT, how: Resize) -> Converted:
    """Return the position table resized to the encoder's grid; nothing if its own is fixed.

    Raises:
        ConfigError: the encoder needs positions, and there are none.
    """
    if encoder.position_table is None:
        if table is not None and _is_own_table(table, encoder):
            return Converted({}, [])
        note = "positions left out for the fixed ones (--encoder.positions learned takes them)"
        return Converted({}, [note])
    if table is None:
        raise ConfigError("holds no positions; use --encoder.positions sincos")
    old = (table.rows, table.columns)
    new = (encoder.grid.rows, encoder.config.columns)
    notes = []
    if old != new:
        notes.append(f"positions {old[0]} x {old[1]} fitted to {new[0]} x {new[1]} ({how})")
    return Converted({"position_table": resize(table.values, old, new, how)}, notes)


def _is_own_table(table: _Table, encoder: ViT) -> bool:
    """Return whether a table holds the encoder's fixed positions, up to rounding."""
    if table.rows != encoder.grid.rows:
        return False
    return torch.allclose(table.values.float(), encoder.positions(table.columns), atol=1e-4)


def _kept_parts(state: Mapping[str, Tensor], encoder: ViT) -> Converted:
    """Return the parts that the encoder keeps.

    These are the statistics of its input, and its final norm if the weights have none.
    """
    if "norm.weight" in state:
        return Converted(_own_state(encoder, ("input_norm.",)), [])
    note = "no final norm in it, so the encoder keeps its own"
    return Converted(_own_state(encoder, ("input_norm.", "transformer.norm.")), [note])


def _own_state(encoder: ViT, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the encoder's own tensors whose names start with one of the prefixes."""
    state: dict[str, Tensor] = encoder.state_dict()
    return {name: value for name, value in state.items() if name.startswith(prefixes)}
