"""SSLAM, which is a setting of EAT: targets of both sources, clip by clip."""

from dataclasses import replace

import pytest
import torch
from objectives.test_eat import eat, normed
from objectives.tiny_asit import batch

from melpatch.errors import ConfigError
from melpatch.nn.masking import join_splits
from melpatch.nn.mixtures import Mixtures

USED = Mixtures(use=True)


def parts(objective, data):
    """Return the clips, their mixtures and the targets of both sources."""
    spectrograms = objective.spectrograms(data)
    clips = objective.with_valid(*spectrograms)
    mixture = objective.mixture(data, spectrograms, 0)
    own = objective.targets(clips).patches
    return clips, mixture, own, objective.source_targets(data, clips, mixture, own)


@torch.inference_mode()
def test_sources_are_the_clip_and_what_sounds_of_its_partner():
    """The teacher gets the partner's patches that are in the mixture one by one, and no others."""
    objective, data = eat(mixtures=USED), batch()
    clips, mixture, own, sources = parts(objective, data)
    teacher = objective.teacher
    tokens = teacher.tokens(clips.spectrogram)
    for clip, partner in enumerate(data.partners.tolist()):
        mixed = mixture.mixed[clip]
        assert torch.equal(sources[clip, ~mixed], own[clip, ~mixed])
        if not mixed.any():
            continue
        outputs = teacher.mlp_outputs(tokens[partner, mixed][None])
        layers = [normed(output[0].tolist()) for output in outputs]
        expected = normed((sum(layers) / len(layers)).T.tolist()).T
        torch.testing.assert_close(sources[clip, mixed], (own[clip, mixed] + expected) / 2)
    assert mixture.mixed.any()


@torch.inference_mode()
def test_the_loss_is_over_clips_and_mixtures_and_sources():
    settings = {"mixtures": USED, "views": 2, "utterance_weight": 3.0, "utterance_layers": 1}
    objective, data = eat(**settings), batch()
    output = objective(data, 0)
    clips, mixture, _, sources = parts(objective, data)
    whole = objective.targets(clips)
    of_mixture = objective.targets(clips._replace(spectrogram=mixture.spectrogram))
    views = objective.mask_views(data, clips, 0)
    noise = objective.noise(data, clips, 0, 2).double().unflatten(0, (2, 2, -1))
    sums = {"patch": 0.0, "utterance": 0.0, "retention": 0.0}
    for kind, (spectrogram, targets) in enumerate(
        ((clips.spectrogram, whole), (mixture.spectrogram, of_mixture))
    ):
        tokens = objective.encoder.tokens(spectrogram)
        for view, split in enumerate(views):
            encoded = objective.encoder.encode_tokens(
                split.visible.gather(tokens), split.visible.valid
            )
            seen = split.visible.scatter(encoded.patches, noise[view, kind])
            decoded = objective.decoder(seen, objective.grid_size(clips), clips.valid)
            for clip in range(len(data)):
                places = split.masked.indices[clip, split.masked.valid[clip]]
                for place in places.tolist():
                    gap = decoded[clip, place] - targets.patches[clip, place]
                    sums["patch"] += gap.square().sum().item() / 24**0.5
                    gap = encoded.cls[clip, 0] - targets.utterance[clip]
                    sums["utterance"] += gap.square().sum().item() / 24**0.5
                    if kind:
                        gap = decoded[clip, place] - sources[clip, place]
                        sums["retention"] += gap.square().sum().item() / 24**0.5
    masked = output.weight.item()
    assert masked == 2 * join_splits(views).masked.valid.sum()
    expected = {name: total / masked for name, total in sums.items()}
    expected["retention"] *= 2  # over the mixtures alone
    for name, value in expected.items():
        assert output.metrics[name].item() == pytest.approx(value), name
    loss = expected["patch"] + 3 * expected["utterance"] + expected["retention"]
    assert output.loss.item() == pytest.approx(loss)


@torch.inference_mode()
def test_the_utterance_target_of_the_last_layer_is_its_own():
    features = eat().features(batch())
    last = eat(utterance_layers=1, target_layers=2).targets(features).utterance
    torch.testing.assert_close(last, eat(target_layers=1).targets(features).utterance)


@torch.inference_mode()
def test_a_clip_without_partner_is_its_own_mixture():
    objective = eat(mixtures=USED, noise=0.0)
    data = replace(batch(), partner=torch.arange(4)[:, None].expand(4, 2))
    clips, mixture, own, sources = parts(objective, data)
    assert torch.equal(mixture.spectrogram, clips.spectrogram)
    assert torch.equal(sources, own)
    metrics = objective(data, 0).metrics
    assert metrics["retention"].item() == pytest.approx(metrics["patch"].item())
    assert metrics["patch"].item() == pytest.approx(eat(noise=0.0)(data, 0).metrics["patch"].item())


def test_retention_trains_the_encoding_of_visible_patches():
    objective = eat(mixtures=USED)
    objective(batch(), 0).metrics["retention"].backward()
    assert objective.encoder.projection.weight.grad.any()
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())


def test_partners_stay_in_one_batch():
    objective = eat(mixtures=USED)
    assert objective.clips_together(objective.config) == 2
    assert eat().clips_together(eat().config) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixtures": USED, "views": 17}, "views = 17; allowed: 1 to 16"),
        ({"utterance_layers": 3}, "objective.utterance_layers = 3; allowed: 0 to 2"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        eat(**settings)
