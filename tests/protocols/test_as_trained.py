"""A classifier's own predictions: those of the model, on the clips that were asked for and no others."""

from dataclasses import replace

import numpy as np
import pytest
from journeys.three_sounds import LABELS, read_table, settings, write_corpus
from protocols.made_up import job

from melpatch.data.manifest import load_corpus
from melpatch.errors import ConfigError, DataError
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.evaluation.novelty import fit_novelty
from melpatch.inference.calibration import Calibration
from melpatch.inference.corpus import clip_table
from melpatch.inference.model import Model
from melpatch.protocols.as_trained import AsTrained
from melpatch.training.config import build


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"))


def asked(sounds, out, config=None, **changes):
    config = config or settings(LABELS)
    model = Model(config, build(config))
    frozen = FrozenFeatures.of_model(model, out)
    return replace(job(out, load_corpus([sounds])), model=model, features=frozen, **changes)


def test_probabilities_are_those_of_the_model(sounds, tmp_path):
    one = asked(sounds, tmp_path)
    (trial,), told = AsTrained().run_trials(one)
    assert told["splits"] == [{"split": "test", "train_clips": 0, "val_clips": 0, "test_clips": 6}]
    assert {clip.split for clip in trial.clips} == {"test"}
    for clip, row in zip(trial.clips, trial.probabilities, strict=True):
        assert row == pytest.approx(
            [*one.model.predict(clip.path)[0].probabilities.values()], abs=2e-3
        )


def test_another_head_is_another_network(sounds, tmp_path):
    """The encoder alone does not tell whether a kept trial may be taken again."""
    one = asked(sounds, tmp_path)
    (before,), _ = AsTrained().run_trials(one)
    one.model.objective.head[-1].weight.data *= -3
    frozen = FrozenFeatures.of_model(one.model, tmp_path)
    (after,), _ = AsTrained().run_trials(replace(one, features=frozen))
    assert not np.allclose(before.probabilities, after.probabilities)


def test_splits_are_scored_one_by_one(sounds, tmp_path):
    trials, _ = AsTrained().run_trials(asked(sounds, tmp_path, scored_splits=("val", "test")))
    assert [(one.split, len(one.clips)) for one in trials] == [("val", 3), ("test", 6)]


def test_its_classes_are_those_of_the_run_whatever_the_corpus_lacks(sounds, tmp_path):
    config = settings(("another", *LABELS))
    assert AsTrained().labels(asked(sounds, tmp_path, config)) == ("another", *LABELS)


def test_whether_there_are_several_labels_is_up_to_the_run(sounds, tmp_path):
    for several in (False, True):
        config = settings(LABELS, multi_label=several)
        assert AsTrained().multi_label(asked(sounds, tmp_path, config)) is several


def test_what_it_cannot_score_is_told(sounds, tmp_path):
    with pytest.raises(
        ConfigError, match=r"label 'noise' is not one of .*/run's: high, low; give a corpus.*knn"
    ):
        AsTrained().labels(asked(sounds, tmp_path, settings(("high", "low"))))
    with pytest.raises(
        ConfigError, match="a run of ssast has no labels of its own to score; fine-tune it"
    ):
        AsTrained().labels(asked(sounds, tmp_path, settings()))
    with pytest.raises(
        DataError, match=r"no labelled clip is in split '5'; there are: test \(6\), train \(9\)"
    ):
        AsTrained().run_trials(asked(sounds, tmp_path, scored_splits=("5",)))


def test_a_clip_that_went_bad_is_told(sounds, tmp_path):
    known = load_corpus([write_corpus(tmp_path / "sounds")])
    bad = next(clip.path for clip in known.clips if clip.split == "test")
    bad.write_bytes(b"RIFF, but no more")
    (trial,), _ = AsTrained().run_trials(replace(asked(sounds, tmp_path), corpus=known))
    assert (
        len(trial.clips) == len([row for row in read_table(sounds) if row["split"] == "test"]) - 1
    )
    assert set(trial.details["rejected"]) == {str(bad)}


def calibrated(one, **changes):
    """Return the job with a calibration whose novelty was learnt from noise."""
    random = np.random.default_rng(0)
    dim = one.model.objective.vector_dim
    novelty = fit_novelty(random.normal(size=(40, dim)), random.normal(size=(20, dim)))
    calibration = replace(Calibration(False, 2.0, 20, None, "none", novelty), **changes)
    model = Model(one.model.config, one.model.objective, calibration=calibration)
    return replace(one, model=model)


@pytest.mark.parametrize("recordings", ["windows", "whole"])
def test_novelty_is_that_of_the_model(sounds, tmp_path, recordings):
    config = settings(LABELS, seconds=0.5)  # clips have several windows
    config = replace(config, objective=replace(config.objective, recordings=recordings))
    one = calibrated(asked(sounds, tmp_path, config))
    (trial,), _ = AsTrained().run_trials(one)
    for clip, row, novelty in zip(trial.clips, trial.probabilities, trial.novelty, strict=True):
        (expected,) = one.model.predict(clip.path)
        assert row == pytest.approx([*expected.probabilities.values()], abs=2e-3)
        assert novelty == pytest.approx(expected.novelty, abs=0.06)  # a clip of twenty


def test_probabilities_do_not_depend_on_novelty(sounds, tmp_path):
    """Scores from before it was known stay what they were, to the last bit."""
    known = calibrated(asked(sounds, tmp_path / "known"))
    unknown = calibrated(asked(sounds, tmp_path / "unknown"), novelty=None)
    (one,), _ = AsTrained().run_trials(known)
    (other,), _ = AsTrained().run_trials(unknown)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    assert one.details["temperature"] == other.details["temperature"] == 2.0
    assert other.novelty is None


def test_novelty_is_kept_with_a_trial_and_a_new_one_is_computed(sounds, tmp_path, monkeypatch):
    one = calibrated(asked(sounds, tmp_path))
    (first,), _ = AsTrained().run_trials(one)
    passes = []
    monkeypatch.setattr(
        "melpatch.protocols.as_trained.clip_table",
        lambda *given: passes.append(1) or clip_table(*given),
    )
    (again,), _ = AsTrained().run_trials(one)
    np.testing.assert_array_equal(again.novelty, first.novelty)
    assert not passes
    novelty = one.model.calibration.novelty
    other = replace(novelty, held_out=novelty.held_out * 0)
    (changed,), _ = AsTrained().run_trials(calibrated(one, novelty=other))
    assert len(passes) == 1
    assert (changed.novelty >= first.novelty).all()
    # A trial with novelty is not taken for one without.
    AsTrained().run_trials(calibrated(one, novelty=None))
    assert len(passes) == 2


def test_a_run_decides_by_its_calibration_or_by_a_threshold_that_is_given(sounds, tmp_path):
    bare = asked(sounds, tmp_path)
    assert AsTrained().label_rule(bare) is None
    assert AsTrained().label_rule(replace(bare, threshold=0.3)).how == "threshold=0.3"
    learnt = np.array([0.2, 0.3, 0.4], np.float32)
    known = calibrated(bare, thresholds=learnt, threshold_rule="f1")
    rule = AsTrained().label_rule(replace(known, false_alarms=0.1))
    assert (rule.how, rule.false_alarms, rule.novelty_clips) == ("f1", 0.1, 20)
    np.testing.assert_array_equal(rule.thresholds, learnt)
