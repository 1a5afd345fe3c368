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
    """Channels with means and spreads of their own."""
    spread = torch.tensor([1.0, 20.0, 0.1], dtype=torch.float64)[:, None, None]
    return noise(clips, CHANNELS, 5, frames) * spread - 30.0 * spread


def norm(kind=MaskedBatchNorm, **settings):
    """A norm in training whose gain, bias and running statistics are not those it starts with."""
    made = kind(CHANNELS, **settings).double()
    state = {
        name: noise(*value.shape, seed=1).abs() + 0.5
        for name, value in made.state_dict().items()
        if value.ndim
    }
    made.load_state_dict(state | {"num_batches_tracked": torch.tensor(7)})
    return made.train()


def inside(lengths, frames=9):
    return torch.arange(frames) < torch.tensor(lengths)[:, None]


def by_hand(made, x, valid):
    """Normalise the valid values of one channel after the other, and return the statistics that result too."""
    output, means, variances = torch.zeros_like(x), [], []
    for channel in range(CHANNELS):
        values = torch.cat([x[clip, channel, :, valid[clip]].flatten() for clip in range(len(x))])
        mean, variance = values.mean(), values.var(correction=0)
        gain, bias = (made.weight[channel], made.bias[channel]) if made.affine else (1.0, 0.0)
        normalised = (x[:, channel] - mean) / torch.sqrt(variance + 1e-5) * gain + bias
        output[:, channel] = torch.where(valid[:, None], normalised, 0.0)
        means.append(0.9 * made.running_mean[channel] + 0.1 * mean)
        variances.append(0.9 * made.running_var[channel] + 0.1 * values.var())
    return output, torch.stack(means), torch.stack(variances)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("mode", [True, False])
def test_without_padding_it_is_torchs_own(affine, mode):
    ours, theirs = norm(affine=affine).train(mode), norm(nn.BatchNorm2d, affine=affine).train(mode)
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    assert torch.equal(ours(images()), theirs(images()))
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


