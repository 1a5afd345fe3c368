"""The transformer of ViT and DeiT, or of BERT, on any number of tokens, with padding masked out of the attention."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from melpatch.config import check
from melpatch.rng import streams, uniform

Tokens = Float[Tensor, "clip token dim"]
KeyMask = Bool[Tensor, "clip 1 1 token"]
Heads = Float[Tensor, "clip head token channel"]
Norm = Literal["pre", "post"]

MOST_VIEWS = 32
"""Views of a clip that a transformer with stochastic depth can be given at a time."""
_PLAIN_TOKENS = 1024  # beyond, a matrix of all pairs takes more memory than its speed is worth


class Attention(nn.Module):
    """Multi-head self-attention; the mask says which tokens may be attended to."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tokens, mask: KeyMask | None = None) -> Tokens:
        """Return what each token gathers from the others."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        plain = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= _PLAIN_TOKENS
        gathered = (
            plain_attention(q, k, v, mask)
            if plain
            else F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        )
        output: Tensor = self.proj(gathered.transpose(1, 2).flatten(2))
        return output


def plain_attention(q: Heads, k: Heads, v: Heads, mask: KeyMask | None = None) -> Heads:
    """Return attention as two matrix products and a softmax between them.

    In bfloat16 on a processor its backward pass was 2 to 7 times as fast as that of torch's fused attention (2.13), at
    the price of a matrix of all pairs (LAB.md, 2026-11-21).
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    gathered: Tensor = scores.softmax(dim=-1).to(v.dtype) @ v
    return gathered


class DropPath(nn.Module):
    """Stochastic depth: in training, a clip skips a residual branch with probability ``rate``.

    Source: Huang et al. 2016 (arXiv 1603.09382); the branches that stay are scaled up, as in timm.

    Attributes:
        chance: numbers in [0, 1) for the clips of a batch, :data:`MOST_VIEWS` views of each and both branches, see
            :func:`set_drop_path_noise`; without, torch's own generator draws.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.chance: Float[Tensor, "clip view branch"] | None = None

    def forward(self, x: Tokens, branch: int = 0) -> Tokens:
        """Return the branch of a block, which has two, zeroed for the clips that skip it."""
        if not self.training or self.rate == 0.0 or not len(x):
            return x
        keep = 1.0 - self.rate
        if self.chance is None:
            kept = x.new_empty(len(x)).bernoulli_(keep)
        else:  # first views of all clips, then second ones, and so on
            views = len(x) // len(self.chance)
            check(views <= MOST_VIEWS, "views", views, f"{MOST_VIEWS} or fewer of a clip at a time")
            kept = (self.chance[:, :views, branch].T.flatten() < keep).to(x.dtype)
        return x * (kept / keep)[:, None, None]


def set_drop_path_noise(
    module: nn.Module, seed: int, keys: Int[Tensor, " clip"], step: int
) -> None:
    """Have all drop paths of a module draw by (seed, clip key, step), whatever else is in the batch.

    They are given their numbers here, for torch.compile does not take the integers that these are made of.
    """
    dropping = [
        part
        for part in module.modules()
        if isinstance(part, DropPath) and part.rate and part.training
    ]
    if dropping:
        states = streams(
            seed, [f"drop path {number}" for number in range(len(dropping))], keys, step
        )
        chances = uniform(states.flatten(), MOST_VIEWS, 2).view(
            len(dropping), len(keys), MOST_VIEWS, 2
        )
        for part, chance in zip(dropping, chances, strict=True):
            part.chance = chance


class Block(nn.Module):
    """Attention and MLP, each added to its input.

    "pre" normalises what each of the two is given: Dosovitskiy et al. 2021 (arXiv 2010.11929), equations 2 and 3;
    details as in timm 0.4.5: LayerNorm epsilon 1e-6, biases everywhere, exact (erf) GELU. "post" normalises each sum:
    Vaswani et al. 2017 (arXiv 1706.03762), section 3.1, as in BERT and the published MAE-AST.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        norm: Norm = "pre",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm_first = norm == "pre"
        hidden = int(dim * mlp_ratio)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.dropout, self.drop_path = nn.Dropout(dropout), DropPath(drop_path)

    def forward(self, x: Tokens, mask: KeyMask | None = None) -> Tokens:
        """Return the tokens after one round of exchange."""
        if self.norm_first:
            x = x + self.branch(self.attn(self.norm1(x), mask), 0)
            return x + self.branch(self.mlp(self.norm2(x)), 1)
        x = self.norm1(x + self.branch(self.attn(x, mask), 0))
        normalised: Tensor = self.norm2(x + self.branch(self.mlp(x), 1))
        return normalised

    def branch(self, x: Tokens, number: int = 0) -> Tokens:
        """Return what is added to the input: dropped in parts, or whole, in training."""
        dropped: Tensor = self.drop_path(self.dropout(x), number)
        return dropped


class Transformer(nn.Module):
    """A stack of blocks with a LayerNorm: after the last block, or before the first of those that normalise sums.

    Linear weights start truncated-normal with standard deviation 0.02, biases at 0, as in timm.

    Args:
        dim: channels of a token.
        depth: number of blocks.
        num_heads: attention heads; must divide ``dim``.
        mlp_ratio: hidden width of the MLPs, as a multiple of ``dim``.
        drop_path: probability that a clip skips a branch of the last block; from 0 in the first, growing linearly.
        checkpointing: recompute activations in the backward pass, for less memory and about a third more time.
        norm: where the blocks normalise, see :class:`Block`.
        dropout: probability that a channel of a branch is dropped in training.
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
    ) -> None:
        super().__init__()
        self.checkpointing, self.norm_first = checkpointing, norm == "pre"
        rates = [drop_path * index / max(1, depth - 1) for index in range(depth)]
        self.blocks = nn.ModuleList(
            Block(dim, num_heads, mlp_ratio, rate, norm, dropout) for rate in rates
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.apply(init_linear)

    def forward(
        self, x: Tokens, valid: Bool[Tensor, "clip token"] | None = None, layers: bool = False
    ) -> tuple[Tokens, tuple[Tensor, ...]]:
        """Return the normalised output and, if asked, the output of every block before the final norm.

        Args:
            x: any number of tokens; their order means nothing here.
            valid: tokens that may be attended to; None if all may, which is faster. The outputs of the others are void.
            layers: whether to collect the blocks' outputs.
        """
        mask = None if valid is None else valid[:, None, None]
        outputs: list[Tensor] = []
        x = x if self.norm_first else self.norm(x)
        for block in self.blocks:
            x = (
                checkpoint(block, x, mask, use_reentrant=False)
                if self.checkpointing and self.training
                else block(x, mask)
            )
            if layers:
                outputs.append(x)
        return self.norm(x) if self.norm_first else x, tuple(outputs)


def init_linear(module: nn.Module) -> None:
    """Set a linear layer's weights truncated-normal with standard deviation 0.02 and its bias to 0, as timm does."""
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
