"""The decoder of masked autoencoders: from tokens of visible patches to a token for every patch."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from melpatch.config import check
from melpatch.nn.masking import Subset
from melpatch.nn.positions import sequence, sincos
from melpatch.nn.transformer import NORM_EPS, Norm, Transformer, init_xavier

Tokens = Float[Tensor, "clip token dim"]
Valid = Bool[Tensor, "clip token"]


class MAEDecoder(nn.Module):
    """A mask embedding for masked patches, positions for all, and a few transformer blocks.

    Sources: He et al. 2022, "MAE" (arXiv 2111.06377), section 3, for global attention; Huang et al.
    2022, "Audio-MAE" (arXiv 2207.06405), section 3, for attention in windows, which every other
    block shifts by half a window along time. Linear weights start Xavier-uniform, as in the
    published MAE. *Differs* from Audio-MAE: no relative position bias, since every patch has its
    position.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of a decoder."""

        dim: int | None = None
        """Channels of a token; none: as many as the encoder's."""
        depth: int = 2
        """Number of transformer blocks, at most twice those of the encoder."""
        num_heads: int = 4
        """Attention heads; must divide dim."""
        attention: Literal["global", "windows"] = "global"
        """Whether patches attend to all patches, or to those of one window."""
        window: tuple[int, int] = (4, 4)
        """Size of a window, in patches (rows, columns)."""
        positions: Literal["sincos", "sincos_mae", "sequence"] = "sincos"
        """Fixed positions, see the encoder's setting."""
        norm: Norm = "pre"
        """Where the blocks normalise."""
        norm_eps: float = NORM_EPS
        """Epsilon of every LayerNorm; 1e-5 in MAE-AST."""
        dropout: float = 0.0
        """Probability that a channel is dropped in training."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            check(
                self.dim is None or (self.dim > 0 and self.dim % 4 == 0),
                "dim",
                self.dim,
                "a multiple of 4, or none",
            )
            check(self.depth >= 1, "depth", self.depth, "1 or more")
            check(0.0 < self.norm_eps <= 1e-3, "norm_eps", self.norm_eps, "above 0, up to 0.001")
            check(self.num_heads >= 1, "num_heads", self.num_heads, "1 or more")
            check(
                min(self.window) >= 1,
                "window",
                self.window,
                "two sizes (rows, columns) of 1 or more",
            )
            check(
                0.0 <= self.dropout < 1.0, "dropout", self.dropout, "from 0 up to, not including, 1"
            )

    def __init__(self, config: Config, embed_dim: int, encoder_depth: int) -> None:
        """Build the decoder.

        Args:
            config: its settings.
            embed_dim: channels of the encoder's tokens.
            encoder_depth: number of the encoder's blocks.

        Raises:
            ConfigError: it is deeper than twice the encoder, or its channels do not suit its
                positions or heads.
        """
        super().__init__()
        most = 2 * encoder_depth
        dim = config.dim or embed_dim
        allowed = (
            f"1 to {most}, twice the encoder's blocks, since a deeper one would do the encoder's "
            "work; set it"
        )
        check(config.depth <= most, "objective.decoder.depth", config.depth, allowed)
        allowed = f"a multiple of 4, which the {embed_dim} channels of the encoder are not"
        check(dim % 4 == 0, "objective.decoder.dim", config.dim, allowed)
        allowed = f"a divisor of {dim}, the decoder's channels; set --objective.decoder.num-heads"
        check(dim % config.num_heads == 0, "objective.decoder.num_heads", config.num_heads, allowed)
        self.config = config
        self.dim = dim
        self.embed = nn.Linear(embed_dim, dim)
        self.mask_embed = nn.Parameter(torch.empty(dim))
        nn.init.trunc_normal_(self.mask_embed, std=0.02)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(
            dim,
            config.depth,
            config.num_heads,
            norm=config.norm,
            dropout=config.dropout,
            norm_eps=config.norm_eps,
        )
        self.apply(init_xavier)

    def forward(
        self,
        seen: Float[Tensor, "clip place dim"],
        cls: Float[Tensor, "clip cls dim"],
        visible: Subset,
        size: tuple[int, int],
        valid: Valid | None = None,
    ) -> Float[Tensor, "clip token out"]:
        """Return a token for every patch of the grid, normalised.

        Args:
            seen: the encoder's tokens of the visible patches.
            cls: its class tokens, which take part in global attention.
            visible: the places of the visible patches.
            size: rows and columns of the grid.
            valid: False for padding, whose tokens are void; None if there is none.
        """
        rows, columns = size
        x = self.embed(seen)
        x = visible.scatter(x, self.mask_embed.to(x.dtype).expand(len(x), rows * columns, -1))
        x = self.dropout(x + self.positions(rows, columns, x.device).to(x.dtype))
        if self.config.attention == "windows":
            return self._by_windows(x, size, valid)
        count = cls.shape[1]
        x = torch.cat([self.embed(cls).to(x.dtype), x], dim=1)
        if valid is not None:
            valid = F.pad(valid, (count, 0), value=True)
        decoded: Tensor = self.transformer(x, valid)[0]
        return decoded[:, count:]

    def positions(
        self, rows: int, columns: int, device: torch.device
    ) -> Float[Tensor, "token dim"]:
        """Return the fixed positions of a grid."""
        kind = self.config.positions
        if kind == "sequence":
            return sequence(rows, columns, self.dim, device)
        first: Literal["row", "column"] = "row" if kind == "sincos" else "column"
        return sincos(rows, columns, self.dim, device, first=first)

    def _by_windows(self, x: Tokens, size: tuple[int, int], valid: Valid | None) -> Tokens:
        """Return the decoded tokens where each block attends within windows of the grid."""
        if valid is None:
            valid = torch.ones_like(x[..., 0], dtype=torch.bool)
        norm = self.transformer.norm
        if not self.transformer.norm_first:
            x = norm(x)
        for number, block in enumerate(self.transformer.blocks):
            windows = Windows(size, self.config.window, shifted=number % 2 == 1)
            inside = windows.split(valid[..., None])[..., 0]
            # In a window of padding alone all tokens are attended to, or else its softmax would be
            # NaN.
            inside = inside | ~inside.any(dim=1, keepdim=True)
            x = windows.join(block(windows.split(x), inside[:, None, None]))
        if self.transformer.norm_first:
            x = norm(x)
        return x


class Windows:
    """Rectangular windows of a grid of patches; those at the edge hold fewer patches.

    Source: Liu et al. 2021, "Swin" (arXiv 2103.14030), section 3.2, whose cyclic shift with a mask
    equals windows that are cut off at the edge.
    """

    def __init__(self, grid: tuple[int, int], size: tuple[int, int], *, shifted: bool) -> None:
        """Divide a grid into windows of ``size``; ``shifted`` begins half a window earlier."""
        self.grid = grid
        self.size = size
        rows, columns = grid
        # Margins complete the windows at the edges.
        before = size[1] // 2 if shifted else 0
        after = -(before + columns) % size[1]
        below = -rows % size[0]
        self.margin = (0, 0, before, after, 0, below)
        self.count = ((rows + below) // size[0], (before + columns + after) // size[1])

    def split(self, x: Shaped[Tensor, "clip token dim"]) -> Shaped[Tensor, "window place dim"]:
        """Return the tokens of each window; 0 or False beyond the grid."""
        image = F.pad(x.view(-1, *self.grid, x.shape[-1]), self.margin)
        tiles = image.view(
            -1, self.count[0], self.size[0], self.count[1], self.size[1], x.shape[-1]
        )
        return tiles.transpose(2, 3).reshape(-1, self.size[0] * self.size[1], x.shape[-1])

    def join(self, windows: Float[Tensor, "window place dim"]) -> Float[Tensor, "clip token dim"]:
        """Return the tokens in the order of the grid; the inverse of :meth:`split`."""
        tiles = windows.view(-1, *self.count, *self.size, windows.shape[-1]).transpose(2, 3)
        image = tiles.flatten(3, 4).flatten(1, 2)
        before = self.margin[2]
        return image[:, : self.grid[0], before : before + self.grid[1]].flatten(1, 2)
