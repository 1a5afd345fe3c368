"""What every encoder promises, those of the catalogue and one of a user's own, and what token encoders add to it."""

import dataclasses
from typing import get_args, get_type_hints

import pytest
import safetensors.torch
import torch
from encoders.toy_hybrid import ToyHybrid

from melpatch import registry
from melpatch.config import from_toml, to_toml
from melpatch.encoders.base import Encoder, EncoderConfig, TokenEncoder
from melpatch.errors import ConfigError
from melpatch.nn.masking import Subset
from melpatch.nn.pooling import Pooling, pool, pooled_dim

SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch": (8, 8)}
NARROW = {
    "beats": {"patch_dim": 16, "conv_kernel": 6, "conv_groups": 4, "max_distance": 100},
    "byol_a": {"channels": 3, "hidden": 12, "output": 10},
    "cnn14": {"width": 2},
}
NAMES = ("nano", "mini", "tiny", "small", "base", "large")
N_MELS = 32


def kinds_of(piece):
    """The kinds of positions or networks to choose from; a piece without such a setting is of one kind."""
    hints = get_type_hints(piece.Config)
    for setting in ("positions", "network", "version"):
        if setting in hints:
            return [(f"-{kind}", {setting: kind}) for kind in get_args(hints[setting])]
    return [("", {})]


ENCODERS = {name: registry.find("encoders", name) for name in registry.names("encoders")}
ENCODERS["toy"] = ToyHybrid
VARIANTS = {
    f"{name}{kind}": (piece, NARROW.get(name, {}) | settings)
    for name, piece in ENCODERS.items()
    for kind, settings in kinds_of(piece)
}
OF_TOKENS = {
    name: variant for name, variant in VARIANTS.items() if issubclass(variant[0], TokenEncoder)
}


def every(variants):
    """Run a test on each of these variants."""
    return pytest.mark.parametrize("variant", variants.values(), ids=variants.keys())


def small_config(variant, **changes):
    """Settings of a small encoder of a kind; settings that it has not are left out."""
    piece, settings = variant
    known = {field.name for field in dataclasses.fields(piece.Config)}
    settings = {key: value for key, value in (SMALL | settings | changes).items() if key in known}
    return piece.Config(**settings)


def build(variant, n_mels=N_MELS, **changes):
    """A small encoder whose running statistics, if any, are no longer 0 and 1."""
    piece, _ = variant
    torch.manual_seed(0)
    encoder = piece(small_config(variant, **changes), n_mels).train()
    if [*encoder.buffers()]:
        for _ in range(10):
            encoder(noise(3, n_mels, 64))
    return encoder.eval()


def independent_of_length(variants):
    """The variants in which a clip's tokens do not depend on the length of the batch."""
    return {name: item for name, item in variants.items() if not build(item).length_dependent}


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


@every(independent_of_length(VARIANTS))
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
@torch.inference_mode()
def test_statistics_of_the_input_stand_beside_its_tokens(variant):
    encoder = build(variant)
    spectrogram, frames = unequal_clips()
    valid = encoder.grid.valid(frames, encoder.grid.columns(spectrogram.shape[2]))
    pooling = Pooling.parse("rows+mean+std+input")
    encoded = encoder(spectrogram, valid)
    statistics = encoder.input_statistics(spectrogram, pooling)
    patches, cls = encoded.pooled_tokens(pooling, statistics)
    assert patches.shape[2] == encoder.pooled_channels(pooling)
    assert torch.equal(patches[..., : encoder.embed_dim], encoded.patches)
    assert torch.equal(patches[..., encoder.embed_dim :], encoder.grid.statistics(spectrogram))
    vectors = pool(patches, cls, valid, encoder.grid.rows, pooling)
    assert vectors.shape[1] == pooled_dim(patches.shape[2], encoder.grid.rows, pooling)
    for clip, own in enumerate(frames.tolist()):
        alone = encoder.grid.statistics(spectrogram[clip : clip + 1, :, :own])[0]
        torch.testing.assert_close(patches[clip, valid[clip], encoder.embed_dim :], alone)


