"""Vision transformer on spectrogram patches: the encoder of SSAST, ASiT, MAE-AST and most others."""

from dataclasses import dataclass, replace
from typing import Literal, TypedDict

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from melpatch.config import check
from melpatch.encoders.base import Encoded, TokenEncoder, valid_frames
from melpatch.errors import ConfigError
from melpatch.nn.batch_norm import MaskedBatchNorm
from melpatch.nn.grid import PatchGrid
from melpatch.nn.positions import Resize, resize, sequence, sincos
from melpatch.nn.transformer import Norm, Transformer, init_xavier


class Size(TypedDict):
    """The three numbers that make a ViT large or small."""

    embed_dim: int
    depth: int
    num_heads: int


SIZES: dict[str, Size] = {
    "nano": {"embed_dim": 96, "depth": 4, "num_heads": 3},
    "mini": {"embed_dim": 192, "depth": 4, "num_heads": 3},
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
}


def size(name: str) -> Size:
    """Return the settings of a named size, to be written ``ViT.Config(**size("tiny"))``.

    Source: tiny, small and base as in DeiT (Touvron et al. 2021, arXiv 2012.12877, table 1); nano and mini are ours.
    """
    check(name in SIZES, "size", name, ", ".join(SIZES))
    return SIZES[name]


class ViT(TokenEncoder):
    """A ViT of any size on patches of any shape; padded tokens never influence valid ones.

    Special tokens ("cls") are learned vectors that :meth:`encode_tokens` puts in front of the patches. With learned
    positions, each has a position vector of its own.

    Unless told otherwise, the patch projection starts as torch initialises a linear layer, which is what timm leaves
    its convolution at; cls tokens and learned positions start truncated-normal with standard deviation 0.02 (published
    SSAST).

    *Differs:* published SSAST stretches or crops its position table to one fixed length; here a shorter grid takes the
    first columns, so that a clip's result does not depend on its neighbours, and a longer one needs
    :meth:`resize_positions` or sine-cosine positions. Stretched positions are those of ASiT as published in 2024: the
    table spans whatever grid a batch has, so that a clip's result does depend on the length of its batch.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
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
        """Distance between the starts of neighbouring patches (mels, frames); none: the patch size, so no overlap."""
        partial: Literal["pad", "drop"] = "pad"
        """Bins and frames left over at the end: "pad" completes their patch with zeros, "drop" ignores them."""
        cls_tokens: int = 1
        """Number of special tokens: 0, 1 (cls) or 2 (cls and distillation token, as in AST and SSAST)."""
        positions: Literal["sincos", "sequence", "learned", "stretched"] = "sincos"
        """Position embedding: "sincos" is fixed and fits any length, "sequence" too, but numbers the patches in the
        order of time (as published MAE-AST); "learned" is a table of which shorter clips take the first columns,
        "stretched" one that is stretched to each batch's length (as published ASiT of 2024)."""
        columns: int = 64
        """Length of the learned position table, in patches along time; unused with fixed positions."""
        drop_path: float = 0.0
        """Probability that a clip skips a branch of the last block in training; linear from 0 in the first."""
        init: Literal["timm", "mae"] = "timm"
        """What linear weights start as: truncated-normal numbers of deviation 0.02, in the projection torch's own, as
        timm and SSAST have it; or Xavier-uniform throughout, as MAE has it, larger where the encoder is narrow."""
        norm: Norm = "pre"
        """Where the blocks normalise: the "pre" of ViT, or the "post" of BERT (as published MAE-AST)."""
        dropout: float = 0.0
        """Probability that a channel is dropped in training, from the tokens and from each branch of a block."""
        input_norm: Literal["none", "batch"] = "none"
        """Spectrograms as the front end gives them, or with mean 0 and std 0.5 by the batch's statistics in training
        and their running averages in use (as published MAE-AST)."""
        checkpointing: bool = False
        """Recompute activations in the backward pass: less memory, about a third more time."""

        def __post_init__(self) -> None:
            check(self.embed_dim >= 1, "embed_dim", self.embed_dim, "1 or more")
            check(self.depth >= 1, "depth", self.depth, "1 or more")
            divides = self.num_heads >= 1 and self.embed_dim % self.num_heads == 0
            check(
                divides, "num_heads", self.num_heads, f"a divisor of embed_dim = {self.embed_dim}"
            )
            check(self.mlp_ratio > 0, "mlp_ratio", self.mlp_ratio, "more than 0")
            check(self.cls_tokens in (0, 1, 2), "cls_tokens", self.cls_tokens, "0, 1 or 2")
            known = ("sincos", "sequence", "learned", "stretched")
            check(self.positions in known, "positions", self.positions, ", ".join(known))
            fits = self.learned or self.embed_dim % 4 == 0
            check(fits, "embed_dim", self.embed_dim, "a multiple of 4, or positions = 'learned'")
            check(self.columns >= 1, "columns", self.columns, "1 or more")
            check(
                0.0 <= self.drop_path < 1.0,
                "drop_path",
                self.drop_path,
                "from 0 up to, not including, 1",
            )
            check(
                0.0 <= self.dropout < 1.0, "dropout", self.dropout, "from 0 up to, not including, 1"
            )
            self.grid(self.patch[0])

        @property
        def learned(self) -> bool:
            """Whether positions are a table."""
            return self.positions in ("learned", "stretched")

        def grid(self, n_mels: int) -> PatchGrid:
            """Return the patch grid on so many mel bins."""
            return PatchGrid(
                n_mels=n_mels,
                patch=self.patch,
                stride=self.stride or self.patch,
                partial=self.partial,
            )

    config: Config
    cls_token: nn.Parameter | None
    cls_position: nn.Parameter | None
    position_table: nn.Parameter | None

    def __init__(self, config: Config, n_mels: int) -> None:
        super().__init__()
        self.config = config
        self.grid = config.grid(n_mels)
        self.embed_dim, self.num_layers = config.embed_dim, config.depth
        self.projection = nn.Linear(self.grid.pixels, config.embed_dim)
        self.cls_token = _table(config.cls_tokens, config.embed_dim)
        self.cls_position = _table(config.cls_tokens if config.learned else 0, config.embed_dim)
        self.position_table = _table(
            self.grid.rows * config.columns if config.learned else 0, config.embed_dim
        )
        self.transformer = Transformer(
            config.embed_dim,
            config.depth,
            config.num_heads,
            config.mlp_ratio,
            config.drop_path,
            config.checkpointing,
            config.norm,
            config.dropout,
        )
        if config.init == "mae":
            self.apply(init_xavier)
        self.dropout = nn.Dropout(config.dropout)
        self.input_norm = MaskedBatchNorm(1, affine=False) if config.input_norm == "batch" else None

    @classmethod
    def sized(cls, name: str) -> "ViT.Config":
        """Return the settings of a named size, see :func:`size`."""
        return cls.Config(**size(name))

    def normalise(
        self, spectrogram: Float[Tensor, "clip mel frame"], frames: Int[Tensor, " clip"] | None
    ) -> Float[Tensor, "clip mel frame"]:
        """Return the spectrograms with mean 0 and standard deviation 0.5, or as they are; see ``input_norm``."""
        if self.input_norm is None:
            return spectrogram
        normalised: Tensor = self.input_norm(
            spectrogram[:, None], valid_frames(spectrogram, frames)
        )
        return 0.5 * normalised[:, 0]

    def embed(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip token dim"]:
        """Return the projected patches, without positions."""
        projected: Tensor = self.projection(self.grid.split(spectrogram))
        return projected

    def positions(self, columns: int) -> Float[Tensor, "token dim"]:
        """Return the position embedding of a grid with so many columns.

        Raises:
            ConfigError: the learned table is shorter than that, and is not to be stretched.
        """
        if self.position_table is None:
            # In patches, so that a place keeps its vector when fine-tuning takes another stride.
            step = (
                self.grid.stride[0] / self.grid.patch[0],
                self.grid.stride[1] / self.grid.patch[1],
            )
            place = (self.grid.rows, columns, self.embed_dim, self.projection.weight.device, step)
            if self.config.positions == "sincos":
                return sincos(*place)
            return sequence(*place, height=replace(self.grid, stride=self.grid.patch).rows)
        if self.config.positions == "stretched" and columns != self.config.columns:
            rows = self.grid.rows
            return resize(
                self.position_table, (rows, self.config.columns), (rows, columns), "bicubic"
            )
        if columns > self.config.columns:
            raise ConfigError(
                f"columns = {columns} patches along time; allowed: up to {self.config.columns}, the learned positions; "
                f"cut the clips, call resize_positions({columns}), or use other positions"
            )
        return self.position_table.view(self.grid.rows, -1, self.embed_dim)[:, :columns].flatten(
            0, 1
        )

    def encode_tokens(
        self,
        tokens: Float[Tensor, "clip token dim"],
        valid: Bool[Tensor, "clip token"] | None = None,
        layers: bool = False,
    ) -> Encoded:
        """Transform any subset of tokens, with the cls tokens put in front; see :meth:`TokenEncoder.encode_tokens`."""
        count = self.config.cls_tokens
        if self.cls_token is not None:
            cls = (
                self.cls_token if self.cls_position is None else self.cls_token + self.cls_position
            )
            tokens = torch.cat([cls.to(tokens.dtype).expand(len(tokens), -1, -1), tokens], dim=1)
            valid = valid if valid is None else F.pad(valid, (count, 0), value=True)
        output, outputs = self.transformer(self.dropout(tokens), valid, layers)
        return Encoded(output[:, count:], output[:, :count], outputs)

    def resize_positions(
        self, columns: int, how: Resize = "bilinear", grid: PatchGrid | None = None
    ) -> None:
        """Change the length of the learned position table, and the grid it is for; build the optimizer after this.

        Args:
            columns: patches along time that the new table holds.
            how: see :func:`melpatch.nn.positions.resize`.
            grid: the new geometry (another stride, other mels); None keeps the present one.

        Raises:
            ConfigError: the new grid has another patch size, for which the projection has no weights.
        """
        grid = grid or self.grid
        allowed = f"{self.grid.patch}, the size the weights were trained for"
        check(grid.patch == self.grid.patch, "patch", grid.patch, allowed)
        config = replace(self.config, columns=columns, stride=grid.stride, partial=grid.partial)
        if self.position_table is not None:
            old, new = (self.grid.rows, self.config.columns), (grid.rows, columns)
            table = resize(self.position_table.detach(), old, new, how).contiguous()
            self.position_table = nn.Parameter(
                table, requires_grad=self.position_table.requires_grad
            )
        self.grid, self.config = grid, config


def _table(count: int, dim: int) -> nn.Parameter | None:
    """Learned vectors, or None for none: an empty parameter would trouble sharding."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(count, dim), std=0.02)) if count else None
