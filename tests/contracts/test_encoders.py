"""What every encoder of the catalogue promises, whoever wrote it, and what those of tokens promise besides."""

import dataclasses
from typing import get_args, get_type_hints

import pytest
import safetensors.torch
import torch

from melpatch import registry
from melpatch.config import from_toml, to_toml
from melpatch.encoders.base import Encoder, TokenEncoder
from melpatch.errors import ConfigError

SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch": (8, 8), "width": 2}
NAMES = ("nano", "mini", "tiny", "small", "base")
N_MELS = 32


def positions_of(piece):
    """The kinds of positions to choose from; none where there is no such setting."""
    return get_args(get_type_hints(piece.Config).get("positions"))


ENCODERS = {name: registry.find("encoders", name) for name in registry.names("encoders")}
VARIANTS = {
    f"{name}-{positions}" if positions else name: (
        piece,
        {"positions": positions} if positions else {},
    )
    for name, piece in ENCODERS.items()
    for positions in positions_of(piece) or [None]
}
STEADY = {name: variant for name, variant in VARIANTS.items() if not name.endswith("-stretched")}
"""Those in which a clip's tokens do not depend on the length of the batch."""
OF_TOKENS = {
    name: variant for name, variant in VARIANTS.items() if issubclass(variant[0], TokenEncoder)
}


def every(variants):
    """Run a test on each of these variants."""
    return pytest.mark.parametrize("variant", variants.values(), ids=variants.keys())


def build(variant, n_mels=N_MELS, **changes):
    """A small one of its kind, with what settings it has."""
    piece, settings = variant
    known = {field.name for field in dataclasses.fields(piece.Config)}
    settings = {key: value for key, value in (SMALL | settings | changes).items() if key in known}
    torch.manual_seed(0)
    encoder = piece(piece.Config(**settings), n_mels).train()
    for _ in range(
        10 if [*encoder.buffers()] else 0
    ):  # until running statistics are no longer 0 and 1
        encoder(noise(3, n_mels, 64))
    return encoder.eval()


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def unequal_clips(lengths=(90, 23, 64)):
    """Clips of several lengths in one batch; what is past a clip's end is 0, as the front end leaves it."""
    frames = torch.tensor(lengths)
    inside = torch.arange(max(lengths)) < frames[:, None]
    return noise(len(lengths), N_MELS, max(lengths)) * inside[:, None], frames


def encode(encoder, spectrogram, frames, **asked):
    """Return which tokens hold sound, and what the encoder says, as objectives ask it."""
    valid = encoder.grid.valid(frames, encoder.grid.columns(spectrogram.shape[2]))
    normalised = encoder.normalise(spectrogram, frames)
    return valid, encoder(normalised, None if valid.all() else valid, **asked)


# ----------------------------------------------------------------------------------------------------- every encoder


@every(VARIANTS)
def test_order_in_the_batch_means_nothing(variant):
    encoder, spectrogram = build(variant), noise(3, N_MELS, 50)
    together, turned = encoder(spectrogram), encoder(spectrogram.flip(0))
    torch.testing.assert_close(turned.patches.flip(0), together.patches, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.cls.flip(0), together.cls, atol=1e-5, rtol=0)
    assert not torch.allclose(together.patches[0], together.patches[1], atol=1e-4)


@every(VARIANTS)
def test_evaluation_has_no_chance_and_no_memory(variant):
    encoder, spectrogram = build(variant), noise(2, N_MELS, 50)
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    first, second = encoder(spectrogram), encoder(spectrogram)
    assert torch.equal(first.patches, second.patches)
    assert torch.equal(first.cls, second.cls)
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())


