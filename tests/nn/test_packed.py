"""Packed blocks: what autocast computes, with current weights, and only where they apply."""

import copy
import pickle

import pytest
import torch

from melpatch.nn.packed import pack
from melpatch.nn.transformer import Transformer

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no products in bfloat16 here"
)


def transformer(norm="pre", packed=False):
    torch.manual_seed(0)
    made = Transformer(32, 2, 2, norm=norm).eval()
    for weight in made.parameters():
        # Larger than at the start, so that attention is not the mean over all tokens.
        weight.data.add_(0.1 * torch.randn_like(weight))
    if packed:
        pack(made)
    return made


def tokens(clips=3, count=50):
    return torch.randn(clips, count, 32, generator=torch.Generator().manual_seed(1)).bfloat16()


@torch.inference_mode()
def outputs(network, x, valid=None):
    with torch.autocast("cpu", torch.bfloat16):
        return network(x, valid)[0].float()


def error(output, exact):
    return float((output - exact).norm() / exact.norm())


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("count", [50, 900, 1100])  # one group, several, and fused attention
def test_packed_blocks_are_as_near_to_float32_as_autocast(norm, count):
    x = tokens(count=count)
    with torch.inference_mode():
        exact = transformer(norm)(x.float())[0]
    packed = outputs(transformer(norm, packed=True), x)
    plain = outputs(transformer(norm), x)
    assert (packed != plain).any()
    assert error(packed, exact) < max(1.3 * error(plain, exact), 1e-3)


def test_what_is_padding_changes_no_other_token():
    network = transformer(packed=True)
    valid = torch.ones(3, 900, dtype=torch.bool)
    valid[1, 600:] = False
    x = tokens(count=900)
    kept = outputs(network, x, valid)
    x[1, 600:] = 7.0
    changed = outputs(network, x, valid)
    assert torch.equal(changed[valid], kept[valid])


def test_a_change_of_weights_is_followed():
    network = transformer(packed=True)
    before = outputs(network, tokens())
    state = {name: 2 * value for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    other = transformer(packed=True)
    other.load_state_dict(state)
    after = outputs(network, tokens())
    assert not torch.equal(after, before)
    assert torch.equal(after, outputs(other, tokens()))


def test_training_float32_and_gradients_are_left_alone():
    plain = transformer()
    packed = transformer(packed=True)
    outputs(packed, tokens())
    with torch.inference_mode():
        x = tokens().float()
        assert torch.equal(packed(x)[0], plain(x)[0])
    with torch.autocast("cpu", torch.bfloat16):
        for training in (False, True):
            results = [network.train(training)(tokens())[0] for network in (packed, plain)]
            assert torch.equal(*results)
            assert results[0].requires_grad


def test_copies_hold_no_packed_weights_and_the_state_is_that_of_the_network():
    network = transformer(packed=True)
    outputs(network, tokens())
    assert network.blocks[0].packed is not None
    for same in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert same.blocks[0].packed is None
        assert same.state_dict().keys() == network.state_dict().keys()
        assert torch.equal(same(tokens().float())[0], network(tokens().float())[0])
