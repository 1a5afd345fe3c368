"""Positions by a convolution and by a gated bias, against the sums that they are."""

import math

import pytest
import torch
from torch.nn import functional as F

from melpatch.nn.relative_positions import GatedAttention, PositionBias, PositionConv


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(module):
    """The module in double precision, with no parameter at its initial value."""
    for number, parameter in enumerate(module.double().parameters()):
        parameter.data = noise(*parameter.shape, seed=number)
    return module


# Of a later key: half of 16 buckets are exact up to 3, then logarithmic up to 20.
@pytest.mark.parametrize(
    ("distance", "bucket"),
    [(0, 0), (1, 9), (-1, 1), (3, 11), (-3, 3), (4, 12), (6, 13), (9, 14), (20, 15), (-500, 7)],
)
def test_near_distances_have_buckets_of_their_own_and_far_ones_share_them(distance, bucket):
    bias = PositionBias(16, 20, 2)
    assert bias.bucket(torch.tensor([distance])).tolist() == [bucket]


def test_the_bias_is_that_of_the_key_number_minus_the_query_number():
    bias = drawn(PositionBias(16, 20, 2))
    numbers = torch.tensor([[4, 0, 9]])
    found = bias(numbers)[0]
    assert found.shape == (2, 3, 3)
    for query in range(3):
        for key in range(3):
            bucket = bias.bucket(numbers[0, key] - numbers[0, query])
            assert torch.equal(found[:, query, key], bias.table[bucket])


@pytest.mark.parametrize("kernel", [4, 5])
def test_the_convolution_runs_over_all_places_with_zeros_where_there_is_no_token(kernel):
    conv = drawn(PositionConv(6, kernel, 3))
    numbers = torch.tensor([[5, 1, 2]])
    tokens = noise(1, 3, 6)
    places = dict(zip(numbers[0].tolist(), tokens[0], strict=True))
    weight = torch.empty(6, 2, kernel, dtype=torch.float64)
    for tap in range(kernel):
        direction = conv.direction[:, :, tap]
        weight[:, :, tap] = conv.gain[tap] * direction / direction.square().sum().sqrt()
    for number, found in zip(numbers[0].tolist(), conv(tokens, numbers, 8)[0], strict=True):
        for channel in range(6):
            group = channel // 2
            total = conv.bias[channel].clone()
            for tap in range(kernel):
                heard = places.get(number + tap - kernel // 2)
                if heard is not None:
                    total += weight[channel, :, tap] @ heard[2 * group : 2 * group + 2]
            torch.testing.assert_close(found[channel], F.gelu(total))


def test_the_convolution_starts_as_its_direction():
    conv = PositionConv(64, 32, 4)
    norms = conv.direction.square().sum(dim=(0, 1)).sqrt()
    torch.testing.assert_close(conv.gain, norms)
    assert float(conv.direction.detach().std()) == pytest.approx(math.sqrt(4 / 2048), rel=0.05)


def test_attention_is_the_softmax_of_logits_with_a_gated_bias():
    attention = drawn(GatedAttention(8, 2))
    x = noise(1, 3, 8)
    bias = noise(1, 2, 3, 3, seed=9)
    valid = torch.tensor([[True, False, True]])
    found = attention(x, bias, valid[:, None, None])[0]
    q, k, v = attention.qkv(x)[0].view(3, 3, 2, 4).unbind(1)
    for query in range(3):
        heads = []
        for head in range(2):
            made = attention.gate(q[query, head])
            a = 1 / (1 + (-made[:4].sum()).exp())
            b = 1 / (1 + (-made[4:].sum()).exp())
            gate = a * (b * attention.scale[head] - 1) + 2
            logits = k[:, head] @ q[query, head] / 2 + gate * bias[0, head, query]
            weights = logits[valid[0]].softmax(0)
            heads.append(weights @ v[valid[0], head])
        torch.testing.assert_close(found[query], attention.proj(torch.cat(heads)))
