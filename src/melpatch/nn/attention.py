"""Scaled dot-product attention: torch's fused kernel, or plain products where these are faster.

In bfloat16 on a processor without AMX the fused kernel of torch 2.13 runs at 0.4 to 0.6 of the rate
of two matrix products with a softmax in between (lab/inference.md). A matrix of all pairs is made
for few tokens only; of many, for some rows of queries at a time, forward and backward, so that
memory grows with the tokens and not with their square.
"""

from functools import cache
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

Heads = Float[Tensor, "clip head token channel"]
KeyMask = Bool[Tensor, "clip 1 1 token"]

# With more tokens, a matrix of all pairs takes more memory than its speed is worth.
_PLAIN_TOKENS = 1024
# With more, rows of queries at a time are faster where they are faster than the fused kernel.
_PLAIN_TOKENS_OF_BLOCKS = 512
_BLOCK_ROWS = 512


def attend(q: Heads, k: Heads, v: Heads, mask: KeyMask | None = None) -> Heads:
    """Return the attention-weighted sum of values, in the fastest of three ways.

    Args:
        q: queries.
        k: keys.
        v: values.
        mask: which keys may be attended to; None if all may.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # A compiler would unroll the blocks of every head.
        blocks = not torch.compiler.is_compiling() and _blocks_are_fast()
        if q.shape[2] <= (_PLAIN_TOKENS_OF_BLOCKS if blocks else _PLAIN_TOKENS):
            return plain_attention(q, k, v, mask)
        if blocks:
            return blockwise_attention(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


@cache
def _blocks_are_fast() -> bool:
    """Return whether there are products in bfloat16 but no AMX, which the fused kernel uses."""
    if not hasattr(torch.cpu, "get_capabilities"):  # torch before 2.10
        return False
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16")) and not has.get("amx_tile")


def plain_attention(q: Heads, k: Heads, v: Heads, mask: KeyMask | None = None) -> Heads:
    """Return attention as two matrix products with a softmax in between.

    In bfloat16 on a CPU, its backward pass was 2 to 7 times as fast as that of torch's fused
    attention (2.13), at the price of a matrix of all pairs (lab/step-cost-asit.md).
    """
    # softmax(q k^T / sqrt(channels)) v, with padded keys at -inf.
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    gathered: Tensor = scores.softmax(dim=-1).to(v.dtype) @ v
    return gathered


def blockwise_attention(q: Heads, k: Heads, v: Heads, mask: KeyMask | None = None) -> Heads:
    """Return what :func:`plain_attention` does, some rows of one head at a time.

    The backward pass makes the weights of these rows again (Rabe and Staats 2021, arXiv
    2112.05682), since keeping them would take a matrix of all pairs.
    """
    gathered: Tensor = _Blockwise.apply(  # type: ignore[no-untyped-call]
        q * q.shape[-1] ** -0.5, k, v, mask
    )
    return gathered


class _Blockwise(torch.autograd.Function):
    """softmax(q k^T) v and its gradients, by blocks of rows of one head of one clip."""

    @staticmethod
    def forward(ctx: Any, q: Heads, k: Heads, v: Heads, mask: KeyMask | None) -> Heads:
        output = torch.empty_like(v, memory_format=torch.contiguous_format)
        for clip, head in product(range(q.shape[0]), range(q.shape[1])):
            padded = None if mask is None else ~mask[clip, 0]
            for rows in _blocks(q.shape[2]):
                weights = _weights(q[clip, head, rows], k[clip, head], padded)
                torch.mm(weights, v[clip, head], out=output[clip, head, rows])
        ctx.save_for_backward(q, k, v, mask)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Heads, Heads, Heads, None]:
        q, k, v, mask = ctx.saved_tensors
        (grad,) = grads
        grad_q = torch.empty_like(q, memory_format=torch.contiguous_format)
        # Sums over the blocks, which bfloat16 would round each time.
        exact = torch.promote_types(k.dtype, torch.float32)
        grad_k, grad_v = torch.zeros_like(k, dtype=exact), torch.zeros_like(v, dtype=exact)
        for clip, head in product(range(q.shape[0]), range(q.shape[1])):
            padded = None if mask is None else ~mask[clip, 0]
            for rows in _blocks(q.shape[2]):
                at = clip, head, rows
                weights = _weights(q[at], k[clip, head], padded)
                grad_v[clip, head] += weights.T @ grad[at]
                of_weights = grad[at] @ v[clip, head].T
                of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, q.dtype)
                torch.mm(of_scores, k[clip, head], out=grad_q[at])
                grad_k[clip, head] += of_scores.T @ q[at]
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype), None


def _blocks(tokens: int) -> list[slice]:
    return [slice(start, start + _BLOCK_ROWS) for start in range(0, tokens, _BLOCK_ROWS)]


def _weights(
    q: Float[Tensor, "row channel"],
    k: Float[Tensor, "token channel"],
    padded: Bool[Tensor, "1 token"] | None,
) -> Float[Tensor, "row token"]:
    """Return what some queries take of each value."""
    scores = q @ k.T
    if padded is not None:
        scores.masked_fill_(padded, -torch.inf)
    return scores.softmax(dim=-1)
