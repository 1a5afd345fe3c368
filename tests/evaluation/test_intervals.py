"""Intervals: their formula, what seeds, folds and groups add, and how often they hold the truth."""

from dataclasses import replace

import numpy as np
import pytest
from evaluation.made_trials import NAMES, clip_of, trial
from scipy.optimize import brentq
from scipy.stats import norm

from melpatch.evaluation.influence import clip_influence, informative_clips
from melpatch.evaluation.intervals import (
    ClipShares,
    describe_intervals,
    interval,
    share_interval,
    wilson,
)
from melpatch.evaluation.trials import TrialResult


def ranked(scores, positive):
    """Return the trial of a multi-label task."""
    names = [f"label {number}" for number in range(scores.shape[1])]
    clips = tuple(
        clip_of(number, (name for name, one in zip(names, row, strict=True) if one))
        for number, row in enumerate(positive)
    )
    return TrialResult("test", 0, clips, scores), names


def test_wilson_is_where_the_score_test_just_rejects():
    for right, count in ((3, 10), (9, 10), (70, 300)):
        share = right / count

        def rejects(truth, share=share, count=count):
            return abs(share - truth) / (truth * (1 - truth) / count) ** 0.5 - norm.ppf(0.975)

        low, high = wilson(share, float(count))
        assert low == pytest.approx(brentq(rejects, 1e-9, share))
        assert high == pytest.approx(brentq(rejects, share, 1 - 1e-9))


def test_nine_of_nine_right_is_not_certainty():
    low, high = describe_intervals([trial([True] * 9)], NAMES, "accuracy")["interval_95"]
    assert low == pytest.approx(0.7009, abs=1e-4)
    assert high == 1.0


