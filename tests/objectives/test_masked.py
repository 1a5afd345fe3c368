"""What masked autoencoders have in common: nothing leaks, all masks work, and what cannot be trained is refused."""

from typing import get_args, get_type_hints

import pytest
import torch
from objectives.tiny_asit import batch, plan, samples
from objectives.tiny_masked import MELS, PATCH, masked

from melpatch.audio.logmel import LogMel
from melpatch.encoders.cnn14 import CNN14
from melpatch.errors import ConfigError
from melpatch.nn.masking import Masking
from melpatch.objectives.base import Features
from melpatch.objectives.mae_ast import MAEAST
from melpatch.objectives.maskspec import MaskSpec
from melpatch.training.config import RunConfig, build

EVERY = pytest.mark.parametrize("piece", [MAEAST, MaskSpec])
KINDS = get_args(get_type_hints(Masking.Config)["kind"])


def passed(objective, data, features):
    """What flows through a forward pass: what the encoder is given and returns, and what each later part returns."""
    flow = {}
    # An objective that changes the wave by chance gets its features from the second one.
    stand_ins = {"features": lambda _: features, "augmented": lambda *_: features}
    for name, stand_in in stand_ins.items():
        setattr(objective, name, stand_in)
    parts = {
        name: part
        for name, part in objective.named_children()
        if name == "decoder" or name.endswith("head")
    }

    def given(_, arguments, output):
        tokens, valid = arguments[:2]
        flow["valid"] = (
            torch.ones_like(tokens[..., 0], dtype=torch.bool) if valid is None else valid
        )
        flow["given"], flow["encoded"] = tokens[flow["valid"]], output[0][flow["valid"]]

    hooks = [objective.encoder.transformer.register_forward_hook(given)]
    for name, part in parts.items():
        hooks.append(
            part.register_forward_hook(lambda _, __, output, name=name: flow.update({name: output}))
        )
    flow["loss"] = objective(data, 0).loss
    for hook in hooks:
        hook.remove()
    for name in stand_ins:
        delattr(objective, name)
    return flow


def changed(objective, features, tokens):
    """The features with other sound, both in level and in shape, at some tokens."""
    grid, (spectrogram, valid) = objective.encoder.grid, features
    patches = grid.split(spectrogram)
    patches = torch.where(tokens[..., None], patches.square() + 10, patches)
    return Features(grid.join(patches, spectrogram.shape[2]), valid)


@pytest.mark.parametrize("frames", [(48, 48), (48, 20, 31, 5)])
@pytest.mark.parametrize("attention", ["global", "windows"])
@EVERY
@torch.inference_mode()
def test_what_is_hidden_reaches_nothing_that_is_predicted(piece, attention, frames):
    objective, data = masked(piece, decoder={"attention": attention}), batch(frames)
    features = objective.features(data)
    hidden = objective.mask_patches(data, features, 0).masked.as_mask(24)
    before = passed(objective, data, features)
    after = passed(objective, data, changed(objective, features, hidden))
    assert not torch.equal(after.pop("loss"), before.pop("loss"))  # it is what is to be told
    assert before.keys() >= {"given", "encoded", "decoder"}
    assert len(before) == (6 if piece is MAEAST else 5)
    for name, value in before.items():
        assert torch.equal(after[name], value), name


@pytest.mark.parametrize("cls", [0, 1, 2])
@EVERY
@torch.inference_mode()
def test_the_encoder_is_given_the_visible_patches_and_no_others(piece, cls):
    for frames in ((48, 48), (48, 20, 31, 5)):
        objective, data = masked(piece, encoder={"cls_tokens": cls}), batch(frames)
        features = objective.features(data)
        visible = objective.mask_patches(data, features, 0).visible
        flow, tokens = (
            passed(objective, data, features),
            objective.encoder.tokens(features.spectrogram),
        )
        shown = [own[there] for own, there in zip(visible.indices, visible.valid, strict=True)]
        assert flow["valid"].shape == (
            len(frames),
            cls + 6,
        )  # of the longest: the encoder works on no more
        counts = [cls + len(own) for own in shown]
        assert flow["valid"].sum(dim=1).tolist() == counts
        for clip, given in enumerate(flow["given"].split(counts)):
            assert torch.equal(given[cls:], tokens[clip, shown[clip]])


@EVERY
@torch.inference_mode()
def test_every_visible_patch_reaches_all_predictions_of_its_clip_and_no_others(piece):
    objective, data = masked(piece), batch((48, 31))
    features = objective.features(data)
    hidden, visible = objective.mask_patches(data, features, 0)
    name = "head" if piece is MaskSpec else "generative_head"
    before = passed(objective, data, features)[name]
    for token in visible.indices[1, visible.valid[1]]:
        only = torch.zeros_like(features.valid)
        only[1, token] = True
        after = passed(objective, data, changed(objective, features, only))[name]
        moved = (after != before).any(dim=2)
        assert moved[1, hidden.valid[1]].all()
        assert not moved[0].any()


