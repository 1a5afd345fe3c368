import math

import pytest
import torch
from torch import nn

from melpatch.nn import transformer as transformer_module
from melpatch.nn.transformer import (
    Attention,
    Block,
    DropPath,
    Transformer,
    set_drop_path_noise,
    without_padding,
)


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(params=["pre", "post"])
def transformer(request):
    torch.manual_seed(0)
    model = Transformer(dim=12, depth=3, num_heads=3, norm=request.param).double().eval()
    for parameter in model.parameters():  # larger than 0.02, so that attention is far from uniform
        nn.init.normal_(parameter, std=0.5)
    return model


def test_attention_equals_a_loop_over_pairs():
    torch.manual_seed(0)
    attention = Attention(12, 3).double()
    x = noise(1, 5, 12)
    q, k, v = attention.qkv(x)[0].detach().split(12, dim=-1)
    gathered = torch.zeros(5, 12, dtype=torch.float64)
    for head in range(3):
        channels = slice(4 * head, 4 * head + 4)
        for i in range(5):
            scores = [float(q[i, channels] @ k[j, channels]) / math.sqrt(4) for j in range(5)]
            total = sum(math.exp(score) for score in scores)
            for j in range(5):
                gathered[i, channels] += math.exp(scores[j]) / total * v[j, channels]
    torch.testing.assert_close(attention(x)[0], attention.proj(gathered))


@pytest.mark.parametrize("shape", [(0, 5, 12), (2, 0, 12)])
def test_attention_over_nothing_is_nothing(shape):
    assert Attention(12, 3)(torch.zeros(shape)).shape == shape


def test_block_adds_two_branches_with_erf_gelu():
    torch.manual_seed(0)
    block = Block(12, 3, mlp_ratio=2.0).double()
    x = noise(2, 5, 12)

    def norm(y):
        return (y - y.mean(-1, keepdim=True)) / (
            y.var(-1, correction=0, keepdim=True) + 1e-6
        ).sqrt()

    after_attention = x + block.attn(norm(x))
    hidden = block.mlp[0](norm(after_attention))
    gelu = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    torch.testing.assert_close(block(x), after_attention + block.mlp[2](gelu))
    assert hidden.shape[-1] == 24


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_block_equals_torchs_encoder_layer(norm, padded):
    torch.manual_seed(0)
    block = Block(12, 3, mlp_ratio=2.0, norm=norm).double()
    x = noise(3, 7, 12)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    layer = nn.TransformerEncoderLayer(
        12,
        3,
        24,
        0.0,
        "gelu",
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=norm == "pre",
        dtype=torch.float64,
    )
    names = {
        "attn.qkv.": "self_attn.in_proj_",
        "attn.proj.": "self_attn.out_proj.",
        "mlp.0": "linear1",
        "mlp.2": "linear2",
    }
    state = block.state_dict()
    for ours, theirs in names.items():
        state = {name.replace(ours, theirs): value for name, value in state.items()}
    layer.load_state_dict(state)
    valid = torch.arange(7) < torch.tensor([7, 3, 1] if padded else [7, 7, 7])[:, None]
    output = block(x, valid[:, None, None] if padded else None)
    torch.testing.assert_close(
        output[valid], layer(x, src_key_padding_mask=~valid if padded else None)[valid]
    )


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_dropout_applies_to_both_branches_in_training_only(norm):
    torch.manual_seed(0)
    block = Block(12, 3, norm=norm, dropout=0.25).double()
    plain = Block(12, 3, norm=norm).double()
    x = noise(2, 5, 12)
    plain.load_state_dict(block.state_dict())
    assert torch.equal(block.eval()(x), plain(x))
    branches = []
    block.train().dropout.register_forward_hook(
        lambda _, branch, dropped: branches.append((branch[0], dropped))
    )
    output = block(x)
    (attention, after_attention), (mlp, after_mlp) = branches
    first = norm == "pre"
    middle = x + after_attention if first else block.norm1(x + after_attention)
    assert torch.equal(attention, block.attn(block.norm1(x) if first else x))
    assert torch.equal(mlp, block.mlp(block.norm2(middle) if first else middle))
    assert torch.equal(output, middle + after_mlp if first else block.norm2(middle + after_mlp))
    for branch, dropped in branches:
        torch.testing.assert_close(dropped, torch.where(dropped == 0, 0.0, branch / 0.75))


def test_dropout_zeroes_its_share_of_channels_and_drop_path_whole_clips():
    torch.manual_seed(0)
    dropped = Block(12, 3, dropout=0.25, drop_path=0.5).branch(torch.ones(2000, 5, 12))
    skipped = dropped.eq(0).all(dim=2).all(dim=1)
    assert skipped.double().mean() == pytest.approx(0.5, abs=0.03)
    assert dropped[~skipped].eq(0).double().mean() == pytest.approx(0.25, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)


def test_masked_tokens_have_no_influence(transformer):
    x = noise(2, 7, 12)
    valid = torch.tensor([[1, 1, 0, 1, 0, 1, 1], [1, 1, 1, 1, 0, 0, 0]]).bool()
    masked, layers = transformer(x, valid, layers=True)
    for clip in range(2):
        alone, layers_alone = transformer(x[clip : clip + 1, valid[clip]], layers=True)
        torch.testing.assert_close(masked[clip, valid[clip]], alone[0])
        torch.testing.assert_close(layers[-1][clip, valid[clip]], layers_alone[-1][0])


def test_masked_tokens_receive_no_gradient(transformer):
    x = noise(1, 7, 12).requires_grad_()
    valid = torch.tensor([[1, 1, 1, 1, 1, 0, 0]]).bool()
    transformer(x, valid)[0][valid].sum().backward()
    assert x.grad[:, 5:].abs().max() == 0
    assert x.grad[:, :5].abs().min() > 0


