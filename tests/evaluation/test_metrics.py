"""Metrics against slow, obvious versions and scikit-learn's own, and everything that a set of predictions can lack."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score

from melpatch.errors import DataError, MelpatchError
from melpatch.evaluation.metrics import accuracy, compute_metrics, primary_metric


def task(clips=60, labels=4, seed=0, multi_label=False):
    generator = np.random.default_rng(seed)
    probabilities = generator.random((clips, labels)).round(2)
    if multi_label:
        return probabilities, generator.integers(0, 2, (clips, labels))
    return probabilities, np.eye(labels, dtype=int)[generator.integers(0, labels, clips)]


def strict_json(result):
    return json.loads(json.dumps(result, allow_nan=False))


def test_primary_metric():
    assert (primary_metric(False), primary_metric(True)) == ("accuracy", "mAP")


def test_decisions_agree_with_scikit_learn():
    probabilities, targets = task()
    result = compute_metrics(probabilities, targets, list("abcd"), multi_label=False)
    true, predicted = targets.argmax(1), probabilities.argmax(1)
    assert result["accuracy"] == pytest.approx(
        np.mean([t == p for t, p in zip(true, predicted, strict=True)])
    )
    assert result["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(true, predicted))
    assert result["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"))
    for t in range(4):
        assert result["confusion_matrix"][t] == [
            int(((true == t) & (predicted == p)).sum()) for p in range(4)
        ]
    assert [row["recall"] for row in result["per_class"]] == pytest.approx(
        [np.mean(predicted[true == t] == t) for t in range(4)]
    )


@given(seed=st.integers(0, 1000))
def test_average_precision_is_that_of_scikit_learn(seed):
    probabilities, targets = task(clips=20, seed=seed, multi_label=True)
    result = compute_metrics(probabilities, targets, list("abcd"), multi_label=True)
    for label, row in enumerate(result["per_class"]):
        expected = average_precision_score(targets[:, label], probabilities[:, label])
        assert row["AP"] is None or row["AP"] == pytest.approx(expected)


@given(seed=st.integers(0, 1000), multi_label=st.booleans())
def test_the_order_of_clips_and_labels_does_not_matter(seed, multi_label):
    probabilities, targets = task(seed=seed, multi_label=multi_label)
    probabilities += (
        np.random.default_rng(seed).random(probabilities.shape) * 1e-3
    )  # no ties in the arg-max
    clips, labels = np.random.default_rng(seed).permutation(60), [2, 0, 3, 1]
    a = compute_metrics(probabilities, targets, list("abcd"), multi_label)
    b = compute_metrics(
        probabilities[clips][:, labels], targets[clips][:, labels], list("cadb"), multi_label
    )
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "mAP", "mAUC", "d_prime"):
        assert a.get(name) == pytest.approx(b.get(name))


@pytest.mark.parametrize("multi_label", [False, True])
def test_perfect_predictions(multi_label):
    targets = np.eye(3, dtype=int)[[0, 1, 2, 0, 1, 2]]
    result = strict_json(compute_metrics(targets.astype(float), targets, list("abc"), multi_label))
    assert (result["mAP"], result["mAUC"], result["d_prime"]) == (1.0, 1.0, None)
    assert ("accuracy" in result) is not multi_label


def test_a_class_without_positives_is_named_and_averaged_nowhere():
    probabilities, targets = task(labels=3)
    seen = compute_metrics(probabilities, targets, list("abc"), multi_label=False)
    more = np.column_stack([probabilities, np.zeros(60)])
    result = strict_json(
        compute_metrics(
            more, np.column_stack([targets, np.zeros(60, int)]), list("abcd"), multi_label=False
        )
    )
    assert result["classes_without_positives"] == ["d"]
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "mAP", "mAUC", "d_prime"):
        assert result[name] == pytest.approx(seen[name])


def test_predicting_a_class_without_positives_costs_recall_but_adds_no_class():
    probabilities = np.array([[0.9, 0.0, 0.1], [0.0, 0.1, 0.9], [0.0, 0.9, 0.1]])
    targets = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    result = compute_metrics(probabilities, targets, list("abc"), multi_label=False)
    assert result["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert result["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_single_class_has_nothing_to_rank(multi_label):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = strict_json(
            compute_metrics(np.full((5, 1), 0.7), np.ones((5, 1), int), ["a"], multi_label)
        )
    assert (result["mAP"], result["mAUC"], result["d_prime"]) == (None, None, None)
    assert result["classes_without_negatives"] == ["a"]


def test_one_clip_is_enough():
    result = strict_json(
        compute_metrics(np.array([[0.2, 0.8]]), np.array([[0, 1]]), ["a", "b"], multi_label=False)
    )
    assert (result["accuracy"], result["mAP"]) == (1.0, None)


def test_clips_without_labels_are_negatives_of_a_multi_label_task():
    probabilities, targets = np.array([[0.9], [0.1], [0.8]]), np.array([[1], [0], [0]])
    result = compute_metrics(probabilities, targets, ["a"], multi_label=True)
    assert (result["mAP"], result["mAUC"]) == (1.0, 1.0)


@pytest.mark.parametrize("row", [[0, 0], [1, 1]])
def test_a_clip_with_no_or_several_labels_is_refused_in_a_single_label_task(row):
    with pytest.raises(DataError, match="1 of 3 clips has no label or several"):
        compute_metrics(
            np.full((3, 2), 0.5), np.array([[1, 0], [0, 1], row]), ["a", "b"], multi_label=False
        )


@pytest.mark.parametrize("multi_label", [False, True])
def test_an_empty_set_is_refused(multi_label):
    with pytest.raises(DataError, match="no clip to evaluate"):
        compute_metrics(np.zeros((0, 2)), np.zeros((0, 2), int), ["a", "b"], multi_label)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_probability_that_is_not_finite_is_refused(value):
    probabilities, targets = task()
    probabilities[3, 1] = probabilities[3, 2] = value
    with pytest.raises(MelpatchError, match="probabilities of 1 of 60 clips hold nan or infinity"):
        compute_metrics(probabilities, targets, list("abcd"), multi_label=False)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 2\) probabilities, \(3, 2\) targets, 3 labels"):
        compute_metrics(
            np.zeros((3, 2)), np.eye(3, 2, dtype=int), ["a", "b", "c"], multi_label=True
        )


def test_accuracy_counts_the_first_of_equals():
    assert accuracy(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([[1, 0], [0, 1]])) == 0.5
