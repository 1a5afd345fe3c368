"""Two runs on the same clips: intervals, tests and the clips it takes, against simulations."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation.made_trials import NAMES, clip_of, predicting, trial
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from melpatch.evaluation.paired import compare, paired_interval
from melpatch.evaluation.trials import TrialResult


@given(st.lists(st.booleans(), min_size=2, max_size=30))
def test_the_same_predictions_differ_by_nothing(correct):
    one = trial(correct)
    found = compare([one], [one], NAMES, "accuracy")
    assert found["difference_95"] == [0.0, 0.0]
    assert found["p_value"] == 1.0
    assert found["clips_needed"] is None


def test_one_clip_tells_nothing_and_not_how_many_would():
    found = compare([trial([True])], [trial([False])], NAMES, "accuracy")
    assert found["difference"] == 1.0
    assert found["p_value"] == 1.0
    assert found["clips_needed"] is None


def test_runs_right_on_the_same_clips_may_still_differ():
    one = trial([True] * 9)
    sure = replace(one, probabilities=one.probabilities**2)
    low, high = paired_interval([one], [sure], NAMES, "accuracy")
    assert -0.4 < low < -0.1
    assert 0.1 < high < 0.4


def test_the_interval_of_a_difference_depends_on_the_clips_that_differ():
    ours = trial([True] * 70 + [False] * 30)
    theirs = trial([True] * 60 + [False] * 40)
    low, high = paired_interval([ours], [theirs], NAMES, "accuracy")
    assert 0.02 <= low <= 0.06
    assert 0.14 <= high <= 0.18
    # Clips of which other ones are right differ more, with the same two accuracies.
    others = trial([False] * 40 + [True] * 60)
    wide_low, wide_high = paired_interval([ours], [others], NAMES, "accuracy")
    assert wide_high - wide_low > 1.5 * (high - low)


def test_trials_of_other_clips_cannot_be_compared():
    ours = trial([True] * 5)
    assert compare([ours], [trial([True] * 4)], NAMES, "accuracy") is None
    assert compare([ours], [replace(ours, seed=1)], NAMES, "accuracy") is None
    assert compare([ours], [ours, replace(ours, seed=1)], NAMES, "accuracy") is None


@pytest.mark.parametrize(("ours", "theirs"), [(10, 2), (7, 7), (0, 6), (1, 0)])
def test_one_seed_is_tested_by_mcnemar(ours, theirs):
    a = trial([True] * ours + [False] * theirs + [True] * 20)
    b = trial([False] * ours + [True] * theirs + [True] * 20)
    found = compare([a], [b], NAMES, "accuracy")
    assert found["test"] == "McNemar, exact"
    assert found["p_value"] == pytest.approx(binomtest(ours, ours + theirs).pvalue)


def test_seeds_are_tested_by_the_mean_of_each_clip():
    generator = np.random.default_rng(0)
    ours = [trial(generator.random(60) < 0.9, seed) for seed in range(3)]
    theirs = [trial(generator.random(60) < 0.6, seed) for seed in range(3)]
    found = compare(ours, theirs, NAMES, "accuracy")
    assert found["test"] == "sign flips of clips"
    assert found["p_value"] < 0.01
    assert compare(ours, ours, NAMES, "accuracy")["p_value"] == 1.0


def test_groups_are_exchanged_whole():
    groups = np.repeat(range(4), 25)
    a = trial([True] * 100, groups=groups)
    b = trial([False] * 25 + [True] * 75, groups=groups)
    found = compare([a], [b], NAMES, "accuracy")
    assert found["by"] == "group"
    # One speaker alone makes the difference: it might as well have been the other way round.
    assert found["p_value"] == 1.0
    assert found["difference_95"][0] < 0 < found["difference_95"][1]
    assert found["groups_needed"] > 4


def test_five_groups_cannot_tell_and_are_not_said_to_be_enough():
    """All five in favour of one run have a chance of 2 / 2^5 under exchange."""
    groups = np.repeat(range(5), 20)
    a = trial([True] * 100, groups=groups)
    b = trial([False] * 100, groups=groups)
    found = compare([a], [b], NAMES, "accuracy")
    assert found["p_value"] > 0.05
    assert found["groups_needed"] == 6
    few = compare([trial([True] * 5)], [trial([False] * 5)], NAMES, "accuracy")
    assert few["p_value"] > 0.05
    assert few["clips_needed"] == 6


def test_groups_that_hardly_differ_have_a_narrow_interval():
    """What differs between groups counts, and not that there are few of them."""
    groups = np.repeat(range(6), 50)
    right = np.ones(300, bool)
    right[::50] = False
    found = compare(
        [trial(right, groups=groups)], [trial([True] * 300, groups=groups)], NAMES, "accuracy"
    )
    assert found["difference"] == pytest.approx(-0.02)
    assert -0.08 < found["difference_95"][0] < -0.02 < found["difference_95"][1] < 0.06


def test_folds_of_unequal_size_are_tested_as_they_are_weighted():
    """6 clips of a small fold outweigh 25 of a large one, the other way round."""
    ours = [trial([True] * 6 + [False] * 4), trial([False] * 25 + [True] * 75)]
    theirs = [trial([False] * 10), trial([True] * 100)]
    folds = [
        [replace(one, split=split) for one, split in zip(run, "12", strict=True)]
        for run in (ours, theirs)
    ]
    found = compare(*folds, NAMES, "accuracy")
    assert found["difference"] == pytest.approx((0.6 - 0.25) / 2)
    assert found["test"] == "sign flips of clips"
    assert found["difference_95"][0] < 0 < found["difference_95"][1]
    assert found["p_value"] > 0.05


def test_intervals_and_tests_of_differences_keep_their_level():
    """Two runs of the same accuracy, right on other clips by chance."""
    generator = np.random.default_rng(0)
    held = rejected = 0
    first = trial([True] * 80)
    for _ in range(100):
        hard = generator.random(80)
        a, b = (
            predicting(first, hard + 0.3 * generator.standard_normal(80) < 0.7) for _ in range(2)
        )
        found = compare([a], [b], NAMES, "accuracy")
        held += found["difference_95"][0] <= 0 <= found["difference_95"][1]
        rejected += found["p_value"] <= 0.05
    assert 88 <= held <= 100
    assert rejected <= 11


def ranked(scores, positive):
    clips = tuple(clip_of(n, np.array(NAMES)[row]) for n, row in enumerate(positive))
    return TrialResult("test", 0, clips, scores)


def test_rankings_are_compared_at_their_level():
    generator = np.random.default_rng(0)
    held = rejected = 0
    positive = generator.random((100, 3)) < 0.1
    first = ranked(np.zeros((100, 3)), positive)
    for _ in range(40):
        shared = generator.standard_normal((100, 3)) + 1.5 * positive
        a, b = (
            replace(first, probabilities=shared + 0.5 * generator.standard_normal((100, 3)))
            for _ in range(2)
        )
        found = compare([a], [b], NAMES, "mAP")
        held += found["difference_95"][0] <= 0 <= found["difference_95"][1]
        rejected += found["p_value"] <= 0.05
    assert held >= 34
    assert rejected <= 6


def test_as_many_clips_as_are_needed_give_the_stated_power():
    # On 30 clips in 500 the first run alone is right, on 15 the second one.
    number = np.arange(500)
    first = trial(number >= 15)
    second = predicting(first, (number < 15) | (number >= 45))
    needed = compare([first], [second], NAMES, "accuracy")["clips_needed"]
    draws = np.random.default_rng(0).multinomial(needed, [0.06, 0.03, 0.91], 500)
    seen = np.mean([binomtest(ours, ours + theirs).pvalue <= 0.05 for ours, theirs, _ in draws])
    # The exact test is somewhat weaker than its approximation.
    assert 0.72 <= seen <= 0.86
