"""Vision transformers under the names of timm: ViT and DeiT, and MAE, MaskSpec and AudioMAE."""

import math
import re
from collections.abc import Mapping, Set
from typing import NamedTuple

import torch
from torch import Tensor

from melpatch.encoders.vit import SIZES, ViT
from melpatch.errors import ConfigError
from melpatch.interop.base import Channels, Converted, WeightFormat
from melpatch.nn.positions import Resize, resize

_PLAIN = re.compile(r"(blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12])|norm)\.(weight|bias)$")
_TAKEN = re.compile(
    rf"{_PLAIN.pattern}|patch_embed\.proj\.(weight|bias)$|(cls_token|dist_token|pos_embed)$"
)
# Heads and decoders may be left out; what stands before or in the blocks may not.
_NEEDED = re.compile(r"(blocks|encoder|layers|patch_embed|embeddings|norm_pre|reg_token)(\.|$)")


class _Table(NamedTuple):
    """Learned or fixed positions of patches."""

    rows: int
    columns: int
    values: Tensor
    """One vector per patch, frequency-major."""
    turned: bool
    """Whether they came time-major, and so did the kernel's pixels."""


class TimmViT(WeightFormat):
    """A plain pre-norm ViT: ``patch_embed.proj``, ``blocks.N.attn.qkv``, ``cls_token``, ``dist_token``, ``pos_embed``.

    The kernel's colours are summed or averaged; positions are resized to the encoder's grid. An encoder of two class
    tokens is given the class token twice where there is no distillation token; one of fewer leaves the others out. One
    of fixed positions leaves the file's out, but those of its class tokens, which are added to them. Heads and decoders
    are left out. AudioMAE numbers its patches column by column, as its table of fixed sines tells: its kernel is
    transposed then, and the table put into our order.

    Source: the names of timm's vision_transformer; colours and positions as in Gong et al. 2021 (arXiv 2104.01778),
    section 2.2, and the published code.
    """

    family = "a ViT under timm's names"
    encoder = "vit"

    def recognises(self, keys: Set[str]) -> bool:
        """Return whether there are timm's patch projection and blocks."""
        return {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= keys

    def renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors under timm's names; what timm has no name for keeps its own."""
        return dict(state)

    def convert(
        self, state: Mapping[str, Tensor], encoder: ViT, channels: Channels, how: Resize
    ) -> Converted:
        """Return the weights as a :class:`ViT` takes them; see :meth:`WeightFormat.convert`."""
        state = self.renamed(state)
        _check_blocks(state, encoder)
        table = _table(state, encoder)
        found = {_ours(key): value for key, value in state.items() if _PLAIN.match(key)}
        notes: list[str] = []
        for part in (
            _projection(state, encoder, channels, table is not None and table.turned),
            _class_tokens(state, encoder),
            _positions(table, encoder, how),
            _own(state, encoder),
        ):
            found |= part.state
            notes += part.notes
        left = sorted({key.split(".")[0] for key in state if not _TAKEN.match(key)})
        return Converted(found, [*notes, f"left out: {', '.join(left)}"] if left else notes)


def _ours(key: str) -> str:
    return f"transformer.{key.replace('mlp.fc1', 'mlp.0').replace('mlp.fc2', 'mlp.2')}"


def _check_blocks(state: Mapping[str, Tensor], encoder: ViT) -> None:
    """Raise a ConfigError unless the blocks are such as the encoder has, as many and as wide."""
    strange = next((key for key in state if _NEEDED.match(key) and not _TAKEN.match(key)), None)
    if strange:
        raise ConfigError(
            f"{strange} has no place in a plain ViT; give the weights of one without such a part"
        )
    config = encoder.config
    if config.norm != "pre":
        raise ConfigError(
            f"encoder.norm = {config.norm!r}; allowed: 'pre', as the blocks of these weights"
        )
    width = len(state["patch_embed.proj.weight"])
    depth = 1 + max(
        int(key.split(".")[1]) for key in state if _PLAIN.match(key) and key.startswith("blocks.")
    )
    if (width, depth) != (config.embed_dim, config.depth):
        named = [
            name
            for name, size in SIZES.items()
            if (size["embed_dim"], size["depth"]) == (width, depth)
        ]
        flags = (
            f"--size {named[0]}"
            if named
            else f"--encoder.embed-dim {width} --encoder.depth {depth}"
        )
        raise ConfigError(
            f"width {width} and {depth} blocks, but the encoder has width {config.embed_dim} and {config.depth} "
            f"blocks; use {flags}"
        )
    hidden = len(state["blocks.0.mlp.fc1.bias"])
    if hidden != int(width * config.mlp_ratio):
        raise ConfigError(
            f"MLPs {hidden} wide, but the encoder's are not; use --encoder.mlp-ratio {hidden / width:g}"
        )


def _table(state: Mapping[str, Tensor], encoder: ViT) -> _Table | None:
    """Return the positions of the patches, or None where the file has none, or none that the encoder's grid explains
    and the encoder needs none."""
    if "pos_embed" not in state:
        return None
    values = state["pos_embed"][0, len(_names(state)) :]
    kernel = state["patch_embed.proj.weight"]
    rows = encoder.grid.rows
    if kernel.shape[1] > 1:  # an image model
        rows = math.isqrt(len(values))
    elif "p_input_fdim" in state:  # SSAST says what it was made for
        rows = int(state["p_input_fdim"]) // kernel.shape[2]
    if len(values) % rows or (kernel.shape[1] > 1 and len(values) != rows**2):
        if encoder.position_table is None:
            return None
        raise ConfigError(
            f"{len(values)} positions do not make {rows} rows; use the stride that the weights were trained with "
            "(--encoder.stride), or --encoder.positions sincos to leave them out"
        )
    columns = len(values) // rows
    if _by_columns(values, rows, columns):
        return _Table(
            rows,
            columns,
            values.reshape(columns, rows, -1).transpose(0, 1).flatten(0, 1),
            turned=True,
        )
    return _Table(rows, columns, values, turned=False)


def _by_columns(values: Tensor, rows: int, columns: int) -> bool:
    """Return whether fixed sines number the patches column by column: half of the channels tell the row, half the
    column, so that one half stays the same along the first row, or else down the first column."""
    along, down = (
        any(bool((half == half[0]).all()) for half in values[:n].chunk(2, dim=1))
        for n in (columns, rows)
    )
    return rows > 1 and down and not along


def _projection(
    state: Mapping[str, Tensor], encoder: ViT, channels: Channels, turned: bool
) -> Converted:
    kernel = state["patch_embed.proj.weight"]
    colours = kernel.shape[1]
    kernel = kernel.sum(dim=1) if channels == "sum" else kernel.mean(dim=1)
    kernel = kernel.transpose(1, 2) if turned else kernel
    patch = (kernel.shape[1], kernel.shape[2])
    if patch != encoder.grid.patch:
        raise ConfigError(
            f"patches of {patch[0]} x {patch[1]}, but the encoder's are {encoder.grid.patch[0]} x "
            f"{encoder.grid.patch[1]}; use --encoder.patch {patch[0]} {patch[1]}"
        )
    notes = (
        [f"{colours} colours {'summed' if channels == 'sum' else 'averaged'}"]
        if colours > 1
        else []
    )
    return Converted(
        {"projection.weight": kernel.flatten(1), "projection.bias": state["patch_embed.proj.bias"]},
        notes,
    )


def _names(state: Mapping[str, Tensor]) -> list[str]:
    return [name for name in ("cls_token", "dist_token") if name in state]


def _class_tokens(state: Mapping[str, Tensor], encoder: ViT) -> Converted:
    wanted, names = encoder.config.cls_tokens, _names(state)
    if not wanted:
        return Converted({}, [])
    if not names:
        kept = {
            name: value for name, value in encoder.state_dict().items() if name.startswith("cls_")
        }
        return Converted(kept, ["no class token in it, so that of the encoder starts afresh"])
    chosen = [min(number, len(names) - 1) for number in range(wanted)]
    tokens = torch.cat([state[name][0] for name in names])[chosen]
    positions = state["pos_embed"][0, chosen] if "pos_embed" in state else torch.zeros_like(tokens)
    notes = ["class token taken twice"] if wanted > len(names) else []
    if encoder.cls_position is None:
        return Converted({"cls_token": tokens + positions}, notes)
    return Converted({"cls_token": tokens, "cls_position": positions}, notes)


def _positions(table: _Table | None, encoder: ViT, how: Resize) -> Converted:
    if encoder.position_table is None:
        same = table is not None and table.rows == encoder.grid.rows
        if (
            table
            and same
            and torch.allclose(table.values.float(), encoder.positions(table.columns), atol=1e-4)
        ):
            return Converted({}, [])
        return Converted(
            {}, ["positions left out for the fixed ones (--encoder.positions learned takes them)"]
        )
    if table is None:
        raise ConfigError("holds no positions; use --encoder.positions sincos")
    old, new = (table.rows, table.columns), (encoder.grid.rows, encoder.config.columns)
    notes = (
        [f"positions {old[0]} x {old[1]} fitted to {new[0]} x {new[1]} ({how})"]
        if old != new
        else []
    )
    return Converted({"position_table": resize(table.values, old, new, how)}, notes)


def _own(state: Mapping[str, Tensor], encoder: ViT) -> Converted:
    """Return what the encoder keeps: the statistics of its input, and its final norm where the weights have none."""
    prefixes = ("input_norm.",) if "norm.weight" in state else ("input_norm.", "transformer.norm.")
    kept = {
        name: value for name, value in encoder.state_dict().items() if name.startswith(prefixes)
    }
    notes = (
        []
        if "norm.weight" in state
        else ["no final norm in it, so that of the encoder starts afresh"]
    )
    return Converted(kept, notes)