@pytest.mark.parametrize("kind", KINDS)
@EVERY
def test_every_mask_hides_its_share_and_is_learnt_from(piece, kind):
    objective = masked(piece, mask=Masking.Config(kind=kind, ratio=0.6, sides=(2,), span=3)).train()
    frames = (48, 48) if kind == "cluster_legacy" else (48, 5, 31)  # it knows no padding
    data = batch(frames)
    features = objective.features(data)
    hidden, visible = objective.mask_patches(data, features, 0)
    patches = [4 * objective.encoder.grid.columns(own) for own in frames]
    assert hidden.valid.sum(dim=1).tolist() == [int(0.6 * count) for count in patches]
    assert visible.valid.sum(dim=1).tolist() == [count - int(0.6 * count) for count in patches]
    both = hidden.as_mask(24).int() + visible.as_mask(24).int()
    assert torch.equal(
        both, torch.ones_like(both) if features.valid is None else features.valid.int()
    )
    output = objective(data, 0)
    output.loss.backward()
    assert output.loss.isfinite()
    assert output.weight == hidden.valid.sum()
    for name, parameter in objective.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("attention", ["global", "windows"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cluster_legacy"])
@EVERY
def test_a_clip_of_a_single_patch_hides_nothing_and_is_harmless(piece, kind, attention):
    settings = {"encoder": {"patch": (MELS, PATCH)}, "decoder": {"attention": attention}}
    objective = masked(piece, mask=Masking.Config(kind=kind), **settings).train()
    for frames, hidden in (((5,), 0), ((5, 3, 5), 0), ((5, 48), 4)):
        objective.zero_grad()
        output = objective(batch(frames), 0)
        output.loss.backward()
        assert output.weight == hidden
        assert output.loss.isfinite()
        assert (output.loss == 0) == (hidden == 0)
        assert all(parameter.grad.isfinite().all() for parameter in objective.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"mask": Masking.Config(ratio=0.999)},
            r"objective.mask.ratio = 0.999; allowed: 1 to 23 masked patches, since 48 frames give 4 x 6 = 24; mask",
        ),
        ({"mask": Masking.Config(ratio=0.01)}, "objective.mask.ratio = 0.01; allowed: 1 to 23"),
        (
            {"mask": Masking.Config(num_masked=24)},
            "objective.mask.num_masked = 24; allowed: 1 to 23",
        ),
        (
            {"encoder": {"patch": (8, 8), "stride": (8, 4)}},
            r"encoder.stride = \(8, 4\); allowed: \(8, 8\); overlapping",
        ),
    ],
    ids=str,
)
@EVERY
def test_what_cannot_be_trained_is_refused_before_the_first_step(piece, settings, message):
    objective = masked(piece, **settings)
    with pytest.raises(ConfigError, match=message):
        objective.begin(plan())


@pytest.mark.parametrize("number", [1, 23])
@EVERY
def test_the_ends_of_what_is_allowed_are_trained(piece, number):
    objective, data = masked(piece, mask=Masking.Config(num_masked=number)), batch((48, 20))
    objective.begin(plan())
    output = objective(data, 0)
    assert output.loss.isfinite()
    assert output.weight == number + number * 12 // 24


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        ({"depth": 5}, "objective.decoder.depth = 5; allowed: 1 to 4, twice the encoder's blocks"),
        ({"num_heads": 5}, "objective.decoder.num_heads = 5; allowed: a divisor of 16"),
        (
            {"dim": None, "num_heads": 5},
            "num_heads = 5; allowed: a divisor of 24, .* set --objective.decoder.num-heads",
        ),
    ],
    ids=str,
)
@EVERY
def test_a_decoder_that_does_not_fit_the_encoder_is_refused(piece, decoder, message):
    with pytest.raises(ConfigError, match=message):
        masked(piece, decoder=decoder)


@EVERY
def test_an_encoder_without_patch_tokens_is_refused(piece):
    config = RunConfig(
        front_end=LogMel.Config(), encoder=CNN14.Config(width=1), objective=piece.Config()
    )
    with pytest.raises(
        ConfigError,
        match=f"{piece.__name__} works on patch tokens, which cnn14 does not have; leave --enc",
    ):
        build(config)


@EVERY
@torch.inference_mode()
def test_features_are_normalised_as_the_encoder_wants_them(piece):
    objective, data = masked(piece, encoder={"input_norm": "batch"}).train(), batch()
    spectrogram, frames = objective.front_end(data.wave, data.lengths)
    valid = torch.arange(48) < frames[:, None]
    features = objective.features(data)
    sound = features.spectrogram.transpose(1, 2)[valid]
    assert sound.mean().item() == pytest.approx(0, abs=1e-9)
    assert sound.std(correction=0).item() == pytest.approx(0.5, abs=1e-4)
    mean, variance = (
        objective.encoder.input_norm.running_mean,
        objective.encoder.input_norm.running_var,
    )
    rested = objective.eval().features(data).spectrogram
    expected = 0.5 * (spectrogram - mean) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(rested, expected * valid[:, None])
    assert not torch.allclose(rested, features.spectrogram, atol=0.1)


@EVERY
def test_the_longest_segment_is_what_the_front_end_pads_to(piece):
    front_end = {"padding": "legacy", "target_frames": 64}
    objective = masked(piece, front_end=front_end, mask=Masking.Config(num_masked=20))
    objective.begin(plan())
    assert objective.masking.window == 32
    data = batch((48, 5))
    assert data.wave.shape[1] == samples(48)
    hidden = objective.mask_patches(data, objective.features(data), 0).masked
    assert hidden.valid.sum(dim=1).tolist() == [20, 20]
