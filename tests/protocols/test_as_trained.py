"""A classifier's own predictions: those of the model, on the clips that were asked for and no others."""

from dataclasses import replace

import numpy as np
import pytest
from journeys.three_sounds import LABELS, read_table, settings, write_corpus
from protocols.made_up import job

from melpatch.data.manifest import load_corpus
from melpatch.errors import ConfigError, DataError
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.inference.model import Model
from melpatch.protocols.as_trained import AsTrained
from melpatch.training.config import build


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"))


def asked(sounds, out, config=None, **changes):
    config = config or settings(LABELS)
    model = Model(config, build(config))
    frozen = FrozenFeatures.of_network(config, model.objective, out, seconds=model.seconds)
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
    frozen = FrozenFeatures.of_network(one.model.config, one.model.objective, tmp_path, seconds=1.0)
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
