"""What every encoder of the catalogue promises, whoever wrote it."""

import dataclasses

import pytest
import safetensors.torch
import torch

from melpatch import registry
from melpatch.config import from_toml, to_toml

SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3}
POSITIONS = ["sincos", "learned", "stretched"]
STEADY = ["sincos", "learned"]
"""Positions that do not depend on the length of the batch."""


@pytest.fixture(params=registry.names("encoders"))
def piece(request):
    return registry.find("encoders", request.param)


def build(piece, n_mels=32, **settings):
    """A small one of its kind, with what settings it has."""
    known = {field.name for field in dataclasses.fields(piece.Config)}
    torch.manual_seed(0)
    settings = {"patch": (8, 8)} | SMALL | settings
    return piece(piece.Config(**{key: value for key, value in settings.items() if key in known}), n_mels).eval()


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def unequal_clips(n_mels=32, lengths=(90, 23, 64)):
    """Clips of several lengths in one batch; what is past a clip's end is 0, as the front end leaves it."""
    frames = torch.tensor(lengths)
    inside = torch.arange(max(lengths)) < frames[:, None]
    return noise(len(lengths), n_mels, max(lengths)) * inside[:, None], frames


@pytest.mark.parametrize("positions", POSITIONS)
def test_any_subset_in_any_order(piece, positions):
    encoder = build(piece, positions=positions)
    tokens = encoder.tokens(noise(2, 32, 64))
    order = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(0))[:9]
    some = encoder.run(tokens[:, order])
    again = encoder.run(tokens[:, order.flip(0)])
    torch.testing.assert_close(again.patches.flip(1), some.patches, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.cls, some.cls, atol=1e-5, rtol=0)

    kept = torch.zeros(tokens.shape[:2], dtype=torch.bool)
    kept[:, order] = True
    masked = encoder.run(tokens, kept)
    torch.testing.assert_close(masked.patches[:, order], some.patches, atol=1e-5, rtol=0)
    assert not torch.allclose(encoder.run(tokens).patches[:, order], some.patches, atol=1e-4)


@pytest.mark.parametrize("positions", POSITIONS)
def test_order_in_the_batch_means_nothing(piece, positions):
    encoder = build(piece, positions=positions)
    spectrogram = noise(3, 32, 50)
    together = encoder(spectrogram)
    turned = encoder(spectrogram.flip(0))
    torch.testing.assert_close(turned.patches.flip(0), together.patches, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.cls.flip(0), together.cls, atol=1e-5, rtol=0)
    assert not torch.allclose(together.patches[0], together.patches[1], atol=1e-4)


@pytest.mark.parametrize("positions", STEADY)
def test_a_clip_alone_is_the_clip_beside_a_longer_one(piece, positions):
    encoder = build(piece, positions=positions)
    spectrogram, frames = unequal_clips()
    columns = encoder.grid.columns(int(frames.max()))
    valid = encoder.grid.valid(frames, columns)
    together = encoder(spectrogram, valid, layers=True)
    for clip, own in enumerate(frames.tolist()):
        alone = encoder(spectrogram[clip : clip + 1, :, :own], layers=True)
        torch.testing.assert_close(together.patches[clip, valid[clip]], alone.patches[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(together.cls[clip], alone.cls[0], atol=1e-5, rtol=0)
        count = alone.cls.shape[1]
        for layer, own_layer in zip(together.layers, alone.layers, strict=True):
            torch.testing.assert_close(layer[clip, count:][valid[clip]], own_layer[0, count:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("patch", [(16, 16), (128, 2), (8, 8), (3, 5)])
@pytest.mark.parametrize("n_mels", [20, 64, 128])
def test_any_grid(piece, patch, n_mels):
    encoder = build(piece, n_mels, patch=patch)
    for frames in (1, 17, 100):
        encoded = encoder(noise(1, n_mels, frames), layers=True)
        tokens = encoder.grid.count(frames)
        assert encoded.patches.shape == (1, tokens, encoder.embed_dim)
        assert len(encoded.layers) == encoder.num_layers
        assert encoded.layers[-1].shape == (1, encoded.cls.shape[1] + tokens, encoder.embed_dim)
        assert encoded.patches.isfinite().all()
        assert encoder.positions(encoder.grid.columns(frames)).shape == (tokens, encoder.embed_dim)


def test_positions_of_a_shorter_grid_are_those_of_the_longer_ones_first_columns(piece):
    for positions in STEADY:
        encoder = build(piece, positions=positions)
        longer = encoder.positions(9).view(encoder.grid.rows, 9, -1)
        assert torch.equal(longer[:, :4].flatten(0, 1), encoder.positions(4))


def test_bfloat16_is_finite_and_close(piece):
    encoder = build(piece)
    spectrogram, frames = unequal_clips()
    valid = encoder.grid.valid(frames, encoder.grid.columns(int(frames.max())))
    exact = encoder(spectrogram, valid).patches
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(spectrogram, valid).patches
    assert rough.isfinite().all()
    assert (rough.float() - exact)[valid].abs().mean() < 0.02 * exact[valid].abs().mean()


@pytest.mark.parametrize("positions", POSITIONS)
def test_gradient_reaches_every_parameter(piece, positions):
    encoder = build(piece, positions=positions, columns=8).train()
    encoded = encoder(noise(2, 32, 64))
    (encoded.patches.pow(3).sum() + encoded.cls.pow(3).sum()).backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_gradient_checkpointing_changes_nothing(piece):
    results = []
    for checkpointing in (False, True):
        encoder = build(piece, checkpointing=checkpointing).train()
        encoded = encoder(noise(2, 32, 64))
        encoded.patches.pow(3).sum().backward()
        results.append([encoded.patches.detach(), *(p.grad for p in encoder.parameters() if p.grad is not None)])
    for plain, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.parametrize("positions", POSITIONS)
def test_config_and_weights_survive_a_file(piece, positions, tmp_path):
    encoder = build(piece, positions=positions)
    (tmp_path / "config.toml").write_text(to_toml(encoder.config))
    safetensors.torch.save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")

    config = from_toml(piece.Config, tmp_path / "config.toml")
    assert config == encoder.config
    torch.manual_seed(1)
    again = piece(config, 32).eval()
    again.load_state_dict(safetensors.torch.load_file(tmp_path / "encoder.safetensors"))
    spectrogram = noise(2, 32, 50)
    assert torch.equal(again(spectrogram).patches, encoder(spectrogram).patches)
