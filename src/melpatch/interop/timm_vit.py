"""Weights of vision transformers with timm's names: ViT, DeiT, MAE, and what they became for audio."""

import math
import re
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.encoders.vit import SIZES, Positions, ViT
from melpatch.errors import ConfigError
from melpatch.interop.base import Axes, Converted, Published, Reading, WeightFormat, left_out
from melpatch.interop.timm_positions import (
    State,
    class_token_names,
    convert_positions,
    geometry_of,
    patch_positions,
    table_of,
)
from melpatch.nn.position_tables import Geometry, Half, fixed_half
from melpatch.nn.positions import Resize
from melpatch.nn.transformer import NORM_EPS, Norm
from melpatch.rng import seeded
from melpatch.weight_files import Weights

_PLAIN = re.compile(r"(blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12])|norm)\.(weight|bias)$")
_TAKEN = re.compile(
    rf"{_PLAIN.pattern}|patch_embed\.proj\.(weight|bias)$|(cls_token|dist_token|pos_embed)$"
)
# Heads and decoders may be left out; a part before or in the blocks changes what they compute.
_NEEDED = re.compile(r"(blocks|encoder|layers|patch_embed|embeddings|norm_pre|reg_token)(\.|$)")
_HEAD_CHANNELS = 64  # of every published ViT up to ViT-L
_POSITIONS: dict[Half | None, Positions] = {
    "column": "sincos_mae",
    "row": "sincos",
    None: "learned",
}