@every(STEADY)
def test_a_clip_alone_is_the_clip_beside_a_longer_one(variant):
    encoder = build(variant)
    spectrogram, frames = unequal_clips()
    valid, together = encode(encoder, spectrogram, frames, layers=True)
    assert not valid.all()
    for clip, own in enumerate(frames.tolist()):
        one = slice(clip, clip + 1)
        _, alone = encode(encoder, spectrogram[one, :, :own], frames[one], layers=True)
        torch.testing.assert_close(
            together.patches[clip, valid[clip]], alone.patches[0], atol=1e-5, rtol=0
        )
        torch.testing.assert_close(together.cls[clip], alone.cls[0], atol=1e-5, rtol=0)
        count = alone.cls.shape[1]
        for layer, own_layer in zip(together.layers, alone.layers, strict=True):
            torch.testing.assert_close(
                layer[clip, count:][valid[clip]], own_layer[0, count:], atol=1e-5, rtol=0
            )
            torch.testing.assert_close(layer[clip, :count], own_layer[0, :count], atol=1e-5, rtol=0)


@every(VARIANTS)
@pytest.mark.parametrize("mode", [True, False])
def test_what_stands_at_padding_means_nothing(variant, mode):
    """Not even in training, where some encoders mix the clips of a batch."""
    spectrogram, frames = unequal_clips((95, 31, 64))
    encoder, loud = build(variant).train(mode), spectrogram.clone()
    columns = encoder.grid.columns(spectrogram.shape[2])
    valid = encoder.grid.valid(frames, columns)
    loud[2, :, 64:] = 1e3
    torch.manual_seed(1)
    quiet = encoder(spectrogram, valid)
    torch.manual_seed(1)
    rough = encoder(loud, valid)
    torch.testing.assert_close(rough.patches[valid], quiet.patches[valid], atol=1e-5, rtol=0)
    torch.testing.assert_close(rough.cls, quiet.cls, atol=1e-5, rtol=0)


@every({name: (piece, {}) for name, piece in ENCODERS.items()})
@pytest.mark.parametrize("n_mels", [40, 64, 128])
def test_any_mels_and_any_length(variant, n_mels):
    encoder = build(variant, n_mels)
    for frames in (1, 17, 100):
        encoded, tokens = encoder(noise(1, n_mels, frames), layers=True), encoder.grid.count(frames)
        special = encoded.cls.shape[1]
        assert encoded.patches.shape == (1, tokens, encoder.embed_dim)
        assert encoded.cls.shape == (1, special, encoder.embed_dim)
        assert encoded.patches.isfinite().all()
        assert [layer.shape[:2] for layer in encoded.layers] == [
            (1, special + tokens)
        ] * encoder.num_layers
        assert encoded.layers[-1].shape[2] == encoder.embed_dim
        assert encoder(noise(1, n_mels, frames)).layers == ()


@every(VARIANTS)
def test_bfloat16_is_finite_and_close(variant):
    encoder = build(variant)
    spectrogram, frames = unequal_clips()
    valid, exact = encode(encoder, spectrogram, frames)
    with torch.autocast("cpu", torch.bfloat16):
        _, rough = encode(encoder, spectrogram, frames)
    assert rough.patches.isfinite().all()
    error = (rough.patches.float() - exact.patches)[valid].abs().mean()
    assert error < 0.02 * exact.patches[valid].abs().mean()


@every(VARIANTS)
def test_gradient_reaches_every_parameter(variant):
    encoder = build(variant, columns=8).train()
    encoded = encoder(encoder.normalise(noise(2, N_MELS, 64), torch.tensor([64, 64])))
    (encoded.patches.pow(3).sum() + encoded.cls.pow(3).sum()).backward()
    without = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@every(VARIANTS)
def test_config_and_weights_survive_a_file(variant, tmp_path):
    encoder, spectrogram = build(variant), noise(2, N_MELS, 50)
    encoder.train()(spectrogram)  # what training notes beside the weights is to survive too
    encoder.eval()
    (tmp_path / "config.toml").write_text(to_toml(encoder.config))
    safetensors.torch.save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")

    config = from_toml(variant[0].Config, tmp_path / "config.toml")
    assert config == encoder.config
    torch.manual_seed(1)
    again = variant[0](config, N_MELS).eval()
    again.load_state_dict(safetensors.torch.load_file(tmp_path / "encoder.safetensors"))
    assert torch.equal(again(spectrogram).patches, encoder(spectrogram).patches)
    assert torch.equal(again(spectrogram).cls, encoder(spectrogram).cls)


