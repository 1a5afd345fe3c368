import itertools

import pytest
import torch
from torch import nn
from two_processes import in_both

from melpatch.nn.batch_norm import MaskedBatchNorm, unnoted

CHANNELS = 3


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(clips=4, frames=9):
    """Return images whose channels differ in mean and spread."""
    spread = torch.tensor([1.0, 20.0, 0.1], dtype=torch.float64)[:, None, None]
    return noise(clips, CHANNELS, 5, frames) * spread - 30.0 * spread


def norm(kind=MaskedBatchNorm, **settings):
    """Return a norm in training mode with changed gain, bias and running statistics."""
    norm_layer = kind(CHANNELS, **settings).double()
    state = {
        name: noise(*value.shape, seed=1).abs() + 0.5
        for name, value in norm_layer.state_dict().items()
        if value.ndim
    }
    norm_layer.load_state_dict(state | {"num_batches_tracked": torch.tensor(7)})
    return norm_layer.train()


def inside(lengths, frames=9):
    return torch.arange(frames) < torch.tensor(lengths)[:, None]


def by_hand(norm_layer, x, valid):
    """Normalise the valid values channel by channel; return output, means and variances."""
    output = torch.zeros_like(x)
    means = []
    variances = []
    for channel in range(CHANNELS):
        values = torch.cat([x[clip, channel, :, valid[clip]].flatten() for clip in range(len(x))])
        mean = values.mean()
        variance = values.var(correction=0)
        gain, bias = (
            (norm_layer.weight[channel], norm_layer.bias[channel])
            if norm_layer.affine
            else (1.0, 0.0)
        )
        normalised = (x[:, channel] - mean) / torch.sqrt(variance + 1e-5) * gain + bias
        output[:, channel] = torch.where(valid[:, None], normalised, 0.0)
        means.append(0.9 * norm_layer.running_mean[channel] + 0.1 * mean)
        variances.append(0.9 * norm_layer.running_var[channel] + 0.1 * values.var())
    return output, torch.stack(means), torch.stack(variances)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("mode", [True, False])
def test_without_padding_it_equals_torch_batch_norm(affine, mode):
    ours = norm(affine=affine).train(mode)
    theirs = norm(nn.BatchNorm2d, affine=affine).train(mode)
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    assert torch.equal(ours(images()), theirs(images()))
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize("affine", [True, False])
def test_only_valid_frames_count_in_training(affine):
    norm_layer = norm(affine=affine)
    x = images()
    valid = inside([9, 2, 5, 1])
    expected, mean, variance = by_hand(norm_layer, x, valid)
    torch.testing.assert_close(norm_layer(x, valid), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm_layer.running_mean, mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(norm_layer.running_var, variance, rtol=1e-12, atol=0)
    assert norm_layer.num_batches_tracked == 8


def test_the_masked_path_without_padding_equals_the_fast_path():
    fast = norm()
    slow = norm()
    x = images()
    torch.testing.assert_close(slow(x, inside([9] * 4)), fast(x), rtol=1e-12, atol=1e-12)
    for name, value in fast.state_dict().items():
        torch.testing.assert_close(slow.state_dict()[name], value, rtol=1e-12, atol=1e-12)


def test_evaluation_uses_the_running_statistics():
    norm_layer = norm().eval()
    valid = inside([9, 2, 5, 1])
    expected = nn.functional.batch_norm(
        images(),
        norm_layer.running_mean,
        norm_layer.running_var,
        norm_layer.weight,
        norm_layer.bias,
    )
    assert torch.equal(norm_layer(images(), valid), expected * valid[:, None, None])
    assert norm_layer.num_batches_tracked == 7


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("garbage", [1e6, torch.nan])
def test_padding_has_no_influence(mode, garbage):
    valid = inside([9, 2, 5, 1])
    results = []
    for x in (images(), torch.where(valid[:, None, None], images(), garbage)):
        norm_layer = norm().train(mode)
        x = x.requires_grad_()
        output = norm_layer(x, valid)
        output.pow(3).sum().backward()
        results.append(
            [
                output,
                x.grad,
                norm_layer.weight.grad,
                norm_layer.bias.grad,
                norm_layer.running_mean,
                norm_layer.running_var,
            ]
        )
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(dirty, clean)
    assert not results[0][1].movedim(3, 1)[~valid].any()


def test_the_gradient_is_that_of_torch_on_the_valid_frames():
    """Concatenated, the valid frames are one image without padding."""
    valid = inside([9, 2, 5, 1])
    x = images().requires_grad_()
    packed = torch.cat([clip[..., own] for clip, own in zip(images(), valid, strict=True)], dim=-1)[
        None
    ]
    packed.requires_grad_()
    ours = norm()
    theirs = norm(nn.BatchNorm2d)
    ours(x, valid).pow(3).sum().backward()
    theirs(packed).pow(3).sum().backward()
    torch.testing.assert_close(
        x.grad.movedim(3, 1)[valid], packed.grad[0].movedim(2, 0), rtol=1e-9, atol=1e-12
    )
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, theirs.get_parameter(name).grad, rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("shape", [(1, CHANNELS, 1, 6), (1, CHANNELS, 6, 1), (4, CHANNELS, 1, 6)])
def test_the_memory_layout_of_the_gradient_has_no_influence(shape):
    """Torch 2.13 gets this wrong for a four-dimensional batch norm on a CPU."""
    gradient = noise(*shape)
    results = []
    for order in itertools.permutations(range(4)):
        norm_layer = norm()
        x = noise(*shape, seed=2).requires_grad_()
        norm_layer(x).backward(
            gradient.permute(order).contiguous().permute([order.index(axis) for axis in range(4)])
        )
        results.append([x.grad, norm_layer.weight.grad, norm_layer.bias.grad])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("valid", [None, inside([9, 2, 5, 1])])
def test_bfloat16_in_and_out_with_float32_statistics(valid):
    """In bfloat16 a large mean would swallow the spread."""
    norm_layer = norm().float()
    x = (images() * 0.01 + 100.0).bfloat16()
    exact = norm()(x.double(), valid)
    with torch.autocast("cpu", torch.bfloat16):
        rough = norm_layer(x, valid)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.double(), exact, rtol=2**-7, atol=2**-7)
    assert norm_layer.running_mean.dtype == torch.float32