@every(VARIANTS)
def test_statistics_of_the_input_leave_gradients_finite(variant):
    """Where a mel bin does not change, as in padding and silence, a deviation has no slope."""
    encoder = build(variant).train()
    spectrogram, frames = unequal_clips()
    spectrogram[:, 3] = -1.0
    normalised = encoder.normalise(spectrogram, frames)
    valid = encoder.grid.valid(frames, encoder.grid.columns(spectrogram.shape[2]))
    pooling = Pooling.parse("rows+mean+std+delta+input")
    encoded = encoder(normalised, valid)
    tokens = encoded.pooled_tokens(pooling, encoder.input_statistics(normalised, pooling))
    pool(*tokens, valid, encoder.grid.rows, pooling).square().sum().backward()
    gradients = [own.grad for own in encoder.parameters() if own.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


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


@every({name: (piece, NARROW.get(name, {})) for name, piece in ENCODERS.items()})
@pytest.mark.parametrize("n_mels", [40, 64, 128])
def test_any_mels_and_any_length(variant, n_mels):
    encoder = build(variant, n_mels)
    for frames in (1, 17, 100):
        encoded = encoder(noise(1, n_mels, frames), layers=True)
        tokens, special = encoder.grid.count(frames), encoder.num_cls_tokens
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


@every(VARIANTS)
def test_every_parameter_belongs_to_a_layer(variant):
    encoder = build(variant)
    layers = encoder.parameter_layers()
    assert layers.keys() == {name for name, _ in encoder.named_parameters()}
    # There may be nothing before the first layer, and nothing after the last one.
    inner = {*range(1, encoder.num_layers + 1)}
    assert inner <= {*layers.values()} <= inner | {0, encoder.num_layers + 1}
    assert len(encoder.ordered_layers()) == encoder.num_layers


@every(VARIANTS)
def test_a_layers_output_depends_on_no_parameter_of_a_later_layer(variant):
    encoder = build(variant)
    layers = encoder.parameter_layers()
    outputs = encoder(noise(2, N_MELS, 64), layers=True).layers
    for number, output in enumerate(outputs, start=1):
        encoder.zero_grad()
        output.pow(3).sum().backward(retain_graph=True)
        reached = {
            layers[name]
            for name, parameter in encoder.named_parameters()
            if parameter.grad is not None and parameter.grad.any()
        }
        assert reached - {0} == {*range(1, number + 1)}


@every(VARIANTS)
def test_learned_tokens_are_parameters_with_the_channels_of_a_token(variant):
    encoder = build(variant)
    parameters = dict(encoder.named_parameters())
    # Some settings have none of the tokens that an encoder of the kind may have.
    found = [parameters[name] for name in encoder.learned_tokens() if name in parameters]
    assert all(parameter.shape[-1] == encoder.embed_dim for parameter in found)
    if encoder.num_cls_tokens and isinstance(encoder, TokenEncoder):
        assert found


@every(VARIANTS)
def test_positions_are_fitted_to_the_length_of_the_input(variant):
    config = small_config(variant).fit_positions(N_MELS, 700)
    encoder = variant[0](config, N_MELS).eval()
    encoded = encoder(noise(1, N_MELS, 700))
    assert encoded.patches.shape[1] == encoder.grid.count(700)


@every(VARIANTS)
@pytest.mark.parametrize("frames", [16, 300])
def test_weights_fit_an_encoder_for_another_length(variant, frames):
    source = build(variant)
    config = small_config(variant).fit_positions(N_MELS, frames)
    target = variant[0](config, N_MELS).eval()
    source.match_geometry(target)
    target.load_state_dict(source.state_dict())
    spectrogram = noise(2, N_MELS, min(frames, 64))
    assert source.grid == target.grid
    assert torch.equal(source(spectrogram).patches, target(spectrogram).patches)


@pytest.mark.parametrize("piece", ENCODERS.values(), ids=ENCODERS.keys())
def test_an_encoder_alone_needs_a_size_or_nothing(piece):
    with torch.device("meta"):
        assert piece().config == piece.Config()
        assert piece(size="nano").config == piece.Config.of_size("nano")
        assert piece(size="nano").grid.n_mels == 128
        assert piece(size="nano", n_mels=64).grid.n_mels == 64
        with pytest.raises(ConfigError, match=r"^size = 'nano' beside a config; give one of them"):
            piece(piece.Config(), size="nano")
    encoded = piece(size="nano").eval()(noise(2, 128, 100))
    assert encoded.patches.shape[0] == encoded.cls.shape[0] == 2


@pytest.mark.parametrize("piece", ENCODERS.values(), ids=ENCODERS.keys())
def test_settings_of_a_size_may_differ_from_it(piece):
    assert issubclass(piece.Config, EncoderConfig)
    field = next(field for field in dataclasses.fields(piece.Config) if field.type is int)
    value = 3 * getattr(piece.Config.of_size("nano"), field.name)
    config = piece.Config.of_size("nano", **{field.name: value})
    assert config == dataclasses.replace(piece.Config.of_size("nano"), **{field.name: value})


@pytest.mark.parametrize("piece", ENCODERS.values(), ids=ENCODERS.keys())
@pytest.mark.parametrize("recipe", ENCODERS.values(), ids=ENCODERS.keys())
def test_a_recipe_leaves_the_shapes_of_trained_weights(piece, recipe):
    config = piece.Config.of_size("nano")
    taken = config.with_recipe(recipe.Config.of_size("tiny"))
    with torch.device("meta"):
        before, after = piece(config), piece(taken)
    assert type(taken) is piece.Config
    assert [p.shape for p in before.parameters()] == [p.shape for p in after.parameters()]


@pytest.mark.parametrize("piece", ENCODERS.values(), ids=ENCODERS.keys())
def test_sizes_grow_with_their_names(piece):
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in piece(piece.Config.of_size(name), 128).parameters())
            for name in NAMES
        ]
    assert issubclass(piece, Encoder)
    assert counts == sorted(set(counts))
    with pytest.raises(ConfigError, match="size = 'huge'; allowed: " + ", ".join(NAMES)):
        piece.Config.of_size("huge")


