"""Attention by plain products, whole and by blocks of rows, beside torch's fused kernel."""

import pytest
import torch

from melpatch.nn import attention as attention_module
from melpatch.nn.attention import attend, blockwise_attention, plain_attention
from melpatch.nn.transformer import Attention


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def heads(tokens=11):
    """Queries, keys and values as a transformer has them, not in the order of memory."""
    qkv = noise(2, tokens, 3, 3, 4).requires_grad_()
    return qkv, qkv.permute(2, 0, 3, 1, 4)


def mask_of(tokens=11):
    return torch.arange(tokens) < torch.tensor([tokens, 4])[:, None, None, None]


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("rows", [1, 4, 11, 512])
def test_blocks_of_rows_give_the_values_and_gradients_of_the_whole(rows, padded, monkeypatch):
    monkeypatch.setattr(attention_module, "_BLOCK_ROWS", rows)
    mask = mask_of() if padded else None
    weight = noise(2, 3, 11, 4, seed=1)
    found = []
    for way in (plain_attention, blockwise_attention):
        qkv, parts = heads()
        output = way(*parts, mask)
        (output * weight).sum().backward()
        found.append((output, qkv.grad))
    for whole, blocks in zip(*found, strict=True):
        torch.testing.assert_close(blocks, whole)


def test_blocks_keep_no_matrix_of_pairs_for_the_backward_pass():
    kept = []

    def note(value):
        kept.append(value.numel())
        return value

    _, parts = heads(tokens=40)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        blockwise_attention(*parts)
    assert max(kept) < 2 * 3 * 40 * 40


@pytest.mark.parametrize("shape", [(0, 3, 5, 4), (2, 3, 0, 4)])
def test_blocks_of_nothing_are_nothing(shape):
    parts = [torch.zeros(shape, requires_grad=True) for _ in range(3)]
    output = blockwise_attention(*parts)
    assert output.shape == shape
    output.sum().backward()
    assert parts[0].grad.shape == shape


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("way", ["plain", "blocks"])
def test_bfloat16_attention_on_a_cpu_is_as_exact_as_fused_attention(way, padded, monkeypatch):
    torch.manual_seed(0)
    attention = Attention(32, 4)
    x = noise(3, 50, 32).float() * 2
    mask = torch.arange(50) < torch.tensor([50, 20, 1])[:, None] if padded else None
    mask = mask if mask is None else mask[:, None, None]

    def outputs():
        with torch.autocast("cpu", torch.bfloat16):
            output = attention(x, mask)
        return [
            output.float(),
            *torch.autograd.grad(output.float().square().sum(), list(attention.parameters())),
        ]

    exact = [attention(x, mask)]
    exact += torch.autograd.grad(exact[0].square().sum(), list(attention.parameters()))
    monkeypatch.setattr(attention_module, "_blocks_are_fast", lambda: way == "blocks")
    monkeypatch.setattr(attention_module, "_PLAIN_TOKENS_OF_BLOCKS", 0)
    monkeypatch.setattr(attention_module, "_BLOCK_ROWS", 20)
    ours = outputs()
    monkeypatch.setattr(attention_module, "_blocks_are_fast", lambda: False)
    monkeypatch.setattr(attention_module, "_PLAIN_TOKENS", 0)
    fused = outputs()
    assert not all(torch.equal(a, b) for a, b in zip(ours, fused, strict=True))  # two paths
    for own, theirs, expected in zip(ours, fused, exact, strict=True):
        limit = 1.5 * (theirs - expected).norm() + 1e-3 * expected.norm()
        assert (own - expected).norm() <= limit


@pytest.mark.parametrize(
    ("has", "fast"),
    [
        ({"avx512_bf16": True, "amx_tile": False}, True),
        ({"avx512_bf16": True, "amx_tile": True}, False),  # the fused kernel multiplies by AMX
        ({"avx512_bf16": False, "amx_tile": False}, False),
        ({}, False),  # such as a processor that is not Intel's or AMD's
    ],
)
def test_blocks_are_chosen_by_the_processor(has, fast, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    attention_module._blocks_are_fast.cache_clear()
    try:
        assert attention_module._blocks_are_fast() is fast
    finally:
        attention_module._blocks_are_fast.cache_clear()


@pytest.mark.parametrize(
    ("dtype", "tokens", "way"),
    [
        (torch.bfloat16, 512, "plain"),
        (torch.bfloat16, 513, "blocks"),
        (torch.float32, 513, "fused"),
    ],
)
def test_the_way_is_chosen_by_arithmetic_and_length(dtype, tokens, way, monkeypatch):
    taken = []
    monkeypatch.setattr(attention_module, "_blocks_are_fast", lambda: True)
    for name in ("plain_attention", "blockwise_attention"):
        own = getattr(attention_module, name)
        monkeypatch.setattr(
            attention_module,
            name,
            lambda *parts, own=own, name=name: taken.append(name) or own(*parts),
        )
    output = attend(*(torch.zeros(1, 1, tokens, 4, dtype=dtype) for _ in range(3)))
    assert output.shape == (1, 1, tokens, 4)
    assert taken == {"plain": ["plain_attention"], "blocks": ["blockwise_attention"]}.get(way, [])
