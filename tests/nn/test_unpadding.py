"""Leaving out padding changes neither outputs nor gradients; where it does not pay, it stays."""

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from melpatch.nn import transformer as transformer_module
from melpatch.nn import unpadding as unpadding_module
from melpatch.nn.transformer import Block, Transformer, set_drop_path_noise
from melpatch.nn.unpadding import unpadding_of

LENGTHS = [9, 4, 0, 1, 7]
KEYS = torch.arange(len(LENGTHS))


@pytest.fixture(autouse=True, scope="module")
def always():
    """Leave out even the little padding of small batches."""
    with mock.patch.object(unpadding_module, "_TOKENS_PER_CALL", 0):
        yield


def batch(scattered=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(LENGTHS), max(LENGTHS), 12, generator=generator, dtype=torch.float64)
    valid = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    if scattered:  # as in a grid, whose rows all end in padding
        valid = valid[:, torch.randperm(max(LENGTHS), generator=generator)]
    return x, valid


def transformer(**settings):
    torch.manual_seed(0)
    model = Transformer(dim=12, depth=3, num_heads=3, **settings).double()
    for parameter in model.parameters():  # larger than 0.02, so that attention is far from uniform
        nn.init.normal_(parameter, std=0.5)
    return model


def keep_padding(monkeypatch):
    monkeypatch.setattr(transformer_module, "unpadding_of", lambda x, valid: None)


def sound(outputs, valid):
    """Return the outputs of valid tokens of the clips that have any."""
    return [output[valid] for output in outputs]


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {"norm": "pre"},
        {"norm": "post"},
        {"outer_norm": "before"},
        {"drop_path": 0.6},
        {"checkpointing": True, "drop_path": 0.6},
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_padded_batch(settings, scattered, monkeypatch):
    model = transformer(**settings)
    x, valid = batch(scattered)
    set_drop_path_noise(model, 0, KEYS, 3)

    def results():
        tokens = x.clone().requires_grad_()
        output, layers = model(tokens, valid, layers=True)
        values = sound([output, *layers], valid)
        wanted = [tokens, *model.parameters()]
        gradients = torch.autograd.grad(
            sum(value.square().sum() for value in values), wanted, allow_unused=True
        )
        # Gradients of padding are void as its outputs are, and zero in both.
        return values, [gradient for gradient in gradients if gradient is not None]

    unpadded = results()
    keep_padding(monkeypatch)
    padded = results()
    torch.testing.assert_close(unpadded, padded)


def test_outputs_of_the_mlps_are_those_of_the_padded_batch(monkeypatch):
    model = transformer()
    x, valid = batch()
    unpadded = sound(model.mlp_outputs(x, valid), valid)
    keep_padding(monkeypatch)
    torch.testing.assert_close(unpadded, sound(model.mlp_outputs(x, valid), valid))


def test_nothing_is_computed_for_padding():
    model = transformer()
    x, valid = batch()
    seen = []
    for block in model.blocks:
        assert isinstance(block, Block)
        block.mlp.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    model(x, valid)
    assert seen == [(1, sum(LENGTHS), 12)] * 3


def test_padding_has_outputs_of_zero_and_is_not_read():
    model = transformer()
    x, valid = batch()
    x[~valid] = torch.nan
    output, _ = model(x, valid)
    assert output.isfinite().all()
    assert not output[~valid].any()


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_unpadded_tokens_return_to_their_places(lengths, seed):
    most = max(*lengths, 1)
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(len(lengths), most, generator=generator).argsort(dim=1)
    valid = order < torch.tensor(lengths)[:, None]
    x = torch.randn(len(lengths), most, 2, generator=generator)
    unpadding = unpadding_of(x, valid)
    if unpadding is None:
        assert not any(lengths) or lengths == [most] * len(lengths)
        return
    unpadded = unpadding.unpad(x)
    assert unpadding.pad(unpadded).equal(x * valid[..., None])
    # Clip by clip, shorter ones first; each clip's tokens in their order.
    by_length = sorted(range(len(lengths)), key=lambda clip: lengths[clip])
    assert unpadded[0].equal(torch.cat([x[clip][valid[clip]] for clip in by_length]))
    assert unpadding.clips.tolist() == [clip for clip in by_length for _ in range(lengths[clip])]
    parts = unpadding.split(unpadded)
    assert [part.shape[1] for part in parts] == sorted({*lengths} - {0})
    assert unpadding.join(parts).equal(unpadded)


def test_batches_stay_padded_where_that_pays(monkeypatch):
    x, valid = batch()
    assert unpadding_of(x, valid) is not None
    assert unpadding_of(x, torch.ones_like(valid)) is None
    assert unpadding_of(x.to("meta"), valid) is None
    with torch.inference_mode():
        assert unpadding_of(x, valid) is None
    # What every objective compiles to is checked in tests/contracts/test_compiling.py.
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert unpadding_of(x, valid) is None


def test_a_batch_of_padding_alone_stays_padded():
    x, valid = batch()
    assert unpadding_of(x, torch.zeros_like(valid)) is None


@pytest.mark.parametrize(("padding", "pays"), [(4, True), (3, False)])
def test_padding_stays_unless_it_costs_more_than_the_calls_for_each_length(
    padding, pays, monkeypatch
):
    monkeypatch.setattr(unpadding_module, "_TOKENS_PER_CALL", 1.5)
    x = torch.zeros(3, 8, 2)
    valid = torch.arange(8) < torch.tensor([8, 8, 8 - padding])[:, None]
    assert (unpadding_of(x, valid) is not None) == pays
