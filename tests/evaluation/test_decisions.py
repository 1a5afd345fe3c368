"""Decisions counted by class against scikit-learn, and what a constant answer has."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    precision_recall_fscore_support,
)

from melpatch.evaluation.decisions import count_decisions


@given(seed=st.integers(0, 1000), classes=st.integers(1, 7))
def test_counts_and_metrics_are_those_of_scikit_learn(seed, classes):
    """Also where a class has no clip, or is never predicted."""
    generator = np.random.default_rng(seed)
    true = generator.integers(0, classes, 12)
    probabilities = generator.random((12, classes)).round(1)
    predicted = probabilities.argmax(axis=1)
    decisions = count_decisions(probabilities, np.eye(classes, dtype=bool)[true])
    assert decisions.positives.tolist() == [(true == label).sum() for label in range(classes)]
    assert decisions.predicted.tolist() == [(predicted == label).sum() for label in range(classes)]
    assert decisions.accuracy == pytest.approx(accuracy_score(true, predicted))
    present = np.unique(true)
    f1 = f1_score(true, predicted, labels=present, average="macro", zero_division=0)
    assert decisions.macro_f1 == pytest.approx(f1)
    recalls = [np.mean(predicted[true == label] == label) for label in present]
    assert decisions.balanced_accuracy == pytest.approx(np.mean(recalls))
    expected = precision_recall_fscore_support(
        true, predicted, labels=np.arange(classes), zero_division=0
    )
    for column, values in zip(("precision", "recall", "f1"), expected, strict=False):
        assert getattr(decisions, column) == pytest.approx(values)


def test_calling_everything_the_commonest_class_has_the_majority_rate():
    positive = np.eye(2, dtype=bool)[[0] * 11 + [1] * 2]
    constant = np.tile([0.9, 0.1], (13, 1))
    decisions = count_decisions(constant, positive)
    assert decisions.accuracy == decisions.majority_rate == pytest.approx(11 / 13)
    assert decisions.balanced_accuracy == 0.5
    true = positive.argmax(axis=1)
    assert decisions.balanced_accuracy == balanced_accuracy_score(true, np.zeros(13))
