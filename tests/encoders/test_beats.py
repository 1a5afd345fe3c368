"""What BEATs has and a ViT has not; tests/golden holds what the published code makes of it."""

import pytest
import torch

from melpatch.encoders.beats import BEATs
from melpatch.errors import ConfigError
from melpatch.nn.masking import Subset

SMALL = {
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "patch": (8, 8),
    "patch_dim": 16,
    "conv_kernel": 6,
    "conv_groups": 4,
    "buckets": 8,
    "max_distance": 10,
}


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def build(**changes):
    torch.manual_seed(0)
    return BEATs(BEATs.Config(**SMALL | changes), 32).double().eval()


def kept(indices):
    indices = torch.tensor([indices])
    return Subset(indices, torch.ones_like(indices, dtype=torch.bool))


def test_tokens_that_are_left_keep_their_distances():
    """Two tokens far apart are not those of two tokens side by side."""
    encoder = build()
    tokens = encoder.embed(noise(1, 32, 64))
    tokens[:, 1] = tokens[:, 7]
    near = encoder.encode_subset(tokens, kept([0, 1])).patches
    far = encoder.encode_subset(tokens, kept([0, 7])).patches
    assert not torch.allclose(near, far, atol=1e-3)
    # As far apart, one column later, is the same: positions are relative.
    later = encoder.encode_subset(tokens.roll(1, dims=1), kept([1, 2])).patches
    torch.testing.assert_close(later, near)


def test_whole_columns_are_asked_for_where_no_places_are_given():
    encoder = build()
    with pytest.raises(
        ConfigError, match="tokens = 5; allowed: a multiple of 4, the rows of the grid"
    ):
        encoder.encode_tokens(noise(1, 5, 24))


def test_there_is_no_second_projection_where_the_widths_are_equal():
    encoder = build(patch_dim=24)
    assert not any(name.startswith("projection") for name in encoder.state_dict())


def test_the_initial_weights_are_deepnorms():
    encoder = BEATs(BEATs.Config(embed_dim=192, depth=8, num_heads=3))
    beta = 64**-0.25
    layer = encoder.layers[3]
    assert layer.alpha == 2
    query, key, value = layer.attn.qkv.weight.detach().chunk(3)
    square = (2 / (2 * 192)) ** 0.5
    wide = (2 / (192 + 768)) ** 0.5
    for weight, std in (
        (query, square),
        (key, square),
        (value, beta * square),
        (layer.attn.proj.weight, beta * square),
        (layer.mlp[0].weight, beta * wide),
        (layer.mlp[2].weight, beta * wide),
    ):
        assert float(weight.detach().std()) == pytest.approx(std, rel=0.03)
    assert not layer.attn.qkv.bias.any()


def test_base_has_about_the_published_number_of_parameters():
    """90 million in the paper, without a classifier."""
    with torch.device("meta"):
        encoder = BEATs(size="base")
    assert encoder.config.patch_dim == 512
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6) == 90


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"depth": 0}, "depth = 0"),
        ({"num_heads": 5}, "num_heads = 5; allowed: a divisor of embed_dim = 24"),
        ({"conv_groups": 16}, "conv_groups = 16; allowed: a divisor of embed_dim = 24"),
        ({"buckets": 2}, "buckets = 2; allowed: 4 or more"),
        ({"max_distance": 2}, "max_distance = 2; allowed: 3 or more, for these buckets"),
        ({"mlp_ratio": 0.0}, "mlp_ratio = 0.0"),
        ({"dropout": 1.0}, "dropout = 1.0"),
    ],
)
def test_wrong_settings_are_named(settings, named):
    with pytest.raises(ConfigError, match=named):
        build(**settings)
