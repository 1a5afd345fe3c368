"""When a label is given, and what is none of the classes: against a slow version, and by what settings."""

from dataclasses import replace

import numpy as np
import pytest
from journeys.three_sounds import LABELS, settings

from melpatch.errors import ConfigError
from melpatch.evaluation.novelty import fit_novelty
from melpatch.inference.calibration import Calibration
from melpatch.inference.label_rule import (
    LabelRule,
    check_label_rule,
    describe_too_few,
    label_rule,
    names_of,
)
from melpatch.inference.model import Model
from melpatch.training.config import build

NAMES = ("a", "b", "c")


def slow(row, novelty, rule):
    """Return the labels of a row, as docs/calibration.md has it."""
    if rule.false_alarms and novelty is not None and novelty >= 1 - rule.false_alarms - 1e-6:
        return ""
    best = max(range(3), key=lambda number: row[number])
    if rule.thresholds is None:
        return NAMES[best]
    reached = [n for n in range(3) if row[n] >= rule.thresholds[n]]
    if not rule.multi_label:
        reached = [n for n in reached if n == best]
    return ";".join(NAMES[n] for n in reached)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("false_alarms", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("known", [False, True])
def test_labels_of_many_rows_are_those_of_a_slow_version(multi_label, false_alarms, known):
    random = np.random.default_rng(0)
    probabilities = random.uniform(size=(200, 3)).astype(np.float32)
    novelty = random.uniform(size=200).astype(np.float32) if known else None
    learnt = np.array([0.3, 0.5, 2.0], np.float32)
    for thresholds in (learnt, *([] if multi_label else [None])):
        rule = LabelRule(multi_label, thresholds, "f1", false_alarms, 40)
        given = rule.given(probabilities, novelty)
        expected = [
            slow(row, None if novelty is None else novelty[number], rule)
            for number, row in enumerate(probabilities)
        ]
        assert names_of(given, NAMES).tolist() == expected


def test_the_first_of_equally_probable_labels_is_given():
    given = LabelRule(False, None).given(np.array([[0.4, 0.4, 0.2]]))
    assert given.tolist() == [[True, False, False]]


def test_a_probability_counts_as_it_is_written():
    """Scores keep float64, answers float32: at the threshold both must give the label."""
    threshold = np.array([0.3, 0.3, 0.3], np.float32)
    exact = np.full((1, 3), 0.3 - 1e-10)
    rule = LabelRule(True, threshold, "f1")
    assert rule.given(exact).all()
    assert rule.given(exact.astype(np.float32)).all()


def calibrated(multi_label=False, clips=20, **changes):
    """Return a model that has learnt thresholds and novelty."""
    random = np.random.default_rng(0)
    config = settings(LABELS, multi_label=multi_label)
    novelty = fit_novelty(random.normal(size=(40, 8)), random.normal(size=(clips, 8)))
    thresholds = np.array([0.2, 0.4, 0.6], np.float32)
    calibration = Calibration(multi_label, 1.5, clips, thresholds, "f1", novelty)
    return Model(config, build(config), calibration=replace(calibration, **changes))


def test_the_rule_of_a_run_is_what_it_has_learnt():
    rule = label_rule(calibrated())
    assert (rule.how, rule.false_alarms, rule.novelty_clips) == ("f1", 0.05, 20)
    np.testing.assert_array_equal(rule.thresholds, np.array([0.2, 0.4, 0.6], np.float32))
    assert rule.event_thresholds(3) is rule.thresholds
    chosen = label_rule(calibrated(), threshold=0.3, false_alarms=0.1)
    assert (chosen.how, chosen.false_alarms) == ("threshold=0.3", 0.1)
    assert chosen.thresholds.tolist() == [0.3] * 3


@pytest.mark.parametrize(("multi_label", "thresholds"), [(False, None), (True, [0.5] * 3)])
def test_without_thresholds_the_best_label_or_those_from_a_half_on_are_given(
    multi_label, thresholds
):
    config = settings(LABELS, multi_label=multi_label)
    learnt = calibrated(multi_label, thresholds=None, threshold_rule="none", novelty=None)
    for model in (Model(config, build(config)), learnt):
        rule = label_rule(model)
        assert rule.how == "none"
        assert rule.novelty_clips is None
        assert not rule.tells_unlike
        assert thresholds == (None if rule.thresholds is None else rule.thresholds.tolist())
        assert rule.event_thresholds(3).tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("clips", "false_alarms", "tells", "too_few"),
    [
        (20, 0.05, True, False),
        (18, 0.05, False, True),
        (18, 0.1, True, False),
        (18, 0.0, False, False),
    ],
)
def test_it_takes_validation_clips_to_call_anything_none_of_these(
    clips, false_alarms, tells, too_few
):
    rule = label_rule(calibrated(clips=clips), false_alarms=false_alarms)
    assert (rule.tells_unlike, rule.has_too_few_clips) == (tells, too_few)


def test_what_is_too_few_is_said():
    assert describe_too_few("runs/a", 1, 0.05) == (
        "nothing is called none of these: runs/a was calibrated on 1 clip, and --false-alarms 0.05 "
        "needs 19"
    )


def test_an_encoder_gives_no_labels():
    config = settings()
    with pytest.raises(ConfigError, match="has no labels to predict; fine-tune it first"):
        label_rule(Model(config, build(config)))


@pytest.mark.parametrize(
    ("values", "message"),
    [((1.1, 0.05), "threshold = 1.1; allowed: 0 to 1"), ((None, 1.0), "false_alarms = 1.0")],
)
def test_settings_out_of_range_are_refused(values, message):
    check_label_rule(None, 0.0)
    with pytest.raises(ConfigError, match=message):
        check_label_rule(*values)