@pytest.mark.parametrize("valid", [None, torch.tensor([[True]])])
def test_one_value_per_channel_becomes_the_bias(valid):
    norm_layer = norm()
    output = norm_layer(images()[:1, :, :1, :1], valid)
    assert torch.equal(output[0, :, 0, 0], norm_layer.bias)
    assert norm_layer.running_var.isfinite().all()


# Processes

SHARES = [slice(0, 1), slice(1, 4)]
"""The clips of each process."""


def process(rank, folder):
    """Return output, gradients and statistics of a process, first without and then with padding."""
    return [[share.detach() for share in one_step(lengths, SHARES[rank])] for lengths in LENGTHS]


LENGTHS = [[9, 9, 9, 9], [9, 2, 5, 1]]


def one_step(lengths, share):
    """Return what each process has of its own, then gradients to sum, then shared statistics."""
    norm_layer = norm()
    x = images()[share].requires_grad_()
    valid = inside(lengths)[share]
    # One process may have padding and the other none.
    output = norm_layer(x, None if valid.all() else valid)
    output.pow(3).sum().backward()
    return (
        output,
        x.grad,
        norm_layer.weight.grad,
        norm_layer.bias.grad,
        norm_layer.running_mean,
        norm_layer.running_var,
    )


def test_two_processes_equal_one_with_all_clips(tmp_path, monkeypatch):
    first, second = in_both(process, tmp_path, monkeypatch)
    for lengths, ours, theirs in zip(LENGTHS, first, second, strict=True):
        alone = [part.detach() for part in one_step(lengths, slice(None))]
        apart = [torch.cat(parts) for parts in zip(ours[:2], theirs[:2], strict=True)]
        apart += [a + b for a, b in zip(ours[2:4], theirs[2:4], strict=True)]
        for value, expected in zip([*apart, *ours[4:]], alone, strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
        assert all(torch.equal(a, b) for a, b in zip(ours[4:], theirs[4:], strict=True))


@pytest.mark.parametrize("padded", [False, True])
def test_infinite_values_do_not_reach_the_running_statistics(padded):
    norm = MaskedBatchNorm(2).train()
    x = torch.ones(3, 2, 4, 5)
    valid = torch.ones(3, 5, dtype=torch.bool) if padded else None
    norm(x, valid)
    before = norm.running_mean.clone(), norm.running_var.clone()
    x[0, 0, 0, 0] = torch.inf
    norm(x, valid)
    for now, kept in zip((norm.running_mean, norm.running_var), before, strict=True):
        assert now[0] == kept[0]
        assert now.isfinite().all()
        assert now[1] != kept[1]


@pytest.mark.parametrize("valid", [None, inside([9, 2, 5, 1])])
def test_unnoted_normalises_as_usual_and_leaves_the_statistics(valid):
    norm_layer = norm()
    other = norm()
    before = {name: value.clone() for name, value in norm_layer.state_dict().items()}
    with unnoted(nn.Sequential(norm_layer)):
        assert torch.equal(norm_layer(images(), valid), other(images(), valid))
    for name, value in before.items():
        assert torch.equal(norm_layer.state_dict()[name], value), name