@pytest.mark.parametrize("truth", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("count", [10, 30, 100])
def test_the_interval_of_an_accuracy_covers_the_truth(truth, count):
    """Exactly, not by simulation: over every number of right clips."""
    right = np.arange(count + 1)
    chances = np.exp(
        [
            sum(np.log((count - i) / (i + 1)) for i in range(k))
            + k * np.log(truth)
            + (count - k) * np.log(1 - truth)
            for k in right
        ]
    )
    covered = [
        low <= truth <= high
        for low, high in (wilson(float(k / count), float(count)) for k in right)
    ]
    assert 0.9 <= chances @ covered <= 1.0


def test_seeds_that_score_the_same_clips_add_no_clips():
    correct = [True] * 30 + [False] * 10
    one = describe_intervals([trial(correct)], NAMES, "accuracy")
    three = describe_intervals([trial(correct, seed) for seed in range(3)], NAMES, "accuracy")
    assert three["interval_95"] == pytest.approx(one["interval_95"])


def test_folds_are_different_clips():
    correct = [True] * 30 + [False] * 10
    folds = [trial(correct, split=str(fold), first=40 * fold) for fold in range(5)]
    several = describe_intervals(folds, NAMES, "accuracy")["interval_95"]
    assert several == pytest.approx(wilson(0.75, 200.0))


def test_a_small_fold_that_weighs_as_much_widens_the_interval():
    even = [trial([True, False] * 25), trial([True, False] * 25, split="2", first=50)]
    uneven = [trial([True, False] * 45), trial([True, False] * 5, split="2", first=90)]
    widths = [
        np.ptp(describe_intervals(trials, NAMES, "accuracy")["interval_95"])
        for trials in (even, uneven)
    ]
    assert widths[1] > 1.3 * widths[0]


def test_known_groups_give_the_main_interval():
    groups = np.repeat(np.arange(8), 10)
    correct = np.repeat([1, 1, 1, 0, 1, 0, 1, 1], 10)
    found = describe_intervals([trial(correct, groups=groups)], NAMES, "accuracy")
    assert (found["interval_by"], found["groups"]) == ("group", 8)
    assert found["interval_95"] == found["intervals_95"]["group"]
    assert np.ptp(found["intervals_95"]["group"]) > 2 * np.ptp(found["intervals_95"]["clip"])
    alone = describe_intervals([trial(correct)], NAMES, "accuracy")
    assert (alone["interval_by"], alone["groups"]) == ("clip", None)
    assert alone["intervals_95"]["clip"] == found["intervals_95"]["clip"]
    assert "group" in found["interval_method"]
    assert alone["interval_method"] == "Wilson"


def test_folds_of_one_group_each_differ_by_groups():
    folds = [
        trial([right] * 10, split=str(fold), groups=[fold] * 10, first=10 * fold)
        for fold, right in enumerate([1, 1, 0, 1, 0, 1])
    ]
    found = describe_intervals(folds, NAMES, "accuracy")
    assert found["groups"] == 6
    assert np.ptp(found["interval_95"]) > 0.5


def test_one_group_alone_says_nothing_of_groups():
    found = describe_intervals([trial([1, 0, 1], groups=[7, 7, 7])], NAMES, "accuracy")
    assert (found["interval_by"], found["intervals_95"]["group"]) == ("clip", None)


def test_groups_that_are_all_right_count_once_each():
    found = describe_intervals(
        [trial([True] * 50, groups=np.repeat(range(5), 10))], NAMES, "accuracy"
    )
    low, high = found["interval_95"]
    assert high == 1.0
    assert low < wilson(1.0, 5.0)[0]


def test_intervals_by_group_cover_the_truth():
    """Twelve speakers of whom some are understood better than others."""
    generator = np.random.default_rng(0)
    speaker = np.repeat(range(12), 15)
    covered = {"clip": 0, "group": 0}
    for _ in range(300):
        correct = (generator.random(180) < generator.beta(2, 1, 12)[speaker]).astype(float)
        shares = ClipShares(
            "accuracy", correct.mean(), correct / 180, np.full(180, 1 / 180), speaker, 180.0
        )
        for unit in covered:
            low, high = interval(shares, unit)
            covered[unit] += low <= 2 / 3 <= high
    assert covered["group"] >= 272
    assert covered["clip"] <= 225


def shares_of(scores, positive, metric):
    """Return what each clip of one trial adds, without making clips for it."""
    clips = len(scores)
    value, influence = clip_influence(scores, positive, metric)
    count = float(informative_clips(positive, metric))
    shares = (value + influence) / clips
    return ClipShares(metric, value, shares, np.full(clips, 1 / clips), np.arange(clips), count)


def test_shares_are_those_of_trials():
    generator = np.random.default_rng(0)
    positive = generator.random((40, 3)) < 0.3
    result, names = ranked(generator.random((40, 3)), positive)
    for metric in ("mAP", "mAUC"):
        expected = interval(shares_of(result.probabilities, positive, metric), "clip")
        found = describe_intervals([result], names, metric)["interval_95"]
        assert found == pytest.approx(expected)


def true_precision(rate, distance):
    """The average precision of endless clips, of two normal distributions that far from each other."""
    score = np.linspace(-8, 8 + distance, 4001)
    hits = rate * norm.sf(score - distance)
    precision = hits / (hits + (1 - rate) * norm.sf(score))
    return np.trapezoid(norm.pdf(score - distance) * precision, score)


@pytest.mark.parametrize("distance", [0.5, 1.5, 3.0])
@pytest.mark.parametrize("positives", [5, 10, 20])
@pytest.mark.parametrize(
    ("classes", "rate", "repeats"), [(1, 0.1, 150), (10, 0.1, 100), (50, 0.02, 50)]
)
def test_intervals_of_mean_ap_and_auc_cover_the_truth_with_few_positives(
    classes, rate, repeats, positives, distance
):
    """All 54 cases of lab/intervals.md, where 300 repeats of each were run."""
    generator = np.random.default_rng([classes, positives, int(10 * distance)])
    clips = round(positives / rate)
    truth = {"mAP": true_precision(rate, distance), "mAUC": float(norm.cdf(distance / 2**0.5))}
    held = dict.fromkeys(truth, 0)
    for _ in range(repeats):
        positive = generator.random((clips, classes)) < rate
        positive[0] |= ~positive.any(axis=0)
        scores = generator.standard_normal((clips, classes)) + distance * positive
        for metric, value in truth.items():
            low, high = interval(shares_of(scores, positive, metric), "clip")
            held[metric] += low <= value <= high
    assert min(held.values()) >= 0.86 * repeats


@pytest.mark.parametrize("right", [0.5, 0.9])
@pytest.mark.parametrize(
    ("classes", "shrink", "clips"),
    [(3, 1.0, 60), (3, 0.6, 60), (10, 1.0, 60), (3, 0.6, 300), (10, 1.0, 300), (10, 0.8, 300)],
)
def test_intervals_of_balanced_accuracy_and_macro_f1_cover_the_truth(classes, shrink, clips, right):
    """Each class is rarer than the one before and mistaken for the next; six clips or more of each are expected."""
    prior = shrink ** np.arange(classes)
    prior /= prior.sum()
    assert prior.min() * clips >= 6 - 1e-9
    recall = np.linspace(min(1.0, right + 0.2), right, classes)
    joint = np.diag(prior * recall) + np.roll(np.diag(prior * (1 - recall)), 1, axis=1)
    f1 = 2 * np.diag(joint) / (prior + joint.sum(axis=0))
    truth = {"balanced_accuracy": recall.mean(), "macro_f1": f1.mean()}
    generator = np.random.default_rng([classes, clips, int(10 * shrink), int(10 * right)])
    one_hot = np.eye(classes)
    held = dict.fromkeys(truth, 0)
    for _ in range(200):
        true = generator.choice(classes, clips, p=prior)
        wrong = generator.random(clips) >= recall[true]
        predicted = (true + wrong) % classes
        for metric, value in truth.items():
            shares = shares_of(one_hot[predicted], one_hot[true] > 0, metric)
            low, high = interval(shares, "clip")
            held[metric] += low <= value <= high
    assert min(held.values()) >= 174


def test_a_perfect_ranking_is_not_certainty():
    positive = np.eye(2, dtype=bool)[[0, 1] * 10]
    result, names = ranked(positive.astype(float), positive)
    for metric in ("mAP", "mAUC"):
        low, high = describe_intervals([result], names, metric)["interval_95"]
        assert 0.7 < low < 0.9
        assert high == 1.0


def test_the_interval_holds_the_value_even_where_that_is_biased():
    generator = np.random.default_rng(0)
    positive = generator.random((500, 50)) < 0.01
    result, names = ranked(generator.random((500, 50)), positive)
    found = describe_intervals([result], names, "mAP")["interval_95"]
    assert found[0] < 0.02 < found[1]


def test_what_is_undefined_has_no_interval():
    found = describe_intervals([trial([True, False])], NAMES, "mAP")
    assert found["interval_95"] is None
    assert found["intervals_95"] == {"clip": None, "group": None}


@pytest.mark.parametrize("groups", [None, [number // 5 for number in range(40)], [1] * 40])
@pytest.mark.parametrize("number", [0, 7, 40])
def test_a_share_of_clips_has_the_interval_of_an_accuracy(groups, number):
    correct = np.arange(40) < number
    made = trial(correct, groups=groups)
    expected = describe_intervals([made], NAMES, "accuracy")
    share = share_interval(made.clips, correct)
    assert (share["clips"], share["share"]) == (number, number / 40)
    assert share["interval_by"] == expected["interval_by"]
    assert share["interval_95"] == pytest.approx(expected["interval_95"])


def test_one_clip_that_seeds_disagree_on_has_an_interval():
    seeds = [replace(trial([correct]), seed=seed) for seed, correct in enumerate([True, False])]
    for metric in ("accuracy", "balanced_accuracy"):
        low, high = describe_intervals(seeds, NAMES, metric)["interval_95"]
        assert 0 <= low < 0.5 < high <= 1


def test_one_clip_has_a_share():
    assert share_interval([clip_of(0, "a")], np.array([True]))["interval_95"] == pytest.approx(
        [*wilson(1.0, 1.0)]
    )
