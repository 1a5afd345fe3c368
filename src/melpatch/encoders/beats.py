"""BEATs: a post-norm transformer on patches whose attention has a gated relative position bias."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from melpatch.config import check
from melpatch.encoders.base import MOST_LAYERS, Encoded, EncoderConfig, TokenEncoder
from melpatch.encoders.vit import SIZES
from melpatch.nn.attention import KeyMask
from melpatch.nn.grid import PatchGrid, Places
from melpatch.nn.pooling import LayerOutputs
from melpatch.nn.relative_positions import Bias, GatedAttention, PositionBias, PositionConv
from melpatch.nn.transformer import DropPath, Tokens

NORM_EPS = 1e-5
"""Epsilon of every LayerNorm."""


class BEATs(TokenEncoder):
    """BEATs of any size on patches of any shape; padded tokens never influence valid ones.

    >>> encoder = BEATs(size="nano")  # 128 mels, or BEATs(config, n_mels)
    >>> patches, cls, _ = encoder(torch.zeros(2, 128, 1000))  # (clip, mel, frame)
    >>> patches.shape, cls.shape
    (torch.Size([2, 504, 96]), torch.Size([2, 0, 96]))

    A patch becomes a token by a projection without bias, a LayerNorm and a second projection.
    Positions are relative. Tokens are numbered in the order of time, column by column; a grouped
    convolution over this sequence is added to them, and attention gets a bias that depends on the
    difference of two numbers and is gated by the query. Residuals are DeepNorm's. There is no class
    token, and no norm after the last layer.

    If patches are dropped, those that are left keep their numbers, and the convolution meets zeros
    where they were.

    Source: Chen et al. 2022 (arXiv 2212.09058) and the published code; relative bias
    of Raffel et al. 2020 (arXiv 1910.10683), gated as in Chi et al. 2022 (arXiv 2106.16138);
    DeepNorm and its initial weights of Wang et al. 2022 (arXiv 2203.00555). Other linear layers
    start as torch's, the bias normal with standard deviation 0.02.
    *Differs:* published padding goes by the number of a token, so that the rows of a column become
    padding one after the other; here whole columns are padding, those that the clip alone does not
    have.

    Args:
        config: the settings; None for those of ``size``, or the defaults.
        n_mels: mel bins of the spectrograms.
        size: nano, mini, tiny, small, base or large, instead of a config.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(EncoderConfig):
        """Settings of a BEATs."""

        embed_dim: int = 192
        """Channels of a token."""
        depth: int = 12
        """Number of layers."""
        num_heads: int = 3
        """Attention heads; must divide embed_dim."""
        mlp_ratio: float = 4.0
        """Hidden width of the MLPs, as a multiple of embed_dim."""
        patch: tuple[int, int] = (16, 16)
        """Patch size (mels, frames); patches do not overlap."""
        partial: Literal["pad", "drop"] = "pad"
        """Bins and frames left over at the end: "pad" completes their patch with zeros, "drop"
        ignores them (published)."""
        patch_dim: int = 128
        """Channels of an embedded patch before it is projected to embed_dim; if they are equal,
        there is no second projection."""
        conv_kernel: int = 128
        """Tokens that the convolution for positions spans."""
        conv_groups: int = 16
        """Groups of this convolution; must divide embed_dim."""
        buckets: int = 320
        """Classes of distances, each with a bias per head; half of them for each direction."""
        max_distance: int = 800
        """Distance in tokens from which on all share the last bucket of their direction."""
        drop_path: float = 0.0
        """Probability that a clip skips a branch of the last layer in training; linear from 0 in
        the first."""
        dropout: float = 0.0
        """Probability that a channel is dropped in training, from the tokens and from each branch
        of a layer."""
        checkpointing: bool = False
        """Recompute activations in the backward pass: less memory, about a third more time."""

        def __post_init__(self) -> None:
            check(1 <= self.depth <= MOST_LAYERS, "depth", self.depth, f"1 to {MOST_LAYERS}")
            for name in ("embed_dim", "patch_dim", "conv_kernel"):
                value = getattr(self, name)
                check(value >= 1, name, value, "1 or more")
            for name in ("num_heads", "conv_groups"):
                value = getattr(self, name)
                divides = value >= 1 and self.embed_dim % value == 0
                check(divides, name, value, f"a divisor of embed_dim = {self.embed_dim}")
            check(0 < self.mlp_ratio <= 1000, "mlp_ratio", self.mlp_ratio, "above 0, up to 1000")
            check(self.buckets >= 4, "buckets", self.buckets, "4 or more")
            least = self.buckets // 4 + 1
            fits = self.max_distance >= least
            check(fits, "max_distance", self.max_distance, f"{least} or more, for these buckets")
            for name in ("drop_path", "dropout"):
                value = getattr(self, name)
                check(0.0 <= value < 1.0, name, value, "from 0 up to, not including, 1")
            self.grid(self.patch[0])

        @classmethod
        def of_size(cls, size: str, **settings: Any) -> "BEATs.Config":
            """Return the settings of a ViT's size, with two thirds of its width for a patch."""
            check(size in SIZES, "size", size, ", ".join(SIZES))
            patch_dim = SIZES[size]["embed_dim"] * 2 // 3
            return cls(**{**SIZES[size], "patch_dim": patch_dim, **settings})

        def grid(self, n_mels: int) -> PatchGrid:
            """Return the patch grid on this many mel bins."""
            return PatchGrid(
                n_mels=n_mels, patch=self.patch, stride=self.patch, partial=self.partial
            )

        def with_recipe(self, recipe: EncoderConfig) -> "BEATs.Config":
            """Return these settings with the drop path of a recipe for BEATs."""
            if not isinstance(recipe, BEATs.Config):
                return self
            return replace(self, drop_path=recipe.drop_path or self.drop_path)

    config: Config

    def __init__(
        self, config: Config | None = None, n_mels: int = 128, *, size: str | None = None
    ) -> None:
        super().__init__()
        config = self.resolve(config, size)
        dim = config.embed_dim
        self.config = config
        self.grid = config.grid(n_mels)
        self.embed_dim = dim
        self.num_layers = config.depth
        self.num_cls_tokens = 0
        self.patch_embedding = nn.Linear(self.grid.pixels, config.patch_dim, bias=False)
        self.patch_norm = nn.LayerNorm(config.patch_dim, eps=NORM_EPS)
        self.projection: nn.Module = nn.Identity()
        if config.patch_dim != dim:
            self.projection = nn.Linear(config.patch_dim, dim)
        self.position_conv = PositionConv(dim, config.conv_kernel, config.conv_groups)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.position_bias = PositionBias(config.buckets, config.max_distance, config.num_heads)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.depth))

    def ordered_layers(self) -> Sequence[nn.Module]:
        """Return the layers."""
        return [*self.layers]

    def embed(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip token dim"]:
        """Return the embedded patches."""
        # Pixels -> patch_dim, normalised -> embed_dim.
        patches = self.patch_norm(self.patch_embedding(self.grid.split(spectrogram)))
        projected: Tensor = self.projection(patches)
        return projected

    def positions(self, columns: int) -> Float[Tensor, "token dim"]:
        """Return zeros: positions are relative, and enter in :meth:`encode_tokens`."""
        weight = self.patch_embedding.weight
        return weight.new_zeros(self.grid.rows * columns, self.embed_dim)

    def encode_tokens(
        self,
        tokens: Float[Tensor, "clip token dim"],
        valid: Bool[Tensor, "clip token"] | None = None,
        layers: LayerOutputs = False,
        places: Places | None = None,
    ) -> Encoded:
        """Transform any subset of tokens, at their places; see :meth:`TokenEncoder.encode_tokens`.

        Raises:
            ConfigError: the places are not given, and the tokens are no whole grid.
        """
        rows = self.grid.rows
        length = tokens.shape[1]
        mask: KeyMask | None = None
        if places is None:
            allowed = f"a multiple of {rows}, the rows of the grid, where no places are given"
            check(length % rows == 0, "tokens", length, allowed)
            # Token row * columns + column is number column * rows + row in time.
            by_column = torch.arange(length, device=tokens.device).view(-1, rows)
            in_time = by_column.mT.reshape(1, length)
        else:
            in_time = places.in_time(rows)
            length = rows * places.columns
        # Padding is zero for the convolution, and no key of attention.
        if valid is not None:
            tokens = tokens.masked_fill(~valid[..., None], 0.0)
            mask = valid[:, None, None]
        x = tokens + self.position_conv(tokens, in_time, length)
        x = self.dropout(self.norm(x))
        # One bias for all layers, each of which gates it.
        bias = self.position_bias(in_time)
        outputs: list[Tensor] = []
        for layer in self.layers:
            if self.config.checkpointing and self.training:
                x = checkpoint(layer, x, bias, mask, use_reentrant=False)
            else:
                x = layer(x, bias, mask)
            if layers:
                outputs.append(x)
        return Encoded(x, x[:, :0], tuple(outputs))


class Layer(nn.Module):
    """Attention and MLP; each is added to alpha times its input, and the sum is normalised."""

    def __init__(self, config: BEATs.Config, number: int) -> None:
        super().__init__()
        dim = config.embed_dim
        hidden = int(dim * config.mlp_ratio)
        self.alpha = (2 * config.depth) ** 0.25
        self.attn = GatedAttention(dim, config.num_heads)
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = DropPath(config.drop_path * number / max(1, config.depth - 1))
        self._initialise((8 * config.depth) ** -0.25)

    def forward(self, x: Tokens, bias: Bias, mask: KeyMask | None) -> Tokens:
        """Return the tokens after attention and MLP."""
        # LayerNorm(alpha * x + branch(x)), twice: DeepNorm.
        x = self.norm1(self.alpha * x + self._branch(self.attn(x, bias, mask), 0))
        normed: Tensor = self.norm2(self.alpha * x + self._branch(self.mlp(x), 1))
        return normed

    def _branch(self, x: Tokens, number: int) -> Tokens:
        dropped: Tensor = self.drop_path(self.dropout(x), number)
        return dropped

    def _initialise(self, beta: float) -> None:
        """Set the weights Xavier-normal, times beta except for queries and keys; biases to 0."""
        for linear in (self.attn.qkv, self.attn.proj, *self.mlp):
            if isinstance(linear, nn.Linear):
                nn.init.xavier_normal_(linear.weight, gain=beta)
                nn.init.zeros_(linear.bias)
        # Each is a matrix of its own, which its fans tell.
        query, key, value = self.attn.qkv.weight.detach().chunk(3)
        nn.init.xavier_normal_(query)
        nn.init.xavier_normal_(key)
        nn.init.xavier_normal_(value, gain=beta)
