"""What every protocol promises, whoever wrote it; and what every probe, which learns from frozen features, does."""

import json
from dataclasses import MISSING, fields, replace
from typing import get_args

import numpy as np
import pytest
import torch
from protocols.made_up import LABELS, accuracy, corpus, job, relabelled
from sklearn.metrics import roc_auc_score

from melpatch import registry
from melpatch.config import from_dict, to_dict
from melpatch.errors import ConfigError
from melpatch.evaluation.probe import Probe
from melpatch.evaluation.protocol import Protocol
from melpatch.evaluation.splits import ValidationSource

QUICK = {
    "knn": {"k": 3},
    "superb_frozen": {"steps": 40, "every": 20, "lr": 0.1, "projection": 8},
    "hear": {
        "lr": (0.03, 0.01),
        "hidden_layers": (1,),
        "points": 2,
        "hidden_dim": 16,
        "epochs": 9,
        "batch_size": 16,
    },
    "attentive": {"epochs": 6, "heads": 2, "lr": 0.03, "batch_size": 16},
    "prototype": {"epochs": 8, "prototypes": 4, "lr": 0.1, "batch_size": 16},
}
"""Settings that let a protocol learn something easy in no time."""

NAMES = registry.names("protocols")
PROBES = [name for name in NAMES if issubclass(registry.find("protocols", name), Probe)]
TRAINED = [name for name in PROBES if registry.find("protocols", name).validation != "none"]


@pytest.fixture(params=NAMES)
def kind(request):
    return registry.find("protocols", request.param)


@pytest.fixture(params=PROBES)
def probe(request):
    return registry.find("protocols", request.param)(**QUICK.get(request.param, {}))


def test_how_it_scores_is_stated(kind):
    assert issubclass(kind, Protocol)
    assert kind.version >= 1
    assert kind.validation in get_args(ValidationSource)
    assert len(kind.selection_rule.split()) > 2
    assert kind.num_seeds >= 1
    assert kind().split_rule()
    assert {kind().metric(False), kind().metric(True)} <= {"accuracy", "mAP"}


def test_it_has_settings_that_json_holds_and_gives_back(kind):
    assert all(field.default is not MISSING for field in fields(kind))
    assert from_dict(kind, json.loads(json.dumps(to_dict(kind())))) == kind()
    assert hash(kind()) == hash(kind())  # frozen


def test_numbers_below_0_are_refused_by_name(kind):
    for field in fields(kind):
        if type(field.default) in (int, float):
            with pytest.raises(ConfigError, match=rf"^{field.name} = -1.*; allowed: \S+"):
                kind(**{field.name: type(field.default)(-1)})


def test_what_is_easy_is_learnt(probe, tmp_path):
    trials, told = probe.run_trials(job(tmp_path, corpus()))
    assert accuracy(trials) > 0.9
    assert told["splits"] == [
        {
            "split": "test",
            "train_clips": 60,
            "val_clips": 0 if probe.validation == "none" else 30,
            "test_clips": 30,
        }
    ]
    for trial in trials:
        assert trial.probabilities.sum(axis=1) == pytest.approx(np.ones(len(trial.clips)), abs=1e-5)


def test_every_fold_is_scored_once(probe, tmp_path):
    folds = corpus(90, splits=("a", "b", "c"))
    trials, _ = probe.run_trials(job(tmp_path, folds))
    assert sorted(clip.path for trial in trials for clip in trial.clips) == sorted(
        clip.path for clip in folds.clips
    )
    assert accuracy(trials) > 0.9


def test_labels_that_say_nothing_are_chance(probe, tmp_path):
    """Features tell other labels than those that are learnt and scored."""
    whole = corpus(240)
    drawn = dict(
        zip(
            (clip.key for clip in whole.clips),
            np.random.default_rng(0).permutation(240) % 3,
            strict=True,
        )
    )
    shuffled = relabelled(whole, lambda clip: (LABELS[drawn[clip.key]],))
    trials, _ = probe.run_trials(job(tmp_path, shuffled, told=whole))
    assert accuracy(trials) < 0.55  # a third of 60 clips, and 3.6 standard errors


