"""EAT: its views, its targets against loops, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from encoders.toy_hybrid import ToyHybrid
from objectives.tiny_asit import LONGEST, PATCH, RATE, batch
from objectives.tiny_masked import MELS
from torch import nn

from melpatch.audio.logmel import LogMel
from melpatch.data.clip import Batch
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.base import EncoderConfig
from melpatch.encoders.beats import BEATs
from melpatch.encoders.vit import ViT
from melpatch.errors import ConfigError
from melpatch.nn.conv_decoder import ConvDecoder
from melpatch.nn.ema import Momentum
from melpatch.nn.masking import Masking, Subset, join_splits
from melpatch.objectives import eat as module
from melpatch.objectives.base import Plan
from melpatch.objectives.eat import EAT
from melpatch.recipes.base import recipe
from melpatch.training.config import RunConfig, build

PLAN = Plan(steps=100, batch_size=4, seconds=LONGEST, longest_segment=LONGEST)


def eat(encoder=None, **settings):
    """A tiny one in double precision."""
    tiny = {"embed_dim": 24, "depth": 2, "num_heads": 3, "patch": (PATCH, PATCH), "norm": "post"}
    chosen = {
        "views": 3,
        "mask": Masking.Config(kind="inverse_block", sides=(2,), ratio=0.6),
        "decoder": ConvDecoder.Config(depth=2, groups=4),
    }
    if not isinstance(encoder, EncoderConfig):
        encoder = ViT.Config(**tiny | (encoder or {}))
    config = RunConfig(
        front_end=LogMel.Config(sample_rate=RATE, n_mels=MELS, scale=1.0),
        encoder=encoder,
        objective=EAT.Config(**chosen | settings),
        loader=LoaderConfig(seconds=LONGEST),
    )
    objective, generator = build(config).double().eval(), torch.Generator().manual_seed(0)
    for parameter in objective.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return objective


@torch.inference_mode()
def test_views_mask_as_many_patches_in_other_places():
    objective, data = eat(), batch()
    features = objective.features(data)
    split = join_splits(objective.mask_views(data, features, 0))
    counts = split.masked.valid.sum(dim=1).view(3, 4)
    assert torch.equal(counts, counts[:1].expand(3, 4))
    masks = split.masked.as_mask(features.valid.shape[1]).view(3, 4, -1)
    assert not torch.equal(masks[0, 0], masks[1, 0])
    # Padding is in neither part.
    visible = split.visible.as_mask(features.valid.shape[1]).view(3, 4, -1)
    assert torch.equal(masks | visible, features.valid.expand(3, 4, -1))


def normed(rows, eps=1e-5):
    """Return each column of a list of rows with mean 0 and variance 1."""
    table = torch.tensor(rows, dtype=torch.float64)
    mean = table.sum(0) / len(rows)
    variance = ((table - mean) ** 2).sum(0) / len(rows)
    return (table - mean) / (variance + eps).sqrt()


@pytest.mark.parametrize("target", ["mlp", "blocks"])
@pytest.mark.parametrize("layers", [0, 1])
@torch.inference_mode()
def test_targets_are_those_of_the_loop_over_clips(target, layers):
    """Of each clip alone, cut to its length."""
    objective, data = eat(target=target, target_layers=layers), batch()
    features = objective.features(data)
    targets = objective.targets(features)
    columns = objective.encoder.grid.columns(features.spectrogram.shape[2])
    for clip, length in enumerate(data.lengths.tolist()):
        frames = objective.front_end.frames(length)
        tokens = objective.teacher.tokens(features.spectrogram[clip : clip + 1, :, :frames])
        if target == "mlp":
            outputs = objective.teacher.mlp_outputs(tokens)
        else:
            encoded = objective.teacher.encode_tokens(tokens, layers=True)
            outputs = [layer[:, 1:] for layer in encoded.layers]
        chosen = [normed(output[0].tolist()) for output in outputs[-layers:]]
        mean = sum(chosen) / len(chosen)
        expected = normed(mean.T.tolist()).T
        own = targets.patches[clip].view(4, columns, -1)[:, : len(expected) // 4].flatten(0, 1)
        torch.testing.assert_close(own, expected)
        torch.testing.assert_close(targets.utterance[clip], expected.mean(dim=0))


@torch.inference_mode()
def test_the_whole_loss_is_patch_and_weighted_utterance():
    output = eat(utterance_weight=3.0)(batch(), 0)
    metrics = output.metrics
    assert output.loss.item() == pytest.approx(
        metrics["patch"].item() + 3 * metrics["utterance"].item()
    )
    alone = eat(utterance_weight=0.0, encoder={"cls_tokens": 0})(batch(), 0)
    assert set(alone.metrics) == {"patch", "clip_mean"}
    assert alone.loss.item() == alone.metrics["patch"].item()


@torch.inference_mode()
def test_the_instance_norm_takes_the_utterance_away_that_raw_keeps():
    features = eat().features(batch())
    normed_target = eat().targets(features).utterance
    raw = eat(utterance_target="raw").targets(features).utterance
    assert raw.square().mean() > 2 * normed_target.square().mean()


@pytest.mark.parametrize("weight", [0.0, 3.0])
@torch.inference_mode()
def test_targets_of_whole_clips_are_measured_where_they_are_trained(weight):
    objective, data = eat(utterance_weight=weight), batch()
    measured = objective.masked_targets(data, 0).utterance
    if weight:
        assert torch.equal(measured, objective.targets(objective.features(data)).utterance)
    else:
        assert measured is None


@torch.no_grad()
def test_the_teacher_follows_with_everything():
    objective = eat(momentum=Momentum(start=0.5, end=1.0, share=0.5))
    objective.begin(PLAN)
    for step, moved in ((0, 0.5), (25, 0.25), (50, 0.0), (99, 0.0)):
        objective.begin(PLAN)
        before = objective.teacher.projection.weight.clone()
        objective.encoder.projection.weight.add_(1.0)
        objective.after_step(step)
        change = objective.teacher.projection.weight - before
        torch.testing.assert_close(change, torch.full_like(change, moved))


def test_targets_that_are_all_alike_are_told():
    objective = eat()
    assert objective.warning({"clip_mean": 4.0}, 0) is None
    assert "--objective.momentum.start" in objective.warning({"clip_mean": 0.001}, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": {"cls_tokens": 0}}, "utterance_weight = 192.0; allowed: 0 for an encoder"),
        ({"views": 33}, "views = 33; allowed: 1 to 32"),
        ({"target_layers": 3}, "objective.target_layers = 3; allowed: 0 to 2"),
        ({"decoder": ConvDecoder.Config(groups=16)}, "objective.decoder.groups = 16"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        eat(**settings)


def test_no_flag_is_suggested_that_the_encoder_lacks():
    with pytest.raises(ConfigError, match=r"without class token$"):
        eat(BEATs.Config(embed_dim=16, num_heads=2, patch=(PATCH, PATCH)))


def test_more_views_than_memory_holds_are_refused_with_their_cost(monkeypatch):
    """A view of 4 clips of 24 patches keeps 3 x 2 x 24 channels of each in the decoder, in 2 bytes, and of each visible
    token and the class token 9 x 24 in each of 2 blocks."""
    objective = eat()
    visible = 24 - objective.masking.masked_of(24, 24)
    assert 0 < visible < 12
    view = 2 * 4 * (3 * 2 * 24 * 24 + (visible + 1) * 2 * 9 * 24)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module, "memory_bytes", lambda: 3 * view)
    objective.check_plan(PLAN)
    monkeypatch.setattr(module, "memory_bytes", lambda: 3 * view - 1)
    with pytest.raises(
        ConfigError, match=r"objective\.views = 3; allowed: 1 to 2, since a view of 4"
    ):
        objective.check_plan(PLAN)
    monkeypatch.setattr(module, "memory_bytes", lambda: None)
    objective.check_plan(PLAN)


@torch.inference_mode()
def test_published_views_show_exactly_102_patches_and_share_their_targets():
    """On the grid of 10 s: 102 of 512 in every view, and a target is the same in every view that has it."""
    config = recipe("eat")("nano")
    encoder = ViT.Config.of_size("nano", norm="post", cls_tokens=1, partial="drop", depth=1)
    objective = build(replace(config, encoder=encoder)).eval()
    samples = round(config.loader.seconds * 16000)
    noise = torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    data = Batch(0.1 * noise, torch.tensor([samples]), torch.tensor([5]))
    objective.begin(Plan(steps=10, batch_size=1, seconds=10.255, longest_segment=10.255))
    features = objective.features(data)
    split = join_splits(objective.mask_views(data, features, 3))
    assert split.visible.valid.sum(dim=1).tolist() == [102] * 16
    assert split.masked.valid.sum(dim=1).tolist() == [410] * 16
    targets = objective.targets(features).patches
    of_views = split.masked.gather(targets.repeat(16, 1, 1))
    whole = split.masked.scatter(of_views, torch.zeros_like(targets).repeat(16, 1, 1))
    masks = split.masked.as_mask(512)
    assert all(
        torch.equal(view[mask], targets[0, mask]) for view, mask in zip(whole, masks, strict=True)
    )


@torch.inference_mode()
def test_masked_pixels_cannot_reach_the_student():
    objective, data = eat(), batch()
    features = objective.features(data)
    split = join_splits(objective.mask_views(data, features, 0))
    empty = objective.noise(data, features, 0)
    patches = objective.encoder.grid.split(features.spectrogram)
    # Of the first view alone, so that the other views may change.
    first = Subset(split.masked.indices[: len(data)], split.masked.valid[: len(data)])
    changed = {}
    for name, subset in (("masked", first), ("visible", _first_visible(split, data))):
        louder = subset.scatter(subset.gather(patches) + 1.0, patches)
        spectrogram = objective.encoder.grid.join(louder, features.spectrogram.shape[2])
        changed[name] = objective.predict(features._replace(spectrogram=spectrogram), split, empty)
    predictions, cls = objective.predict(features, split, empty)
    count = len(data)
    assert torch.equal(changed["masked"][0][:count], predictions[:count])
    assert torch.equal(changed["masked"][1][:count], cls[:count])
    assert not torch.equal(changed["masked"][0][count:], predictions[count:])
    assert not torch.equal(changed["visible"][0][:count], predictions[:count])


def _first_visible(split, data):
    return Subset(split.visible.indices[: len(data)], split.visible.valid[: len(data)])


def test_an_encoder_without_mlps_can_have_its_outputs_predicted():
    toy = ToyHybrid.Config(patch=(PATCH, PATCH))
    with pytest.raises(ConfigError, match=r"objective\.target = 'mlp'; allowed: blocks"):
        eat(toy)
    with pytest.raises(
        ConfigError, match=r"the layers of encoders\.toy_hybrid:ToyHybrid have no MLP"
    ):
        eat(toy, target="blocks").encoder.mlp_outputs(torch.zeros(1, 4, 24))
    assert eat(toy, target="blocks")(batch(), 0).loss.isfinite()