def test_the_order_of_tokens_has_no_influence(transformer):
    x = noise(2, 7, 12)
    order = torch.tensor([3, 0, 6, 1, 2, 5, 4])
    torch.testing.assert_close(transformer(x[:, order])[0], transformer(x)[0][:, order])


def test_layers_are_the_outputs_of_the_blocks_with_the_norm_last_or_first(transformer):
    x = noise(2, 7, 12)
    output, layers = transformer(x, layers=True)
    x = x if transformer.norm_first else transformer.norm(x)
    for block, layer in zip(transformer.blocks, layers, strict=True):
        x = block(x)
        assert torch.equal(layer, x)
    assert torch.equal(output, transformer.norm(x) if transformer.norm_first else x)
    assert transformer(x)[1] == ()


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_checkpointing_changes_neither_loss_nor_gradients(drop_path):
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = (
            Transformer(12, 3, 3, drop_path=drop_path, checkpointing=checkpointing).double().train()
        )
        x = noise(4, 7, 12).requires_grad_()
        loss = model(x)[0].pow(3).sum()
        loss.backward()
        results.append(
            [loss.detach(), x.grad, *(parameter.grad for parameter in model.parameters())]
        )
    for plain, recomputed in zip(*results, strict=True):
        assert torch.equal(plain, recomputed)


@pytest.mark.parametrize(
    ("checkpointing", "training", "runs"), [(False, True, 1), (True, True, 2), (True, False, 1)]
)
def test_checkpointing_runs_the_blocks_again_in_training_only(checkpointing, training, runs):
    model = Transformer(12, 2, 3, checkpointing=checkpointing).train(training)
    calls = []
    model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    model(torch.randn(2, 5, 12))[0].pow(3).sum().backward()
    assert len(calls) == runs


def test_drop_path_skips_whole_clips_and_keeps_the_mean():
    torch.manual_seed(0)
    dropped = DropPath(0.25)(torch.ones(4000, 2, 3))
    per_clip = dropped[:, 0, 0]
    assert torch.equal(dropped, per_clip[:, None, None].expand_as(dropped))
    torch.testing.assert_close(per_clip.unique(), torch.tensor([0.0, 4 / 3]))
    assert per_clip.eq(0).double().mean() == pytest.approx(0.25, abs=0.03)


def test_drop_path_depends_on_seed_key_and_step_and_not_on_the_batch():
    model = Transformer(12, 3, 3, drop_path=0.5).train()
    keys = torch.arange(40)

    def kept(rows, views=1, **changes):
        set_drop_path_noise(model, **{"seed": 0, "keys": keys[rows], "step": 0} | changes)
        ones = torch.ones(views * len(keys[rows]), 2, 12)
        return torch.stack(
            [block.branch(ones, branch)[:, 0, 0] for block in model.blocks[1:] for branch in (0, 1)]
        )

    whole = kept(slice(None))
    some = torch.tensor([3, 17, 21])
    assert torch.equal(kept(some), whole[:, some])
    assert not torch.equal(kept(slice(None), seed=1), whole)
    assert not torch.equal(kept(slice(None), step=1), whole)
    assert len(whole.bool().unique(dim=0)) == 4  # each branch of each block has its own
    twice = kept(slice(None), views=2)
    assert torch.equal(kept(some, views=2), torch.cat([twice[:, some], twice[:, 40 + some]], dim=1))
    assert not torch.equal(twice[:, :40], twice[:, 40:])


def test_drop_path_is_off_in_evaluation():
    x = torch.ones(50, 2, 3)
    assert torch.equal(DropPath(0.9).eval()(x), x)


def test_drop_path_grows_linearly_with_depth():
    rates = [block.drop_path.rate for block in Transformer(12, 5, 3, drop_path=0.2).blocks]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


def test_initial_weights():
    torch.manual_seed(0)
    model = Transformer(96, 2, 3)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert module.bias.abs().max() == 0


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_what_is_kept_for_the_backward_pass_is_bounded_from_below(norm, checkpointing):
    """Against the tensors that autograd really keeps, of which none is shared with a weight."""
    transformer = Transformer(16, 3, 2, norm=norm, checkpointing=checkpointing).train()
    weights = {weight.untyped_storage().data_ptr() for weight in transformer.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            # The storage is held too, so that none takes its address.
            kept[storage.data_ptr()] = (storage.nbytes() // tensor.element_size(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        transformer(torch.randn(5, 7, 16, requires_grad=True))
    values = sum(number for number, _ in kept.values()) / 5
    assert 0.4 * values < transformer.least_values(7) <= values


@pytest.mark.parametrize("padded", [False, True])
def test_clips_that_go_through_in_groups_come_out_as_all_at_once(transformer, padded, monkeypatch):
    x = noise(5, 7, 12)
    valid = torch.arange(7) < torch.tensor([7, 3, 1, 7, 6])[:, None] if padded else None
    with torch.no_grad():
        expected, expected_layers = transformer(x, valid, layers=True)
    monkeypatch.setattr(transformer_module, "_GROUP_TOKENS", 14)
    sizes = []
    monkeypatch.setattr(
        transformer_module,
        "without_padding",
        lambda group, own: sizes.append(len(group)) or without_padding(group, own),
    )
    with torch.inference_mode():
        output, layers = transformer(x, valid, layers=True)
    assert sizes == [2, 2, 1]
    chosen = slice(None) if valid is None else valid
    for given, wanted in zip((output, *layers), (expected, *expected_layers), strict=True):
        torch.testing.assert_close(given[chosen], wanted[chosen])
