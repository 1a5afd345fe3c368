"""The transformer of ViT and DeiT, or of BERT, on any number of tokens; attention masks padding."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from melpatch.config import check
from melpatch.nn.attention import KeyMask, attend
from melpatch.nn.unpadding import Unpadding, unpadding_of
from melpatch.rng import streams, uniform

Tokens = Float[Tensor, "clip token dim"]
Mask = KeyMask | Unpadding | None
"""What keeps clips from padding: which tokens may be attended to, or where clips lie in one row."""
Norm = Literal["pre", "post"]
OuterNorm = Literal["before", "after"]

NORM_EPS = 1e-6
"""Epsilon of LayerNorm in timm, AST, SSAST, MAE and ASiT; Hugging Face's ViTs have 1e-12."""
MOST_VIEWS = 32
"""Most views of a clip in one batch of a transformer with stochastic depth."""
# Tokens that go through all blocks at a time without gradients on a processor: enough to fill the
# products, few enough for the cache.
_GROUP_TOKENS = 2048


class Attention(nn.Module):
    """Multi-head self-attention; the mask keeps tokens from padding and from other clips."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, mask: Mask = None) -> Tokens:
        """Return the attention-weighted sum of values for each token, projected."""
        qkv: Tensor = self.qkv(x)
        if isinstance(mask, Unpadding):
            attended = mask.join([self._attend(part) for part in mask.split(qkv)])
        else:
            attended = self._attend(qkv, mask)
        output: Tensor = self.proj(attended)
        return output

    def _attend(
        self, qkv: Float[Tensor, "clip token three_dim"], mask: KeyMask | None = None
    ) -> Tokens:
        channels = qkv.shape[2] // (3 * self.num_heads)
        heads = torch.unflatten(qkv, -1, (3, self.num_heads, channels))
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        return attend(q, k, v, mask).transpose(1, 2).flatten(2)


class DropPath(nn.Module):
    """Stochastic depth: in training, a clip skips a residual branch with probability ``rate``.

    Source: Huang et al. 2016 (arXiv 1603.09382); the branches that are kept are scaled up, as in
    timm.

    Attributes:
        chance: uniform numbers in [0, 1) for each clip of a batch, :data:`MOST_VIEWS` views of it
            and both branches, see :func:`set_drop_path_noise`; None draws from torch's own
            generator.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.chance: Float[Tensor, "clip view branch"] | None = None

    def forward(self, x: Tokens, branch: int = 0, unpadding: Unpadding | None = None) -> Tokens:
        """Return a branch of a block, number 0 or 1, zeroed for the clips that skip it."""
        if not self.training or self.rate == 0.0 or not len(x):
            return x
        clips = len(x) if unpadding is None else unpadding.batch[0]
        keep = 1.0 - self.rate
        if self.chance is None:
            kept = x.new_empty(clips).bernoulli_(keep)
        else:
            # A batch holds the first views of all clips, then the second views, and so on.
            views = clips // len(self.chance)
            check(views <= MOST_VIEWS, "views", views, f"{MOST_VIEWS} or fewer of a clip at a time")
            kept = (self.chance[:, :views, branch].T.flatten() < keep).to(x.dtype)
        scale = (kept / keep)[:, None, None]
        if unpadding is not None:
            # One row holds the tokens of all clips.
            scale = scale[unpadding.clips].squeeze(1)
        return x * scale


def set_drop_path_noise(
    module: nn.Module, seed: int, keys: Int[Tensor, " clip"], step: int
) -> None:
    """Draw the numbers of all drop paths by (seed, clip key, step), whatever the batch holds.

    They are drawn here, outside the forward pass, since torch.compile does not take the integers
    they are made of.
    """
    drop_paths = [
        part
        for part in module.modules()
        if isinstance(part, DropPath) and part.rate and part.training
    ]
    if not drop_paths:
        return
    purposes = [f"drop path {number}" for number in range(len(drop_paths))]
    states = streams(seed, purposes, keys, step)
    chances = uniform(states.flatten(), MOST_VIEWS, 2)
    chances = chances.view(len(drop_paths), len(keys), MOST_VIEWS, 2)
    for part, chance in zip(drop_paths, chances, strict=True):
        part.chance = chance


