"""What stands beside a score, and the words for classifiers that are no better than a constant answer."""

import numpy as np
import pytest

from melpatch.evaluation.majority import describe_collapse, listed, score_in_words
from melpatch.evaluation.metrics import compute_metrics

LABELS = ("cat", "dog", "owl")


def scores(true, called, multi_label=False):
    """The scores of predictions, in the form of a summary."""
    targets = np.eye(3, dtype=int)[true]
    probabilities = np.eye(3)[called] * 0.8 + 0.1
    metrics = compute_metrics(probabilities, targets, LABELS, multi_label)
    return metrics | {"metrics": metrics}


def test_one_class_for_everything_is_told_with_the_majority_rate():
    sentence = describe_collapse(scores([1] * 5 + [0], [1] * 6))
    assert sentence == (
        "every clip is called 'dog'; accuracy 0.833 is not above 0.833, which calling every clip the "
        "commonest class has"
    )


def test_classes_that_are_never_predicted_are_named():
    sentence = describe_collapse(scores([0, 1, 2, 2, 2, 1], [1, 1, 2, 2, 2, 1]))
    assert sentence == "1 of 3 classes is never predicted: cat"


def test_an_accuracy_below_the_majority_rate_is_told():
    sentence = describe_collapse(scores([1, 1, 1, 0, 2], [0, 2, 1, 0, 1]))
    assert "accuracy 0.400 is not above 0.600" in sentence


@pytest.mark.parametrize("true", [[0, 1, 2, 1], [1, 1, 1], [0, 1, 1]])
def test_nothing_is_told_of_clips_that_are_called_what_they_are(true):
    """A class without a clip need not be predicted, and clips of one class are all called so."""
    assert describe_collapse(scores(true, true)) is None


def test_several_labels_are_held_against_a_constant_score():
    targets = np.array([[1, 0], [0, 1], [1, 1], [1, 0]])
    metrics = compute_metrics(np.full((4, 2), 0.3), targets, ("cat", "dog"), multi_label=True)
    assert metrics["mAP"] == metrics["prevalence"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    sentence = describe_collapse(metrics | {"metrics": metrics})
    assert sentence == (
        "2 of 2 classes never reach a probability of 0.5: cat, dog; "
        "mAP 0.625 is not above 0.625, which one score for every clip has"
    )
    better = compute_metrics(targets * 0.8, targets, ("cat", "dog"), multi_label=True)
    assert describe_collapse(better | {"metrics": better}) is None


def test_a_score_has_the_majority_rate_and_the_balanced_accuracy_beside_it():
    metrics = {"accuracy": 0.8462, "balanced_accuracy": 0.5, "majority_rate": 0.8462, "mAP": None}
    text = score_in_words("accuracy", 0.8462, metrics)
    assert text == "accuracy 0.846 (balanced 0.500, majority 0.846)"
    text = score_in_words("balanced_accuracy", 0.5, metrics)
    assert text == "balanced accuracy 0.500 (accuracy 0.846, majority 0.846)"
    text = score_in_words("mAP", 0.31, {"mAP": 0.31, "prevalence": 0.12})
    assert text == "mAP 0.310 (constant score 0.120)"
    assert score_in_words("macro_f1", 0.3, {}) == "macro F1 0.300"


def test_of_many_names_the_first_are_listed():
    assert listed("abc") == "a, b, c"
    assert listed("abcdefgh") == "a, b, c, d, e, and 3 more"
