"""The scores of an evaluation against slow, obvious means over rounds and seeds."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from melpatch.data.clip import Clip
from melpatch.data.corpus import label_matrix
from melpatch.evaluation.metrics import compute_metrics
from melpatch.evaluation.summary import summarize
from melpatch.evaluation.trials import TrialResult

LABELS = ("a", "b", "c")


def trial(name, seed, labels, number=0):
    """A trial whose predictions are better than chance; its clips hang on the round alone."""
    clips = tuple(
        Clip(Path(f"{name}-{i}.wav"), i, 0.0, 1.0, tuple(label.split()))
        for i, label in enumerate(labels)
    )
    generator = np.random.default_rng([number, seed])
    rows = generator.random((len(clips), 3)) + 0.5 * label_matrix(clips, LABELS)
    return TrialResult(name, seed, clips, rows / rows.sum(1, keepdims=True))


FOLDS = {"1": "aabbccabc" * 3, "2": "abcabcaabb" * 2, "3": "abc" * 5}
TRIALS = [trial(name, seed, FOLDS[name], int(name)) for seed in (0, 1, 5) for name in FOLDS]


def accuracy(one):
    return np.mean(
        [
            LABELS[int(row.argmax())] == clip.labels[0]
            for row, clip in zip(one.probabilities, one.clips, strict=True)
        ]
    )


def test_values_are_means_over_seeds_of_means_over_rounds():
    found = summarize(TRIALS, LABELS, False, "accuracy")
    by_seed = [np.mean([accuracy(one) for one in TRIALS if one.seed == seed]) for seed in (0, 1, 5)]
    assert found["value"] == found["metrics"]["accuracy"] == pytest.approx(np.mean(by_seed))
    assert found["seed_std"] == pytest.approx(np.std(by_seed, ddof=1))
    assert found["n"] == 27 + 20 + 15
    single = [
        compute_metrics(one.probabilities, label_matrix(one.clips, LABELS), LABELS, False)
        for one in TRIALS
    ]
    for name in ("balanced_accuracy", "macro_f1", "mAP", "mAUC"):
        assert found["metrics"][name] == pytest.approx(np.mean([one[name] for one in single]))
    assert found["metrics"]["d_prime"] == pytest.approx(2**0.5 * norm.ppf(found["metrics"]["mAUC"]))
    assert np.array(found["confusion_matrix"]) == pytest.approx(
        np.sum([one["confusion_matrix"] for one in single], axis=0) / 3
    )
    assert [row["positives"] for row in found["per_class"]] == [
        "".join(FOLDS.values()).count(x) for x in LABELS
    ]
    for column, row in enumerate(found["per_class"]):
        for name in ("AP", "AUC", "F1", "recall", "precision"):
            assert row[name] == pytest.approx(
                np.mean([one["per_class"][column][name] for one in single])
            )
    json.dumps(found, allow_nan=False)


def test_one_seed_has_no_spread():
    assert summarize(TRIALS[:3], LABELS, False, "accuracy")["seed_std"] is None


def test_the_interval_of_several_seeds_is_no_narrower_for_there_being_more_of_them():
    """Seeds that say the same are no further evidence."""
    again = [TrialResult(one.split, 7, one.clips, one.probabilities) for one in TRIALS[:3]]
    alone, twice = (
        summarize(trials, LABELS, False, "accuracy")["interval_95"]
        for trials in (TRIALS[:3], [*TRIALS[:3], *again])
    )
    assert twice == pytest.approx(alone)


def test_a_round_that_cannot_be_ranked_is_left_out():
    """With one class in the fold there is no mAP; the other fold's stands, interval and all."""
    trials = [trial("1", 0, "abcabcabcabc"), trial("2", 0, "aaaa")]
    both, alone = summarize(trials, LABELS, True, "mAP"), summarize(trials[:1], LABELS, True, "mAP")
    assert both["value"] == both["metrics"]["mAP"] == alone["value"]
    assert both["interval_95"] == alone["interval_95"]
    assert summarize(trials[1:], LABELS, True, "mAP")["value"] is None
    assert summarize(trials[1:], LABELS, True, "mAP")["interval_95"] is None


def test_a_class_is_not_judged_by_rounds_that_score_no_clip_of_it():
    trials = [trial("1", 0, "abcabcabc"), trial("2", 0, "abababab")]
    found = summarize(trials, LABELS, False, "accuracy")
    alone = summarize(trials[:1], LABELS, False, "accuracy")
    assert found["per_class"][2] == alone["per_class"][2]
    assert found["classes_without_positives"] == []
    assert summarize(trials[1:], LABELS, False, "accuracy")["classes_without_positives"] == ["c"]
    assert summarize(trials[1:], LABELS, False, "accuracy")["per_class"][2]["F1"] is None


def test_several_labels_have_no_confusion():
    found = summarize([trial("test", 0, ["a b", "b", "c a", "c", "a"])], LABELS, True, "mAP")
    assert "confusion_matrix" not in found
    assert "accuracy" not in found["metrics"]
    assert found["metric"] == "mAP"


def test_a_metric_other_than_the_usual_one_has_an_interval_too():
    found = summarize(TRIALS, LABELS, False, "balanced_accuracy")
    assert found["value"] == found["metrics"]["balanced_accuracy"]
    low, high = found["interval_95"]
    assert low < found["value"] < high
