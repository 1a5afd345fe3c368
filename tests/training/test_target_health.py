"""Gauges of a teacher's targets, on targets of which the answer is known."""

from dataclasses import replace

import pytest
import torch
from small_objectives import small
from tiny_runs import noises, settings

from melpatch.data.manifest import load_corpus
from melpatch.nn.masking import Subset
from melpatch.objectives.latent import MaskedTargets
from melpatch.objectives.m2d import M2D
from melpatch.training import health as gauges
from melpatch.training.config import build
from melpatch.training.health import EmbeddingHealth
from melpatch.training.target_health import PlacedTargets, sample, target_health, target_warning

CLIPS, PLACES, DIM = 40, 10, 16


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def health_of(targets):
    """Of targets (clip, place, dim), each clip a part of its own."""
    places = torch.stack([torch.zeros(targets.shape[1]), torch.arange(targets.shape[1])], dim=1)
    return target_health([PlacedTargets(places.long(), clip) for clip in targets])


def test_targets_of_their_own_differ_in_everything():
    values = health_of(noise(CLIPS, PLACES, DIM))
    assert values["target_spread"] == pytest.approx(1, abs=0.02)
    assert values["target_of_place"] == pytest.approx(0, abs=0.02)
    assert values["target_rank"] > 15


def test_what_is_the_same_for_all_clips_at_a_place_is_its_share_of_the_energy():
    """3 of 4 parts of the energy, also where there are few clips."""
    of_place = 3**0.5 * noise(1, PLACES, DIM)
    for clips in (4, CLIPS):
        values = health_of(of_place + noise(clips, PLACES, DIM, seed=1))
        assert values["target_of_place"] == pytest.approx(0.75, abs=0.05)
    assert health_of(of_place.expand(CLIPS, -1, -1))["target_of_place"] == pytest.approx(1)


def test_targets_that_are_all_alike_have_no_spread_and_no_rank():
    values = health_of(torch.ones(CLIPS, PLACES, DIM))
    assert values["target_spread"] == pytest.approx(0, abs=1e-5)
    assert values["target_of_place"] == pytest.approx(1)
    assert values["target_rank"] == 0
    assert target_health([PlacedTargets(torch.zeros(1, 2).long(), torch.ones(1, DIM))]) == {}


def test_a_sample_is_of_valid_patches_at_their_places():
    masked = Subset(
        torch.arange(50).flip(0).expand(2, -1),
        torch.arange(50) < torch.tensor([[50], [3]]),
    )
    targets = masked.indices[..., None].double().expand(-1, -1, DIM)
    places, values, _ = sample(MaskedTargets(masked, targets, columns=5))
    assert torch.equal(values[:, 0].long(), 5 * places[:, 0] + places[:, 1])
    assert places[:, 1].max() == 4
    assert (
        len(places) == 32 + 2
    )  # of 50 places 0, 1 and 3, ... are taken, of which 0 and 1 are valid
    assert values.dtype == torch.float32


def test_places_are_the_same_in_batches_of_all_widths():
    """Targets that are a function of the place alone, of clips of unequal length."""
    of_place = noise(2, 12, DIM)
    parts = []
    for columns in (6, 8, 12):
        numbers = torch.arange(2 * columns).expand(3, -1)
        targets = of_place[:, :columns].flatten(0, 1).expand(3, -1, -1)
        masked = Subset(numbers, torch.ones_like(numbers, dtype=torch.bool))
        parts.append(sample(MaskedTargets(masked, targets, columns)))
    assert target_health(parts)["target_of_place"] == pytest.approx(1)


def test_targets_of_clips_are_compared_with_those_of_patches_and_with_each_other():
    """A tenth of the deviation is 1 % of the energy; 3 of 4 parts of it are the same for all."""
    places = torch.stack([torch.zeros(PLACES), torch.arange(PLACES)], dim=1).long()
    of_all = 3**0.5 * noise(1, 4096)
    utterances = 0.1 * (of_all + noise(CLIPS, 4096, seed=1)) / 2
    targets = noise(CLIPS, PLACES, 4096, seed=2)
    parts = [
        PlacedTargets(places, clip, utterance[None])
        for clip, utterance in zip(targets, utterances, strict=True)
    ]
    values = target_health(parts)
    assert values["utterance_energy"] == pytest.approx(0.01, rel=0.05)
    assert values["utterance_of_all"] == pytest.approx(0.75, abs=0.02)
    without = target_health([part._replace(utterances=None) for part in parts])
    assert values.keys() - without.keys() == {"utterance_energy", "utterance_of_all"}
    assert target_health(parts[:1]).keys() == without.keys()


START = {"target_spread": 0.7, "target_of_place": 0.4, "target_rank": 50.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"target_spread": 0.04}, "the targets of all clips are alike (they differ by 4.0%"),
        ({"target_of_place": 0.96}, "96% of the targets is the same for all clips at a place"),
        ({"target_rank": 4.0}, "effective rank fell from 50.0 to 4.0"),
    ],
)
def test_a_collapse_is_told_in_words_with_a_remedy(change, words):
    warning = target_warning(START | change, START)
    if words is None:
        assert warning is None
    else:
        assert words in warning
        assert "--objective.momentum.start" in warning


def test_a_run_with_a_teacher_logs_them_and_warns(tmp_path, monkeypatch):
    noises(tmp_path / "noise", seconds=(0.4,) * 6)
    config = replace(settings(steps=2), objective=small(M2D.Config()))
    corpus = load_corpus([tmp_path / "noise"])
    objective = build(config)
    health = EmbeddingHealth(corpus, config, objective)
    notices = []
    monkeypatch.setattr(gauges, "notice", notices.append)
    with torch.no_grad():
        assert health.start.keys() == health(objective, 1).keys() > START.keys()
    assert notices == []
    masked_targets = objective.masked_targets

    def replaced(found):
        return found._replace(targets=1 + 0 * found.targets)

    monkeypatch.setattr(
        objective,
        "masked_targets",
        lambda batch, step: replaced(masked_targets(batch, step)),
    )
    with torch.no_grad():
        health(objective, 2)
    assert "the targets of all clips are alike" in notices[0]