class TimmViT(WeightFormat):
    """A plain pre-norm ViT with timm's names, such as ``blocks.0.attn.qkv`` and ``pos_embed``.

    - The kernel's colour channels are summed or averaged.
    - Positions are resized to the encoder's grid. An encoder with fixed positions keeps its own;
      the file's positions of class tokens are then added to these tokens.
    - An encoder with two class tokens gets the class token twice if there is no distillation token;
      an encoder with fewer leaves the others out.
    - A kernel over (frame, mel) is transposed, and its time-major table reordered.
    - Heads and decoders are left out.

    A file with one colour may have either axis first, which its tensors do not say: a family with
    these names has a file of its own here, which knows its axes.

    Source: the names of timm's vision_transformer; colours and positions as in Gong et al. 2021
    (arXiv 2104.01778), section 2.2, and the published code.

    Attributes:
        norm: where the blocks of the family normalise.
        partial: what becomes of bins and frames that do not fill a patch.
        resizing: how its positions are resized unless the user says otherwise; "legacy" is AST's.
    """

    family = "a ViT under timm's names"
    encoder = "vit"
    files = "ViT and DeiT of timm, MAE of images"
    needs = "with one colour, --init-axes; unusual widths, --encoder.num-heads"
    licence = "Apache-2.0 (timm, DeiT); CC BY-NC 4.0 (MAE)"
    norm: ClassVar[Norm] = "pre"
    partial: ClassVar[Literal["pad", "drop"]] = "drop"
    resizing: ClassVar[Resize] = "legacy"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether the keys hold timm's patch projection and blocks."""
        return {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= weights.state.keys()

    def renamed(self, weights: Weights) -> dict[str, Tensor]:
        """Return the tensors under timm's names; those that timm does not have keep their own."""
        return dict(weights.state)

    def norm_eps(self, weights: Weights) -> float:
        """Return the epsilon of the LayerNorms, which no tensor holds."""
        return NORM_EPS

    def num_heads(self, weights: Weights, width: int, reading: Reading) -> int:
        """Return the number of attention heads, which no tensor holds.

        Raises:
            ConfigError: it is not known for this width.
        """
        if reading.num_heads is not None:
            return reading.num_heads
        for size in SIZES.values():
            if size["embed_dim"] == width:
                return size["num_heads"]
        if width % _HEAD_CHANNELS == 0:
            return width // _HEAD_CHANNELS
        raise ConfigError(
            f"width {width} is not a published one, and no tensor tells the attention heads; "
            "give --encoder.num-heads (to melpatch import, --num-heads)"
        )

    def geometry(self, weights: Weights, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches lie; None if the weights do not say it.

        Raises:
            ConfigError: the axes of the kernel are not known.
        """
        if state["patch_embed.proj.weight"].shape[1] == 1:
            return self.one_colour_geometry(state, reading)
        # Models of images are trained on squares.
        patches = patch_positions(state)
        side = math.isqrt(0 if patches is None else len(patches))
        if patches is None or side * side != len(patches):
            return None
        return Geometry(side, side, None, None, reading.axes == "frame_mel")

    def one_colour_geometry(self, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches of a model of spectrograms lie, whose axes the user must say."""
        if reading.axes is None:
            raise ConfigError(
                "one colour, but no tensor tells whether the kernel of patch_embed.proj.weight "
                "spans (mel, frame) or (frame, mel); give --init-axes mel_frame or frame_mel"
            )
        return None

    def front_end(self, weights: Weights, geometry: Geometry | None) -> LogMel.Config | None:
        """Return front end and statistics; None for models of images."""
        return None

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`."""
        state = self.renamed(weights)
        geometry = self.geometry(weights, state, reading)
        width = len(state["patch_embed.proj.weight"])
        settings: dict[str, Any] = {
            "embed_dim": width,
            "depth": depth_of(state),
            "num_heads": self.num_heads(weights, width, reading),
            "mlp_ratio": len(state["blocks.0.mlp.fc1.bias"]) / width,
            "patch": _patch(state, geometry),
            "cls_tokens": len(class_token_names(state)),
            "norm": self.norm,
            "norm_eps": self.norm_eps(weights),
        }
        if "pos_embed" in state:
            settings["positions"] = "learned"
        if geometry is not None and geometry.stride is not None:
            settings |= {"stride": geometry.stride, "partial": self.partial}
            settings["columns"] = geometry.columns
        table = table_of(state, geometry)
        if geometry is not None and table is not None:
            # Fixed positions fit any length; the class token's, if it has one, is added to it.
            first = fixed_half(table, geometry, settings["patch"])
            settings["positions"] = _POSITIONS[first]
        encoder = ViT.Config(**settings)
        return Published(encoder, self.front_end(weights, geometry))

    def convert(self, weights: Weights, encoder: ViT, reading: Reading) -> Converted:
        """Return the weights converted for a :class:`ViT`; see :meth:`WeightFormat.convert`."""
        state = self.renamed(weights)
        _check_blocks(state, encoder, self.norm)
        geometry = self.geometry(weights, state, reading)
        if geometry is None and "pos_embed" in state:
            geometry = geometry_of(encoder, state, reading)
        table = table_of(state, geometry)
        parts = (
            _convert_blocks(state),
            _convert_projection(state, encoder, reading, geometry),
            _convert_class_tokens(state, encoder),
            convert_positions(geometry, table, encoder, reading.how or self.resizing),
            _kept_parts(state, encoder),
            _compared_epsilon(self.norm_eps(weights), encoder),
        )
        converted: dict[str, Tensor] = {}
        notes: list[str] = []
        for part in parts:
            converted |= part.state
            notes += part.notes
        unused = {key.split(".")[0] for key in state if not _TAKEN.match(key)}
        return Converted(converted, notes + left_out(unused))


def has_one_colour(weights: Weights) -> bool:
    """Return whether weights have timm's names, and a kernel over one channel."""
    kernel = weights.state.get("patch_embed.proj.weight")
    named = "blocks.0.attn.qkv.weight" in weights.state
    return named and kernel is not None and kernel.ndim == 4 and kernel.shape[1] == 1


def depth_of(state: State) -> int:
    """Return the number of blocks."""
    blocks = [key for key in state if _PLAIN.match(key) and key.startswith("blocks.")]
    return 1 + max(int(key.split(".")[1]) for key in blocks)


def _patch(state: State, geometry: Geometry | None) -> tuple[int, int]:
    """Return the size of a patch (mels, frames)."""
    height, width = state["patch_embed.proj.weight"].shape[2:]
    if geometry is not None and geometry.time_major:
        return width, height
    return height, width


def _check_blocks(state: State, encoder: ViT, norm: Norm) -> None:
    """Raise ConfigError unless the blocks are plain, and of the encoder's number and width."""
    for key in state:
        if _NEEDED.match(key) and not _TAKEN.match(key):
            raise ConfigError(
                f"{key} has no place in a plain ViT; give the weights of a ViT without it"
            )
    config = encoder.config
    if config.norm != norm:
        raise ConfigError(
            f"encoder.norm = {config.norm!r}; allowed: {norm!r}, as in the blocks of these weights"
        )
    width = len(state["patch_embed.proj.weight"])
    depth = depth_of(state)
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


def _convert_blocks(state: State) -> Converted:
    """Return the blocks and the final norm under the names of :class:`ViT`."""
    blocks = {}
    for key, value in state.items():
        if _PLAIN.match(key):
            name = key.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.2")
            blocks[f"transformer.{name}"] = value
    return Converted(blocks, [])


def _convert_projection(
    state: State, encoder: ViT, reading: Reading, geometry: Geometry | None
) -> Converted:
    """Return the patch projection as a linear layer over the pixels of a patch.

    Raises:
        ConfigError: the patches are not of the encoder's size.
    """
    kernel = state["patch_embed.proj.weight"]
    colours = kernel.shape[1]
    # A grey image has the same values in all colours: sum_c w_c x = (sum_c w_c) x.
    kernel = kernel.sum(dim=1) if reading.channels == "sum" else kernel.mean(dim=1)
    time_major = reading.axes == "frame_mel" if geometry is None else geometry.time_major
    if time_major:
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
        notes.append(f"{colours} colours {merged[reading.channels]}")
    projection = {
        "projection.weight": kernel.flatten(1),
        "projection.bias": state["patch_embed.proj.bias"],
    }
    return Converted(projection, notes)


def _convert_class_tokens(state: State, encoder: ViT) -> Converted:
    """Return the class tokens and their positions, for as many tokens as the encoder has."""
    count = encoder.config.cls_tokens
    names = class_token_names(state)
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


def _compared_epsilon(published: float, encoder: ViT) -> Converted:
    """Return a note if the encoder's LayerNorms have another epsilon than the weights'."""
    own = encoder.config.norm_eps
    if own == published:
        return Converted({}, [])
    flag = f"--encoder.norm-eps {published:g}"
    note = f"LayerNorm epsilon {own:g} instead of the weights' {published:g} ({flag} takes it)"
    return Converted({}, [note])


def _kept_parts(state: State, encoder: ViT) -> Converted:
    """Return the parts that the encoder keeps.

    These are the statistics of its input, and its final norm if the weights have none.
    """
    if "norm.weight" in state:
        return Converted(_own_state(encoder, ("input_norm.",)), [])
    note = "no final norm in it, so the encoder keeps its own"
    return Converted(_own_state(encoder, ("input_norm.", "transformer.norm.")), [note])


def _own_state(encoder: ViT, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the encoder's own tensors whose names start with one of the prefixes.

    Of an encoder that was built without weights they are those of another one of its settings.
    """
    state: dict[str, Tensor] = encoder.state_dict()
    own = {name: value for name, value in state.items() if name.startswith(prefixes)}
    if not any(value.is_meta for value in own.values()):
        return own
    with seeded(0, "weights"):
        return _own_state(ViT(encoder.config, encoder.grid.n_mels), prefixes)