@pytest.mark.parametrize("affine", [True, False])
def test_only_valid_places_count_in_training(affine):
    made, x, valid = norm(affine=affine), images(), inside([9, 2, 5, 1])
    expected, mean, variance = by_hand(made, x, valid)
    torch.testing.assert_close(made(x, valid), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(made.running_mean, mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(made.running_var, variance, rtol=1e-12, atol=0)
    assert made.num_batches_tracked == 8


def test_the_slow_way_without_padding_is_the_fast_way():
    fast, slow, x = norm(), norm(), images()
    torch.testing.assert_close(slow(x, inside([9] * 4)), fast(x), rtol=1e-12, atol=1e-12)
    for name, value in fast.state_dict().items():
        torch.testing.assert_close(slow.state_dict()[name], value, rtol=1e-12, atol=1e-12)


def test_evaluation_uses_what_training_noted():
    made, valid = norm().eval(), inside([9, 2, 5, 1])
    expected = nn.functional.batch_norm(
        images(), made.running_mean, made.running_var, made.weight, made.bias
    )
    assert torch.equal(made(images(), valid), expected * valid[:, None, None])
    assert made.num_batches_tracked == 7


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("rubbish", [1e6, torch.nan])
def test_what_stands_at_padding_means_nothing(mode, rubbish):
    valid = inside([9, 2, 5, 1])
    results = []
    for x in (images(), torch.where(valid[:, None, None], images(), rubbish)):
        made, x = norm().train(mode), x.requires_grad_()
        output = made(x, valid)
        output.pow(3).sum().backward()
        results.append(
            [output, x.grad, made.weight.grad, made.bias.grad, made.running_mean, made.running_var]
        )
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(dirty, clean)
    assert not results[0][1].movedim(3, 1)[~valid].any()


def test_gradient_is_that_of_torch_on_the_valid_frames_alone():
    """Put side by side, the valid frames are one image without padding."""
    valid, x = inside([9, 2, 5, 1]), images().requires_grad_()
    packed = torch.cat([clip[..., own] for clip, own in zip(images(), valid, strict=True)], dim=-1)[
        None
    ]
    packed.requires_grad_()
    ours, theirs = norm(), norm(nn.BatchNorm2d)
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
def test_the_gradients_layout_in_memory_means_nothing(shape):
    """Torch 2.13 gets it wrong for a four-dimensional batch norm on a processor."""
    gradient, results = noise(*shape), []
    for order in itertools.permutations(range(4)):
        made, x = norm(), noise(*shape, seed=2).requires_grad_()
        made(x).backward(
            gradient.permute(order).contiguous().permute([order.index(axis) for axis in range(4)])
        )
        results.append([x.grad, made.weight.grad, made.bias.grad])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("valid", [None, inside([9, 2, 5, 1])])
def test_bfloat16_in_and_out_with_float32_statistics(valid):
    """A mean that bfloat16 cannot hold beside the spread would be lost in it."""
    made, x = norm().float(), (images() * 0.01 + 100.0).bfloat16()
    exact = norm()(x.double(), valid)
    with torch.autocast("cpu", torch.bfloat16):
        rough = made(x, valid)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.double(), exact, rtol=2**-7, atol=2**-7)
    assert made.running_mean.dtype == torch.float32


@pytest.mark.parametrize("valid", [None, torch.tensor([[True]])])
def test_one_value_per_channel_becomes_the_bias(valid):
    made = norm()
    output = made(images()[:1, :, :1, :1], valid)
    assert torch.equal(output[0, :, 0, 0], made.bias)
    assert made.running_var.isfinite().all()


# --------------------------------------------------------------------------------------------------------- processes

SHARES = [slice(0, 1), slice(1, 4)]
"""Clips of either process."""


def process(rank, folder):
    """Be one of two: leave output, gradients and statistics, once without padding anywhere and once with padding."""
    return [[share.detach() for share in one_step(lengths, SHARES[rank])] for lengths in LENGTHS]


LENGTHS = [[9, 9, 9, 9], [9, 2, 5, 1]]


def one_step(lengths, share):
    """Return what does not hang on other clips' outputs, then what is summed over clips, then what is the same."""
    made, x, valid = norm(), images()[share].requires_grad_(), inside(lengths)[share]
    output = made(
        x, None if valid.all() else valid
    )  # so one process may have padding and the other none
    output.pow(3).sum().backward()
    return output, x.grad, made.weight.grad, made.bias.grad, made.running_mean, made.running_var


def test_two_processes_are_one_that_sees_all_clips(tmp_path, monkeypatch):
    first, second = in_both(process, tmp_path, monkeypatch)
    for lengths, one, two in zip(LENGTHS, first, second, strict=True):
        alone = [part.detach() for part in one_step(lengths, slice(None))]
        apart = [torch.cat(parts) for parts in zip(one[:2], two[:2], strict=True)]
        apart += [a + b for a, b in zip(one[2:4], two[2:4], strict=True)]
        for ours, expected in zip([*apart, *one[4:]], alone, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
        assert all(torch.equal(a, b) for a, b in zip(one[4:], two[4:], strict=True))


@pytest.mark.parametrize("padded", [False, True])
def test_numbers_that_overflow_leave_no_trace_in_what_is_used_afterwards(padded):
    norm = MaskedBatchNorm(2).train()
    x, valid = torch.ones(3, 2, 4, 5), torch.ones(3, 5, dtype=torch.bool) if padded else None
    norm(x, valid)
    before = norm.running_mean.clone(), norm.running_var.clone()
    x[0, 0, 0, 0] = torch.inf
    norm(x, valid)
    for now, kept in zip((norm.running_mean, norm.running_var), before, strict=True):
        assert now[0] == kept[0]
        assert now.isfinite().all()
        assert now[1] != kept[1]


@pytest.mark.parametrize("valid", [None, inside([9, 2, 5, 1])])
def test_unnoted_normalises_as_ever_and_leaves_the_statistics(valid):
    made, other = norm(), norm()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with unnoted(nn.Sequential(made)):
        assert torch.equal(made(images(), valid), other(images(), valid))
    for name, value in before.items():
        assert torch.equal(made.state_dict()[name], value), name
