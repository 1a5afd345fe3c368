"""Relative positions of BEATs and WavLM: by a convolution, and by a gated bias in attention.

Tokens are numbered in the order of time, see :meth:`melpatch.nn.grid.Places.in_time`; only the
difference of two numbers counts.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from melpatch.nn.attention import Heads, KeyMask
from melpatch.nn.transformer import Tokens

InTime = Int[Tensor, "#clip token"]
Bias = Float[Tensor, "#clip head query key"]


class PositionConv(nn.Module):
    """A grouped convolution over the tokens in the order of time, then GELU.

    The kernel has a learned norm per tap: Salimans and Kingma 2016 (arXiv 1602.07868). Its initial
    values are those of Baevski et al. 2020 (wav2vec 2.0, arXiv 2006.11477), published code.
    """

    def __init__(self, dim: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.direction = nn.Parameter(torch.empty(dim, dim // groups, kernel))
        nn.init.normal_(self.direction, std=math.sqrt(4 / (kernel * dim)))
        self.gain = nn.Parameter(_norm_per_tap(self.direction.detach()))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, tokens: Tokens, in_time: InTime, length: int) -> Tokens:
        """Return the output at each token; where there is none, the convolution meets zeros.

        Args:
            tokens: some tokens, in any order.
            in_time: their numbers in the order of time.
            length: tokens of the whole grid.
        """
        # kernel[tap] = gain[tap] * direction[tap] / |direction[tap]|
        kernel = self.gain * self.direction / _norm_per_tap(self.direction)
        # The whole grid in the order of time, with zeros where there is no token.
        index = in_time[..., None].expand_as(tokens)
        clips, _, dim = tokens.shape
        sequence = tokens.new_zeros(clips, length, dim).scatter(1, index, tokens)
        # Of an even kernel, the last output is one too many.
        half = kernel.shape[2] // 2
        output = F.conv1d(sequence.mT, kernel, self.bias, padding=half, groups=self.groups)
        return F.gelu(output[..., :length]).mT.gather(1, index)


class PositionBias(nn.Module):
    """What attention adds to a logit by the distance of key and query, one number per head.

    Source: Raffel et al. 2020 (T5, arXiv 1910.10683), section 2.1 and published code. The table
    starts normal with standard deviation 0.02.

    Args:
        buckets: classes of distances, half of them for each direction.
        max_distance: distance from which on all share the last bucket of their direction.
        num_heads: attention heads.
    """

    def __init__(self, buckets: int, max_distance: int, num_heads: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.table = nn.Parameter(torch.empty(buckets, num_heads))
        nn.init.normal_(self.table, std=0.02)

    def forward(self, in_time: InTime) -> Bias:
        """Return the bias of each query and key, given the tokens' numbers in the order of time."""
        # (clip, query, key), and a number per head in the last axis of what the table gives.
        distance = in_time[:, None, :] - in_time[:, :, None]
        biases = self.table[self.bucket(distance)]
        return biases.permute(0, 3, 1, 2)

    def bucket(self, distance: Int[Tensor, "*pair"]) -> Int[Tensor, "*pair"]:
        """Return the bucket of key number minus query number; the upper half is for later keys.

        Half of a direction's buckets hold one distance each, the others logarithmically more.
        """
        half = len(self.table) // 2
        exact = half // 2
        far = distance.abs()
        # exact + (half - exact) * ln(far / exact) / ln(max_distance / exact), rounded down
        ratio = far.clamp(min=1).float() / exact
        share = ratio.log() / math.log(self.max_distance / exact)
        logarithmic = exact + (share * (half - exact)).long()
        bucket = torch.where(far < exact, far, logarithmic.clamp(max=half - 1))
        return bucket + half * (distance > 0)


class GatedAttention(nn.Module):
    """Multi-head self-attention with a position bias that each query scales by a gate.

    Source: Chi et al. 2022 (XLM-E, arXiv 2106.16138), as in WavLM (Chen et al. 2022, arXiv
    2110.13900) and BEATs.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.gate = nn.Linear(dim // num_heads, 8)
        self.scale = nn.Parameter(torch.ones(num_heads))

    def forward(self, x: Tokens, bias: Bias, mask: KeyMask | None) -> Tokens:
        """Return the attention-weighted sum of values for each token, projected."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        added = (self.gates(q)[..., None] * bias).to(q.dtype)
        if mask is not None:
            added = added.masked_fill(~mask, -torch.inf)
        # softmax(q k^T / sqrt(channels) + gate * bias) v
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=added)
        # Heads side by side; of a view, torch's export to ONNX (2.13) mistakes the strides.
        output: Tensor = self.proj(torch.cat(gathered.unbind(dim=1), dim=-1))
        return output

    def gates(self, q: Heads) -> Float[Tensor, "clip head token"]:
        """Return the factor of each query's bias: a * (b * scale - 1) + 2, by two sigmoids."""
        # The projections of a query that make a, and those that make b, four each, are summed.
        summed = self.gate(q).unflatten(-1, (2, 4)).sum(dim=-1)
        a, b = summed.sigmoid().unbind(dim=-1)
        factor: Tensor = a * (b * self.scale[:, None] - 1) + 2
        return factor


def _norm_per_tap(kernel: Float[Tensor, "channel _ tap"]) -> Float[Tensor, " tap"]:
    return kernel.square().sum(dim=(0, 1)).sqrt()
