"""The convolutional decoder against a loop over places, and with padding."""

import math

import pytest
import torch
from torch import nn

from melpatch.errors import ConfigError
from melpatch.nn.conv_decoder import ConvDecoder

DIM = 6
SIZE = (3, 5)


def decoder(**settings):
    torch.manual_seed(0)
    made = ConvDecoder(ConvDecoder.Config(**{"depth": 2, "groups": 2} | settings), DIM).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def slow_layer(convolution, grid):
    """Return the grid, {place: channels}, after one convolution, LayerNorm, GELU and residual."""
    weight, groups = convolution.weight.tolist(), convolution.groups
    inside, reach, result = DIM // groups, convolution.kernel_size[0] // 2, {}
    for row, column in grid:
        sums = convolution.bias.tolist()
        for out in range(DIM):
            group = out // (DIM // groups)
            for channel in range(inside):
                for down in range(-reach, reach + 1):
                    for right in range(-reach, reach + 1):
                        near = grid.get((row + down, column + right))
                        if near is not None:
                            value = near[group * inside + channel]
                            sums[out] += weight[out][channel][down + reach][right + reach] * value
        mean = sum(sums) / DIM
        deviation = (sum((value - mean) ** 2 for value in sums) / DIM + 1e-5) ** 0.5
        normed = [(value - mean) / deviation for value in sums]
        active = [value * (1 + math.erf(value / 2**0.5)) / 2 for value in normed]
        result[row, column] = [a + b for a, b in zip(grid[row, column], active, strict=True)]
    return result


@torch.inference_mode()
def test_it_is_the_loop_over_places():
    made, tokens = decoder(), torch.randn(1, 15, DIM, dtype=torch.float64)
    grid = {divmod(token, SIZE[1]): tokens[0, token].tolist() for token in range(15)}
    for convolution in made.convolutions:
        grid = slow_layer(convolution, grid)
    expected = torch.stack([made.head(torch.tensor(values).double()) for values in grid.values()])
    torch.testing.assert_close(made(tokens, SIZE)[0], expected)


@torch.inference_mode()
def test_padding_cannot_be_seen():
    made, tokens = decoder(depth=3), torch.randn(2, 15, DIM, dtype=torch.float64)
    valid = torch.ones(2, *SIZE, dtype=torch.bool)
    valid[0, :, 3:] = False
    tokens[0] = tokens[0].where(valid[0].flatten()[:, None], 1e6)
    together = made(tokens, SIZE, valid.flatten(1))
    alone = made(tokens[:1].view(1, *SIZE, DIM)[:, :, :3].flatten(1, 2), (3, 3))
    inside = together[:1].view(1, *SIZE, DIM)[:, :, :3].flatten(1, 2)
    torch.testing.assert_close(inside, alone)
    torch.testing.assert_close(together[1:], made(tokens[1:], SIZE))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel": 4}, "kernel = 4; allowed: an odd number"),
        ({"groups": 4}, "objective.decoder.groups = 4; allowed: a divisor of 6"),
        ({"depth": 0}, "depth = 0; allowed: 1 or more"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        decoder(**settings)
