"""Thresholds keep their rule on the clips that they were chosen on, like a slow search of all cuts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melpatch.errors import ConfigError
from melpatch.evaluation.thresholds import NEVER, ThresholdRule, choose_thresholds


def drawn(seed, clips=30, labels=4, levels=20):
    """Return coarse probabilities, so that some are equal, and labels that follow them a little."""
    random = np.random.default_rng(seed)
    probabilities = random.integers(0, levels + 1, size=(clips, labels)) / levels
    targets = random.uniform(size=probabilities.shape) < 0.7 * probabilities
    return probabilities.astype(np.float32), targets.astype(np.float32)


def one_label(probabilities):
    """Return which label each clip is given."""
    best = probabilities.argmax(axis=1)
    return np.arange(probabilities.shape[1]) == best[:, None]


def scores(given_, positive):
    """Return precision, F1 and the number of labels given of one class."""
    right = (given_ & positive).sum()
    number = given_.sum()
    f1 = 2 * right / max(number + positive.sum(), 1)
    return (right / number if number else 1.0), f1, number


@given(st.integers(0, 300), st.sampled_from([0.3, 0.5, 0.9, 1.0]), st.booleans())
def test_precision_is_reached_with_as_many_labels_as_can_be(seed, precision, multi_label):
    probabilities, targets = drawn(seed)
    rule = ThresholdRule("precision", precision)
    thresholds = choose_thresholds(probabilities, targets, rule, multi_label)
    eligible = np.ones_like(targets, bool) if multi_label else one_label(probabilities)
    for column in range(4):
        mine, positive = probabilities[:, column], targets[:, column] > 0
        may = eligible[:, column]
        reached, _, number = scores((mine >= thresholds[column]) & may, positive)
        assert reached >= precision
        most = 0
        for cut in {*mine.tolist()} - {0.0}:
            possible, _, count = scores((mine >= cut) & may, positive)
            most = max(most, count if possible >= precision and count else 0)
        assert number == most
        assert (thresholds[column] == NEVER) == (most == 0)


@given(st.integers(0, 300), st.booleans())
def test_no_other_threshold_has_a_better_f1(seed, multi_label):
    probabilities, targets = drawn(seed)
    thresholds = choose_thresholds(probabilities, targets, ThresholdRule("f1"), multi_label)
    eligible = np.ones_like(targets, bool) if multi_label else one_label(probabilities)
    for column in range(4):
        mine, positive = probabilities[:, column], targets[:, column] > 0
        may = eligible[:, column] & (mine > 0)
        if not (positive & may).any():
            assert thresholds[column] == 0.5
            continue
        best = max(scores((mine >= cut) & may, positive)[1] for cut in {*mine.tolist()})
        assert scores((mine >= thresholds[column]) & may, positive)[1] == pytest.approx(best)


def test_a_threshold_lies_between_clips():
    probabilities = np.array([[0.9], [0.8], [0.4], [0.2]], np.float32)
    targets = np.array([[1], [1], [0], [0]], np.float32)
    for rule in (ThresholdRule("f1"), ThresholdRule("precision", 1.0)):
        assert choose_thresholds(probabilities, targets, rule, True) == pytest.approx([0.6])


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_rounding_leaves_the_clip_below_out(steps):
    """Between neighbours of float32, as of a classifier that is very sure, there is nothing."""
    right = np.float32(1)
    wrong = right
    for _ in range(steps):
        wrong = np.nextafter(wrong, np.float32(0))
    for least, below in ((right, wrong), (np.nextafter(right, np.float32(0)), wrong)):
        if below == least:
            continue
        probabilities = np.array([[least], [below], [0.5]], np.float32)
        targets = np.array([[1], [0], [0]], np.float32)
        for rule in (ThresholdRule("f1"), ThresholdRule("precision", 1.0)):
            thresholds = choose_thresholds(probabilities, targets, rule, True)
            assert (probabilities[:, 0] >= thresholds).tolist() == [True, False, False]


def test_classes_in_parts_are_classes_at_once(monkeypatch):
    probabilities, targets = drawn(0, labels=9)
    whole = choose_thresholds(probabilities, targets, ThresholdRule("f1"), True)
    monkeypatch.setattr("melpatch.evaluation.thresholds._MOST_CELLS", 60)
    parts = choose_thresholds(probabilities, targets, ThresholdRule("f1"), True)
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize(
    ("text", "multi_label", "rule"),
    [
        ("auto", True, ThresholdRule("f1")),
        ("auto", False, ThresholdRule("none")),
        ("f1", False, ThresholdRule("f1")),
        ("none", True, ThresholdRule("none")),
        ("precision=0.9", False, ThresholdRule("precision", 0.9)),
        ("precision=1", False, ThresholdRule("precision", 1.0)),
    ],
)
def test_rules_have_spellings(text, multi_label, rule):
    assert ThresholdRule.parse(text, multi_label) == rule


@pytest.mark.parametrize("text", ["", "precision", "precision=0", "precision=1.5", "best"])
def test_other_rules_are_refused(text):
    with pytest.raises(
        ConfigError, match=r"thresholds = '.*'; allowed: auto, none, f1, or precision"
    ):
        ThresholdRule.parse(text, False)


def test_no_rule_has_no_thresholds():
    assert choose_thresholds(*drawn(0), ThresholdRule("none"), True) is None