@pytest.mark.parametrize("piece", ENCODERS.values(), ids=ENCODERS.keys())
def test_sizes_grow_with_their_names(piece):
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in piece(piece.sized(name), 128).parameters()) for name in NAMES
        ]
    assert issubclass(piece, Encoder)
    assert counts == sorted(set(counts))
    with pytest.raises(ConfigError, match="size = 'huge'; allowed: " + ", ".join(NAMES)):
        piece.sized("huge")


# ------------------------------------------------------------------------------------------------ encoders of tokens


@every(OF_TOKENS)
def test_any_subset_in_any_order(variant):
    encoder = build(variant)
    tokens = encoder.tokens(noise(2, N_MELS, 64))
    order = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(0))[:9]
    some = encoder.encode_tokens(tokens[:, order])
    again = encoder.encode_tokens(tokens[:, order.flip(0)])
    torch.testing.assert_close(again.patches.flip(1), some.patches, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.cls, some.cls, atol=1e-5, rtol=0)

    kept = torch.zeros(tokens.shape[:2], dtype=torch.bool)
    kept[:, order] = True
    masked = encoder.encode_tokens(tokens, kept)
    torch.testing.assert_close(masked.patches[:, order], some.patches, atol=1e-5, rtol=0)
    assert not torch.allclose(
        encoder.encode_tokens(tokens).patches[:, order], some.patches, atol=1e-4
    )


@every(OF_TOKENS)
def test_the_joint_is_where_forward_goes(variant):
    encoder = build(variant)
    spectrogram, frames = unequal_clips()
    valid = encoder.grid.valid(frames, encoder.grid.columns(spectrogram.shape[2]))
    for valid_or_none in (valid, None):
        whole = encoder(spectrogram, valid_or_none)
        jointed = encoder.encode_tokens(encoder.tokens(spectrogram), valid_or_none)
        assert torch.equal(jointed.patches, whole.patches)
        assert torch.equal(jointed.cls, whole.cls)


@every({name: variant for name, variant in OF_TOKENS.items() if name in STEADY})
def test_positions_of_a_shorter_grid_are_those_of_the_longer_ones_first_columns(variant):
    encoder = build(variant)
    longer = encoder.positions(9).view(encoder.grid.rows, 9, -1)
    assert torch.equal(longer[:, :4].flatten(0, 1), encoder.positions(4))


@every({name: (piece, {}) for name, piece in ENCODERS.items() if issubclass(piece, TokenEncoder)})
@pytest.mark.parametrize("patch", [(16, 16), (128, 2), (8, 8), (3, 5)])
@pytest.mark.parametrize("n_mels", [20, 64, 128])
def test_any_patch(variant, patch, n_mels):
    encoder = build(variant, n_mels, patch=patch)
    for frames in (1, 17, 100):
        encoded, tokens = encoder(noise(1, n_mels, frames)), encoder.grid.count(frames)
        assert encoded.patches.shape == (1, tokens, encoder.embed_dim)
        assert encoded.patches.isfinite().all()
        assert encoder.positions(encoder.grid.columns(frames)).shape == (tokens, encoder.embed_dim)


@every(OF_TOKENS)
def test_gradient_checkpointing_changes_nothing(variant):
    results = []
    for checkpointing in (False, True):
        encoder = build(variant, checkpointing=checkpointing).train()
        encoded = encoder(noise(2, N_MELS, 64))
        encoded.patches.pow(3).sum().backward()
        results.append(
            [
                encoded.patches.detach(),
                *(p.grad for p in encoder.parameters() if p.grad is not None),
            ]
        )
    for plain, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(recomputed, plain)