def test_the_same_seed_gives_the_same_predictions(probe, tmp_path):
    found = []
    for number, seed in enumerate((0, 0, 1)):
        torch.manual_seed(number)  # what the rest of the program does with chance is not heard
        whole = corpus(labels_of=lambda n: (LABELS[n * n % 7 % 3],))
        (trial,), _ = probe.run_trials(job(tmp_path / f"{number}", whole, seeds=(seed,)))
        found.append(trial.probabilities)
    assert np.array_equal(found[0], found[1])
    if registry.name_of(type(probe)) in TRAINED:
        assert not np.array_equal(found[0], found[2])


def predicted(probe, one_job):
    """Probabilities by clip."""
    trials, _ = probe.run_trials(one_job)
    return {
        clip.key: row
        for trial in trials
        for clip, row in zip(trial.clips, trial.probabilities, strict=True)
    }


def test_labels_of_scored_clips_have_no_part_in_their_predictions(probe, tmp_path):
    whole = corpus()
    swapped = relabelled(whole, lambda clip: (LABELS[0],) if clip.split == "test" else clip.labels)
    first, second = (predicted(probe, job(tmp_path / one.clips[4].labels[0] / str(n), one, told=whole))
                     for n, one in enumerate((whole, swapped)))  # fmt: skip
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)


def test_scored_clips_do_not_see_each_other(probe, tmp_path):
    whole = corpus()
    tests = [clip for clip in whole.clips if clip.split == "test"]
    fewer = replace(whole, clips=tuple(clip for clip in whole.clips if clip not in tests[::2]))
    first, second = (
        predicted(probe, job(tmp_path / "all", whole)),
        predicted(probe, job(tmp_path / "half", fewer)),
    )
    assert second.keys() == {clip.key for clip in tests[1::2]}
    for key, row in second.items():
        assert row == pytest.approx(first[key], abs=1e-5)


def test_a_label_that_no_training_clip_has_is_only_improbable(probe, tmp_path):
    whole = corpus()
    seen = replace(
        whole, clips=tuple(c for c in whole.clips if c.split == "test" or c.labels != ("dog",))
    )
    trials, _ = probe.run_trials(job(tmp_path, seen))
    column = LABELS.index("dog")
    for trial in trials:
        assert np.isfinite(trial.probabilities).all()
        others = [n for n, clip in enumerate(trial.clips) if clip.labels != ("dog",)]
        assert (trial.probabilities[others].argmax(axis=1) != column).all()


def test_several_labels_are_told_one_by_one(probe, tmp_path):
    def labels_of(n):
        return tuple(label for bit, label in enumerate(LABELS) if (1 + n % 7) >> bit & 1)

    whole = corpus(168, labels_of=labels_of)
    assert whole.multi_label
    (trial,), _ = probe.run_trials(job(tmp_path, whole))
    positive = np.array([[label in clip.labels for label in LABELS] for clip in trial.clips])
    assert roc_auc_score(positive, trial.probabilities) > 0.9
    assert trial.probabilities.min() >= 0
    assert trial.probabilities.max() <= 1


def test_few_labels_are_enough_for_what_is_easy(probe, tmp_path):
    trials, _ = probe.run_trials(job(tmp_path, corpus(), labels_per_class=6))
    assert {trial.details["train_clips"] for trial in trials} == {18}
    assert accuracy(trials) > 0.6


def test_what_is_done_is_not_done_again(probe, tmp_path, monkeypatch):
    whole = corpus(90)
    first = predicted(probe, job(tmp_path, whole, seeds=(0, 1)))

    def fails(*_, **__):
        pytest.fail("trained again")

    monkeypatch.setattr(type(probe), "fit_predict", fails)
    again = predicted(probe, job(tmp_path, whole, seeds=(0, 1)))
    assert all(np.array_equal(first[key], again[key]) for key in first)


def test_what_is_chosen_is_told_in_plain_values(probe, tmp_path):
    (trial,), _ = probe.run_trials(job(tmp_path, corpus()))
    assert json.loads(json.dumps(trial.details)) == trial.details
    if registry.name_of(type(probe)) in TRAINED:
        assert trial.details["val_score"] > 0.9
