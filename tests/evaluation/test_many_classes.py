"""Ten thousand classes: scores, intervals, tests, thresholds and calibration take seconds."""

import time

import numpy as np
import pytest
from evaluation.made_trials import clip_of

from melpatch.evaluation.intervals import describe_intervals
from melpatch.evaluation.linear import fit_linear
from melpatch.evaluation.paired import compare
from melpatch.evaluation.summary import summarize
from melpatch.evaluation.temperature import fit_temperature
from melpatch.evaluation.thresholds import ThresholdRule, choose_thresholds
from melpatch.evaluation.trials import TrialResult

CLASSES = 10_000
CLIPS = 200
NAMES = [f"class {number}" for number in range(CLASSES)]
SECONDS = 10.0
"""Of the processor; a tenth of it is usual."""


def task(multi_label):
    """Return probabilities and targets."""
    generator = np.random.default_rng(0)
    positive = np.zeros((CLIPS, CLASSES), dtype=bool)
    for _ in range(2 if multi_label else 1):
        positive[np.arange(CLIPS), generator.integers(0, CLASSES, CLIPS)] = True
    scores = generator.random(positive.shape) + 0.5 * positive
    return scores / scores.sum(axis=1, keepdims=True), positive


@pytest.mark.filterwarnings("ignore:The number of unique classes")
@pytest.mark.parametrize("multi_label", [False, True])
def test_ten_thousand_classes_take_seconds(multi_label):
    probabilities, positive = task(multi_label)
    clips = tuple(
        clip_of(number, [NAMES[label] for label in np.flatnonzero(row)])
        for number, row in enumerate(positive)
    )
    ours = TrialResult("test", 0, clips, probabilities)
    theirs = TrialResult("test", 0, clips, probabilities[::-1].copy())
    targets = positive.astype(np.float64)
    vectors = np.random.default_rng(1).standard_normal((CLIPS, 32)).astype(np.float32)
    metric = "mAP" if multi_label else "accuracy"
    steps = {
        "scores": lambda: summarize([ours], NAMES, multi_label, metric),
        "intervals": lambda: describe_intervals([ours], NAMES, metric),
        "a test of two runs": lambda: compare([ours], [theirs], NAMES, metric),
        "thresholds": lambda: choose_thresholds(
            probabilities, targets, ThresholdRule.parse("f1"), multi_label
        ),
        "a temperature": lambda: fit_temperature(probabilities, targets, multi_label),
        "a linear probe": lambda: fit_linear(vectors, targets, multi_label=multi_label),
    }
    taken = {}
    for name, step in steps.items():
        start = time.process_time()
        assert step() is not None
        taken[name] = time.process_time() - start
    assert max(taken.values()) < SECONDS, taken