class Block(nn.Module):
    """Attention and MLP, each added to its input.

    "pre" normalises the input of each of the two: Dosovitskiy et al. 2021 (arXiv 2010.11929),
    equations 2 and 3; details as in timm 0.4.5: LayerNorm epsilon 1e-6 by default, biases
    everywhere, exact (erf) GELU. "post" normalises each sum: Vaswani et al. 2017 (arXiv
    1706.03762), section 3.1, as in BERT and the published MAE-AST.

    Attributes:
        packed: computes the block by packed weights, or returns None where these do not apply; see
            :func:`melpatch.nn.packed.pack`. None without them.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        norm: Norm = "pre",
        dropout: float = 0.0,
        norm_eps: float = NORM_EPS,
    ) -> None:
        super().__init__()
        self.norm_first = norm == "pre"
        hidden = int(dim * mlp_ratio)
        self.dim = dim
        self.hidden = hidden
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)
        self.packed: Callable[[Tokens, KeyMask | None], Tokens | None] | None = None

    def forward(self, x: Tokens, mask: Mask = None) -> Tokens:
        """Return the tokens after attention and MLP."""
        if self.packed is not None and not isinstance(mask, Unpadding):
            output = self.packed(x, mask)
            if output is not None:
                return output
        return self.with_mlp(x, mask)[0]

    def with_mlp(self, x: Tokens, mask: Mask = None) -> tuple[Tokens, Tokens]:
        """Return the tokens after attention and MLP, and the output of the MLP by itself."""
        unpadding = mask if isinstance(mask, Unpadding) else None
        if self.norm_first:
            x = x + self.branch(self.attn(self.norm1(x), mask), 0, unpadding)
            mlp: Tensor = self.mlp(self.norm2(x))
            return x + self.branch(mlp, 1, unpadding), mlp
        x = self.norm1(x + self.branch(self.attn(x, mask), 0, unpadding))
        mlp = self.mlp(x)
        return self.norm2(x + self.branch(mlp, 1, unpadding)), mlp

    def branch(self, x: Tokens, number: int = 0, unpadding: Unpadding | None = None) -> Tokens:
        """Return what is added to the input, after dropout and drop path in training."""
        dropped: Tensor = self.drop_path(self.dropout(x), number, unpadding)
        return dropped


class Transformer(nn.Module):
    """Blocks with a LayerNorm: after the last pre-norm block or before the first post-norm one, if not set.

    Linear weights start truncated-normal with standard deviation 0.02, biases at 0, as in timm.

    Args:
        dim: channels of a token.
        depth: number of blocks.
        num_heads: attention heads; must divide ``dim``.
        mlp_ratio: hidden width of the MLPs, as a multiple of ``dim``.
        drop_path: probability that a clip skips a branch of the last block; from 0 in the first,
            growing linearly.
        checkpointing: recompute activations in the backward pass, for less memory and about a third
            more time.
        norm: where the blocks normalise, see :class:`Block`.
        dropout: probability that a channel of a branch is dropped in training.
        norm_eps: epsilon of every LayerNorm, added to the variance.
        outer_norm: whether the LayerNorm beside the blocks comes before or after them; None leaves
            it to ``norm``.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        checkpointing: bool = False,
        norm: Norm = "pre",
        dropout: float = 0.0,
        norm_eps: float = NORM_EPS,
        outer_norm: OuterNorm | None = None,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.norm_first = norm == "pre"
        self.norm_last = outer_norm == "after" if outer_norm else self.norm_first
        rates = [drop_path * index / max(1, depth - 1) for index in range(depth)]
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio, rate, norm, dropout, norm_eps) for rate in rates
        )
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.apply(init_linear)

    def forward(
        self, x: Tokens, valid: Bool[Tensor, "clip token"] | None = None, layers: bool = False
    ) -> tuple[Tokens, tuple[Tensor, ...]]:
        """Return the normalised output and, if asked for, the output of every block.

        Args:
            x: any number of tokens, in any order.
            valid: tokens that may be attended to; None if all may, which is faster. Outputs of
                other tokens are void.
            layers: whether to return the blocks' outputs.
        """
        # A compiled encoder takes its batch whole, and torch.compile cannot trace the mode.
        eager = not self.training and not torch.compiler.is_compiling()
        if eager and torch.is_inference_mode_enabled() and x.device.type == "cpu":
            clips = max(1, _GROUP_TOKENS // max(1, x.shape[1]))
            if clips < len(x):
                return self._in_groups(x, valid, layers, clips)
        return self._encode(x, valid, layers)

    def _in_groups(
        self, x: Tokens, valid: Bool[Tensor, "clip token"] | None, layers: bool, clips: int
    ) -> tuple[Tokens, tuple[Tensor, ...]]:
        """Return what :meth:`forward` does, from some clips at a time through all blocks."""
        groups = torch.split(x, clips)
        masks = [None] * len(groups) if valid is None else torch.split(valid, clips)
        parts = [self._encode(*group, layers) for group in zip(groups, masks, strict=True)]
        outputs, of_layers = zip(*parts, strict=True)
        return torch.cat(outputs), tuple(map(torch.cat, zip(*of_layers, strict=True)))

    def _encode(
        self, x: Tokens, valid: Bool[Tensor, "clip token"] | None, layers: bool
    ) -> tuple[Tokens, tuple[Tensor, ...]]:
        x, mask = without_padding(x, valid)
        outputs: list[Tensor] = []
        if not self.norm_last:
            x = self.norm(x)
        for block in self.blocks:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, mask, use_reentrant=False)
            else:
                x = block(x, mask)
            if layers:
                outputs.append(x)
        if self.norm_last:
            x = self.norm(x)
        return with_padding(x, mask), tuple(with_padding(output, mask) for output in outputs)

    def least_values(self, tokens: int) -> int:
        """Return how many numbers a clip with ``tokens`` tokens keeps at least for the backward
        pass."""
        # Of every block its input; unless they are recomputed, also queries, keys, values, what
        # attention gives, and the hidden layer.
        kept = 0
        for block in self.blocks:
            assert isinstance(block, Block)
            kept += block.dim if self.checkpointing else 5 * block.dim + block.hidden
        return tokens * kept

    def mlp_outputs(
        self, x: Tokens, valid: Bool[Tensor, "clip token"] | None = None
    ) -> tuple[Tensor, ...]:
        """Return the output of every block's MLP, before it is added; see :meth:`forward`."""
        x, mask = without_padding(x, valid)
        outputs: list[Tensor] = []
        if not self.norm_last:
            x = self.norm(x)
        for block in self.blocks:
            assert isinstance(block, Block)
            x, mlp = block.with_mlp(x, mask)
            outputs.append(with_padding(mlp, mask))
        return tuple(outputs)


def without_padding(
    x: Tokens, valid: Bool[Tensor, "clip token"] | None
) -> tuple[Float[Tensor, "row rowtoken dim"], Mask]:
    """Return tokens as blocks take them, a clip or all clips in a row, and the mask for them."""
    if valid is None:
        return x, None
    unpadding = unpadding_of(x, valid)
    if unpadding is None:
        return x, valid[:, None, None]
    return unpadding.unpad(x), unpadding


def with_padding(x: Float[Tensor, "row rowtoken dim"], mask: Mask) -> Tokens:
    """Return tokens from blocks in the batch that :func:`without_padding` got; padding is void."""
    if isinstance(mask, Unpadding):
        return mask.pad(x)
    return x


def init_linear(module: nn.Module) -> None:
    """Set a linear layer's weights truncated-normal (std 0.02) and its bias to 0, as in timm."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_xavier(module: nn.Module) -> None:
    """Set a linear layer's weights Xavier-uniform and its bias to 0, as the published MAE does."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
