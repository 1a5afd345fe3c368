"""Vision transformer on spectrogram patches, the encoder of SSAST, ASiT, MAE-AST and others."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from melpatch.config import check
from melpatch.encoders.base import (
    MOST_LAYERS,
    Encoded,
    Encoder,
    EncoderConfig,
    TokenEncoder,
    valid_frames,
)
from melpatch.errors import ConfigError
from melpatch.nn.batch_norm import MaskedBatchNorm
from melpatch.nn.grid import PatchGrid, Places
from melpatch.nn.pooling import LayerOutputs
from melpatch.nn.positions import Resize, resize, sequence, sincos
from melpatch.nn.transformer import NORM_EPS, Norm, OuterNorm, Transformer, init_xavier


class Size(TypedDict):
    """The three numbers that make a ViT large or small."""

    embed_dim: int
    depth: int
    num_heads: int


Positions = Literal["sincos", "sincos_mae", "sequence", "interleaved", "learned", "stretched"]
_WIDEST_MLP = 1000  # times embed_dim
SIZES: dict[str, Size] = {
    "nano": {"embed_dim": 96, "depth": 4, "num_heads": 3},
    "mini": {"embed_dim": 192, "depth": 4, "num_heads": 3},
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}
"""Tiny, small and base as in DeiT (Touvron et al. 2021, arXiv 2012.12877, table 1), large as in ViT
(Dosovitskiy et al. 2021, arXiv 2010.11929, table 1); nano and mini are ours."""


class ViT(TokenEncoder):
    """A ViT of any size on patches of any shape; padded tokens never influence valid ones.

    >>> encoder = ViT(size="tiny")  # 128 mels, or ViT(config, n_mels)
    >>> patches, cls, _ = encoder(torch.zeros(2, 128, 1000))  # (clip, mel, frame)
    >>> patches.shape, cls.shape
    (torch.Size([2, 504, 192]), torch.Size([2, 1, 192]))

    Special tokens ("cls") are learned vectors that :meth:`encode_tokens` puts in front of the
    patches. With learned positions, each has a position vector of its own.

    Unless ``init`` says otherwise, the patch projection starts as torch initialises a linear layer,
    as does timm's convolution; cls tokens and learned positions start truncated-normal with
    standard deviation 0.02 (published SSAST).

    *Differs:* published SSAST stretches or crops its position table to one fixed length; here a
    shorter grid takes the first columns, so that a clip's result does not depend on the other clips
    of its batch, and a longer grid needs :meth:`resize_positions` or sine-cosine positions.
    Stretched positions are those of ASiT as published in 2024: the table spans the grid of each
    batch, so that a clip's result does depend on the length of its batch.

    Args:
        config: the settings; None for those of ``size``, or the defaults.
        n_mels: mel bins of the spectrograms.
        size: nano, mini, tiny, small, base or large, instead of a config.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(EncoderConfig):
        """Settings of a ViT."""

        embed_dim: int = 192
        """Channels of a token."""
        depth: int = 12
        """Number of transformer blocks."""
        num_heads: int = 3
        """Attention heads; must divide embed_dim."""
        mlp_ratio: float = 4.0
        """Hidden width of the MLPs, as a multiple of embed_dim."""
        patch: tuple[int, int] = (16, 16)
        """Patch size (mels, frames)."""
        stride: tuple[int, int] | None = None
        """Distance between the starts of neighbouring patches (mels, frames); none: the patch size,
        so no overlap."""
        partial: Literal["pad", "drop"] = "pad"
        """Bins and frames left over at the end: "pad" completes their patch with zeros, "drop"
        ignores them."""
        cls_tokens: int = 1
        """Number of special tokens: 0, 1 (cls) or 2 (cls and distillation token, as in AST and
        SSAST)."""
        positions: Positions = "sincos"
        """Position embedding. The first four are fixed and fit any length: "sincos" encodes row and
        column in half of the channels each, "sincos_mae" the column in the first half (published
        MAE, MaskSpec); "sequence" numbers the patches in the order of time, "interleaved" too, with
        sine and cosine in turn (published MAE-AST). "learned" is a table of which shorter clips
        take the first columns, "stretched" a table that is stretched to the length of each batch
        (ASiT as published in 2024)."""
        columns: int = 64
        """Length of the learned position table, in patches along time; unused with fixed
        positions."""
        drop_path: float = 0.0
        """Probability that a clip skips a branch of the last block in training; linear from 0 in
        the first."""
        init: Literal["timm", "mae"] = "timm"
        """Initial linear weights: "timm" is truncated-normal with standard deviation 0.02, and
        torch's default in the patch projection (timm, SSAST); "mae" is Xavier-uniform throughout,
        which is larger in narrow encoders."""
        norm: Norm = "pre"
        """Where the blocks normalise: "pre" as in ViT, or "post" as in BERT (and published
        MAE-AST)."""
        outer_norm: OuterNorm | None = None
        """Place of the LayerNorm beside the blocks: "before" (published AudioMosaic) or "after"
        them; none: after pre-norm blocks, before post-norm ones."""
        patch_norm: bool = False
        """Whether a LayerNorm follows the patch projection (published AudioMosaic)."""
        norm_eps: float = NORM_EPS
        """Epsilon of every LayerNorm: 1e-6 as in timm, 1e-12 in Hugging Face's ViT and AST, 1e-5 in
        MAE-AST; weights in --init set their own."""
        dropout: float = 0.0
        """Probability that a channel is dropped in training, from the tokens and from each branch
        of a block."""
        input_norm: Literal["none", "batch"] = "none"
        """"none" takes spectrograms as the front end returns them; "batch" brings them to mean 0
        and std 0.5 by the batch's statistics in training and running averages in use (published
        MAE-AST)."""
        checkpointing: bool = False
        """Recompute activations in the backward pass: less memory, about a third more time."""

        def __post_init__(self) -> None:
            check(self.embed_dim >= 1, "embed_dim", self.embed_dim, "1 or more")
            check(1 <= self.depth <= MOST_LAYERS, "depth", self.depth, f"1 to {MOST_LAYERS}")
            divides = self.num_heads >= 1 and self.embed_dim % self.num_heads == 0
            allowed = f"a divisor of embed_dim = {self.embed_dim}"
            check(divides, "num_heads", self.num_heads, allowed)
            fits = 0 < self.mlp_ratio <= _WIDEST_MLP
            check(fits, "mlp_ratio", self.mlp_ratio, f"more than 0, at most {_WIDEST_MLP}")
            check(self.cls_tokens in (0, 1, 2), "cls_tokens", self.cls_tokens, "0, 1 or 2")
            known = get_args(Positions)
            check(self.positions in known, "positions", self.positions, ", ".join(known))
            fits = self.learned or self.embed_dim % 4 == 0
            check(fits, "embed_dim", self.embed_dim, "a multiple of 4, or positions = 'learned'")
            check(self.columns >= 1, "columns", self.columns, "1 or more")
            for name in ("drop_path", "dropout"):
                value = getattr(self, name)
                check(0.0 <= value < 1.0, name, value, "from 0 up to, not including, 1")
            check(0.0 < self.norm_eps <= 1e-3, "norm_eps", self.norm_eps, "above 0, up to 0.001")
            self.grid(self.patch[0])

        @classmethod
        def of_size(cls, size: str, **settings: Any) -> "ViT.Config":
            """Return the settings of a size in :data:`SIZES`; see :meth:`EncoderConfig.of_size`."""
            check(size in SIZES, "size", size, ", ".join(SIZES))
            return cls(**{**SIZES[size], **settings})

        @property
        def learned(self) -> bool:
            """Whether positions are a learned table."""
            return self.positions in ("learned", "stretched")

        def grid(self, n_mels: int) -> PatchGrid:
            """Return the patch grid on this many mel bins."""
            stride = self.stride or self.patch
            return PatchGrid(n_mels=n_mels, patch=self.patch, stride=stride, partial=self.partial)

        def fit_positions(self, n_mels: int, frames: int) -> "ViT.Config":
            """Return the settings with a learned table for as many columns as the input has."""
            if not self.learned:
                return self
            return replace(self, columns=self.grid(n_mels).columns(frames))

        def with_recipe(self, recipe: EncoderConfig) -> "ViT.Config":
            """Return these settings with a recipe's stride, stretched positions and drop path."""
            if not isinstance(recipe, ViT.Config):
                return self
            changes: dict[str, Any] = {"drop_path": recipe.drop_path or self.drop_path}
            if recipe.stride is not None:
                allowed = (
                    f"{recipe.patch}, which this recipe's stride is for; take a --recipe for the "
                    "patches of the run"
                )
                check(self.patch == recipe.patch, "encoder.patch", self.patch, allowed)
                changes |= {"stride": recipe.stride, "partial": recipe.partial}
            if recipe.positions == "stretched" and self.learned:
                changes["positions"] = "stretched"
            return replace(self, **changes)

    config: Config
    cls_token: nn.Parameter | None
    cls_position: nn.Parameter | None
    position_table: nn.Parameter | None

    def __init__(
        self, config: Config | None = None, n_mels: int = 128, *, size: str | None = None
    ) -> None:
        super().__init__()
        config = self.resolve(config, size)
        self.config = config
        self.grid = config.grid(n_mels)
        self.embed_dim = config.embed_dim
        self.num_layers = config.depth
        self.num_cls_tokens = config.cls_tokens
        self.projection = nn.Linear(self.grid.pixels, config.embed_dim)
        self.patch_norm = None
        if config.patch_norm:
            self.patch_norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.cls_token = _table(config.cls_tokens, config.embed_dim)
        self.cls_position = None
        self.position_table = None
        if config.learned:
            self.cls_position = _table(config.cls_tokens, config.embed_dim)
            self.position_table = _table(self.grid.rows * config.columns, config.embed_dim)
        self.transformer = Transformer(
            config.embed_dim,
            config.depth,
            config.num_heads,
            config.mlp_ratio,
            config.drop_path,
            config.checkpointing,
            config.norm,
            config.dropout,
            config.norm_eps,
            config.outer_norm,
        )
        if config.init == "mae":
            self.apply(init_xavier)
        self.dropout = nn.Dropout(config.dropout)
        self.input_norm = None
        if config.input_norm == "batch":
            self.input_norm = MaskedBatchNorm(1, affine=False)

    @property
    def length_dependent(self) -> bool:
        """Whether positions are stretched to the length of each batch."""
        return self.config.positions == "stretched"

    def ordered_layers(self) -> Sequence[nn.Module]:
        """Return the transformer blocks."""
        return [*self.transformer.blocks]

    def final_layers(self) -> Sequence[nn.Module]:
        """Return the transformer's LayerNorm, which post-norm blocks have before them."""
        return [self.transformer.norm]

    def learned_tokens(self) -> Set[str]:
        """Return the names of special tokens and learned positions."""
        return {"cls_token", "cls_position", "position_table"}

    def normalise(
        self, spectrogram: Float[Tensor, "clip mel frame"], frames: Int[Tensor, " clip"] | None
    ) -> Float[Tensor, "clip mel frame"]:
        """Return the spectrograms with mean 0 and std 0.5, or unchanged; see ``input_norm``."""
        if self.input_norm is None:
            return spectrogram
        valid = valid_frames(spectrogram, frames)
        normalised: Tensor = self.input_norm(spectrogram[:, None], valid)
        return 0.5 * normalised[:, 0]

    def embed(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip token dim"]:
        """Return the projected patches, without positions."""
        projected: Tensor = self.projection(self.grid.split(spectrogram))
        return projected if self.patch_norm is None else self.patch_norm(projected)

    def positions(self, columns: int) -> Float[Tensor, "token dim"]:
        """Return the position embedding of a grid with this many columns.

        Raises:
            ConfigError: the learned table is shorter than that, and is not to be stretched.
        """
        table = self.position_table
        if table is None:
            return self.fixed_positions(columns, self.projection.weight.device)
        rows, length = self.grid.rows, self.config.columns
        if self.length_dependent and columns != length:
            return resize(table, (rows, length), (rows, columns), "bicubic")
        if columns > length:
            raise ConfigError(
                f"columns = {columns} patches along time; allowed: up to {length}, the learned "
                f"positions; cut the clips, call resize_positions({columns}), or use other positions"
            )
        return table.view(rows, -1, self.embed_dim)[:, :columns].flatten(0, 1)

    def fixed_positions(self, columns: int, device: torch.device) -> Float[Tensor, "token dim"]:
        """Return the positions of an encoder that learns none, which depend on no weights."""
        grid = self.grid
        # In units of a patch, so that a place keeps its vector when fine-tuning takes another
        # stride.
        step = (grid.stride[0] / grid.patch[0], grid.stride[1] / grid.patch[1])
        kind = self.config.positions
        size = (grid.rows, columns, self.embed_dim)
        if kind in ("sincos", "sincos_mae"):
            return sincos(*size, device, step, "row" if kind == "sincos" else "column")
        height = replace(grid, stride=grid.patch).rows
        return sequence(*size, device, step, height, interleaved=kind == "interleaved")

    def encode_tokens(
        self,
        tokens: Float[Tensor, "clip token dim"],
        valid: Bool[Tensor, "clip token"] | None = None,
        layers: LayerOutputs = False,
        places: Places | None = None,
    ) -> Encoded:
        """Transform any subset of tokens, which hold their places, with the cls tokens in front."""
        count = self.num_cls_tokens
        transformer = self.transformer
        output, outputs = transformer(*self._with_cls(tokens, valid), bool(layers))
        if layers == "normed" and transformer.norm_last:
            outputs = tuple(map(transformer.norm, outputs))
        return Encoded(output[:, count:], output[:, :count], outputs)

    def mlp_outputs(
        self,
        tokens: Float[Tensor, "clip token dim"],
        valid: Bool[Tensor, "clip token"] | None = None,
    ) -> tuple[Tensor, ...]:
        """Return the MLP's output of every block, (clip, token, dim) without cls tokens."""
        outputs = self.transformer.mlp_outputs(*self._with_cls(tokens, valid))
        return tuple(output[:, self.num_cls_tokens :] for output in outputs)

    def least_values(self, tokens: int) -> int:
        """Return how many numbers a clip keeps at least for the backward pass."""
        return self.transformer.least_values(tokens + self.num_cls_tokens)

    def _with_cls(
        self, tokens: Float[Tensor, "clip token dim"], valid: Bool[Tensor, "clip token"] | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return tokens with the cls tokens in front, and which may be attended to."""
        if self.cls_token is not None:
            cls: Tensor = self.cls_token
            if self.cls_position is not None:
                cls = cls + self.cls_position
            tokens = torch.cat(
                [cls.to(tokens.dtype).expand(tokens.shape[0], -1, -1), tokens], dim=1
            )
            if valid is not None:
                valid = F.pad(valid, (self.num_cls_tokens, 0), value=True)
        return self.dropout(tokens), valid

    def match_geometry(self, target: Encoder, how: Resize | None = None) -> None:
        """Resize learned positions to another ViT's grid; see :meth:`Encoder.match_geometry`.

        By default a table that was, or will be, stretched to each batch is stretched here too
        (bicubic); another one is cropped, or stretched (bilinear) where the stride changes.
        """
        if not isinstance(target, ViT) or target.position_table is None:
            return
        if how is None and (self.length_dependent or target.length_dependent):
            how = "bicubic"
        elif how is None:
            how = "crop" if self.grid.stride == target.grid.stride else "bilinear"
        self.resize_positions(target.config.columns, how, target.grid)

    def resize_positions(
        self, columns: int, how: Resize = "bilinear", grid: PatchGrid | None = None
    ) -> None:
        """Change the learned position table's length and grid; build the optimizer after this.

        Args:
            columns: patches along time that the new table holds.
            how: see :func:`melpatch.nn.positions.resize`.
            grid: the new geometry (another stride, other mels); None keeps the present one.

        Raises:
            ConfigError: the new grid has another patch size, for which the projection has no
                weights.
        """
        grid = grid or self.grid
        allowed = f"{self.grid.patch}, the size the weights were trained for"
        check(grid.patch == self.grid.patch, "patch", grid.patch, allowed)
        table = self.position_table
        if table is not None:
            old = (self.grid.rows, self.config.columns)
            resized = resize(table.detach(), old, (grid.rows, columns), how).contiguous()
            self.position_table = nn.Parameter(resized, requires_grad=table.requires_grad)
        self.grid = grid
        self.config = replace(
            self.config, columns=columns, stride=grid.stride, partial=grid.partial
        )


def _table(count: int, dim: int) -> nn.Parameter | None:
    """Return learned vectors, or None for none, since sharding does not take an empty parameter."""
    if count == 0:
        return None
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(count, dim), std=0.02))
