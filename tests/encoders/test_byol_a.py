"""The CNN of BYOL-A in padded batches; tests/golden holds what the published code makes of it."""

import pytest
import torch
import torch.nn.functional as F

from melpatch.encoders.byol_a import BYOLA
from melpatch.errors import ConfigError
from melpatch.nn.pooling import pool

VERSIONS = ("v1", "v2")


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(version, n_mels=24, **settings):
    """A narrow encoder whose norms are not the initial ones, so that 0 is not mapped to 0."""
    small = {"version": version, "channels": 3, "hidden": 8, "output": 6}
    torch.manual_seed(0)
    encoder = BYOLA(BYOLA.Config(**small | settings), n_mels).double()
    for name, value in encoder.state_dict().items():
        if "norm" in name and value.ndim:
            value.copy_(noise(*value.shape, seed=len(name)).abs() + 0.5)
    return encoder.eval()


def slow(encoder, spectrogram):
    """The tokens of a spectrogram alone, step by step."""
    x = spectrogram[None, None]
    for block in encoder.blocks:
        norm = block.norm
        x = F.conv2d(x, block.conv.weight, block.conv.bias, padding=1)
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        x = F.max_pool2d(x.relu(), 2)
    tokens = []
    for step in range(x.shape[3]):
        features = torch.cat([x[0, :, mel, step] for mel in range(x.shape[2])])
        hidden = encoder.mlp[0](features).relu()
        output = encoder.mlp[3](hidden).relu()
        tokens.append(torch.cat([features, output]) if encoder.config.version == "v2" else output)
    return torch.stack(tokens)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("frames", [8, 15, 16, 37])
def test_tokens_are_those_of_the_slow_network_at_every_length(version, frames):
    encoder = build(version, trim="pooling")
    spectrogram = noise(24, frames)
    expected = slow(encoder, spectrogram)
    patches, cls, _ = encoder(spectrogram[None])
    torch.testing.assert_close(patches[0], expected)
    torch.testing.assert_close(cls[0, 0], expected.max(dim=0).values + expected.mean(dim=0))


def test_frames_past_the_last_step_are_cut_by_default():
    encoder = build("v1")
    spectrogram = noise(1, 24, 23)
    assert torch.equal(encoder(spectrogram).patches, encoder(spectrogram[..., :16]).patches)


@pytest.mark.parametrize("trim", ["before", "pooling"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_clip_of_any_length_is_encoded_the_same_alone_and_in_a_batch(version, trim):
    encoder = build(version, trim=trim)
    lengths = torch.arange(1, 40)
    spectrogram = noise(len(lengths), 24, 45) * (torch.arange(45) < lengths[:, None])[:, None]
    valid = encoder.grid.valid(lengths, encoder.grid.columns(45))
    together = encoder(spectrogram, valid)
    for clip, own in enumerate(lengths.tolist()):
        alone = encoder(spectrogram[clip : clip + 1, :, :own])
        torch.testing.assert_close(together.patches[clip, valid[clip]], alone.patches[0])
        torch.testing.assert_close(together.cls[clip], alone.cls[0])


def test_the_pooled_feature_is_the_pooling_cls():
    encoder = build("v2")
    patches, cls, _ = encoder(noise(2, 24, 32))
    found = pool(patches, cls, None, 1, "cls").double()
    expected = patches.max(dim=1).values + patches.mean(dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "version", "dim"),
    [("tiny", "v1", 512), ("small", "v1", 1024), ("base", "v1", 2048), ("base", "v2", 3072)],
)
def test_published_sizes(size, version, dim):
    with torch.device("meta"):
        encoder = BYOLA(BYOLA.Config.of_size(size, version=version), 64)
    assert encoder.embed_dim == dim
    assert encoder.grid.patch == (64, 8 if version == "v1" else 4)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"channels": 0}, "channels = 0; allowed: 1 or more"),
        ({"output": 0}, "output = 0; allowed: 1 or more"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"n_mels": 3}, "n_mels = 3; allowed: 4 or more, since this encoder halves them 2 times"),
    ],
)
def test_wrong_settings_are_named(settings, named):
    with pytest.raises(ConfigError, match=named):
        build("v2", **settings)