# ------------------------------------------------------------------------------------------------ encoders of tokens


def subset(order):
    """These tokens of both clips."""
    indices = order.expand(2, -1)
    return Subset(indices, torch.ones_like(indices, dtype=torch.bool))


@every(OF_TOKENS)
def test_any_subset_in_any_order(variant):
    encoder = build(variant)
    tokens = encoder.tokens(noise(2, N_MELS, 64))
    order = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(0))[:9]
    some = encoder.encode_subset(tokens, subset(order))
    again = encoder.encode_subset(tokens, subset(order.flip(0)))
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


@every(independent_of_length(OF_TOKENS))
def test_positions_of_a_shorter_grid_are_those_of_the_longer_ones_first_columns(variant):
    encoder = build(variant)
    longer = encoder.positions(9).view(encoder.grid.rows, 9, -1)
    assert torch.equal(longer[:, :4].flatten(0, 1), encoder.positions(4))


@every(
    {
        name: (piece, NARROW.get(name, {}))
        for name, piece in ENCODERS.items()
        if issubclass(piece, TokenEncoder)
    }
)
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
def test_all_layers_have_the_channels_of_a_token(variant):
    encoder = build(variant)
    outputs = encoder(noise(1, N_MELS, 40), layers=True).layers
    assert {output.shape[2] for output in outputs} == {encoder.embed_dim}


@every(OF_TOKENS)
def test_a_patchs_embedding_depends_on_its_own_pixels_alone(variant):
    """Or else what is masked leaks into what is visible."""
    encoder = build(variant)
    spectrogram = noise(1, N_MELS, 64).requires_grad_()
    token = 5
    encoder.embed(spectrogram)[0, token].pow(3).sum().backward()
    touched = encoder.grid.split((spectrogram.grad != 0).float())[0].any(dim=1)
    assert touched.nonzero().flatten().tolist() == [token]


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
