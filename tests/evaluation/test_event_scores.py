"""Event-based scores, against every possible matching."""

from itertools import permutations

import numpy as np
import pytest

from melpatch.evaluation.event_scores import count_matches, event_scores, f1_interval
from melpatch.inference.events import Event


def event(start, end, label="a"):
    return Event(start, end, label, 1.0)


def slowly(true, guessed, collar, share):
    """Try all ways of giving each true event a guessed one."""

    def fits(own, other):
        return abs(own.start - other.start) <= collar + 1e-6 and abs(own.end - other.end) <= (
            max(collar, share * (own.end - own.start)) + 1e-6
        )

    few, many = (true, guessed) if len(true) <= len(guessed) else (guessed, true)
    best = 0
    for chosen in permutations(many, len(few)):
        pairs = zip(few, chosen, strict=True)
        if few is true:
            best = max(best, sum(fits(own, other) for own, other in pairs))
        else:
            best = max(best, sum(fits(own, other) for other, own in pairs))
    return best


@pytest.mark.parametrize("seed", range(20))
def test_as_many_events_are_matched_as_can_be(seed):
    rng = np.random.default_rng(seed)

    def some(count):
        starts = rng.uniform(0, 1.5, size=count).round(2)
        return [
            event(start, start + length)
            for start, length in zip(starts, rng.uniform(0.1, 2, size=count), strict=True)
        ]

    true, guessed = some(rng.integers(0, 6)), some(rng.integers(0, 6))
    matched = count_matches(true, guessed, collar=0.3, length_share=0.4)
    assert matched == slowly(true, guessed, 0.3, 0.4)


@pytest.mark.parametrize(
    ("guess", "right"),
    [
        ((1.2, 2.2), 1),
        ((1.21, 2.0), 0),
        ((1.0, 2.21), 0),
        ((0.8, 1.8), 1),
    ],
)
def test_start_and_end_are_within_the_collar(guess, right):
    scores = event_scores({"x": [event(1.0, 2.0)]}, {"x": [event(*guess)]}, ["a"])
    assert scores["micro"]["right"] == right


def test_the_end_of_a_long_event_may_be_off_by_a_fifth_of_it():
    true = {"x": [event(0.0, 10.0)]}
    assert event_scores(true, {"x": [event(0.1, 12.0)]}, ["a"])["micro"]["right"] == 1
    assert event_scores(true, {"x": [event(0.1, 12.1)]}, ["a"])["micro"]["right"] == 0


def test_labels_and_recordings_are_kept_apart_and_summed():
    true = {"x": [event(0, 1), event(5, 6, "b")], "y": [event(0, 1)]}
    guessed = {"x": [event(0, 1), event(5, 6)], "z": [event(0, 1)]}
    scores = event_scores(true, guessed, ["a", "b", "c"])
    a, b, c = scores["per_class"]
    assert (a["true"], a["guessed"], a["right"]) == (2, 3, 1)
    assert a["precision"] == pytest.approx(1 / 3)
    assert a["recall"] == 0.5
    assert a["F1"] == pytest.approx(0.4)
    assert (b["precision"], b["recall"], b["F1"]) == (None, 0.0, 0.0)
    assert (c["precision"], c["recall"], c["F1"]) == (None, None, None)
    assert scores["macro_f1"] == pytest.approx(0.2)
    assert scores["micro"]["F1"] == pytest.approx(2 / 6)


def test_nothing_against_nothing_is_not_defined():
    scores = event_scores({}, {}, ["a"])
    assert scores["micro"]["F1"] is None
    assert scores["macro_f1"] is None


def test_the_interval_of_f1_holds_the_truth_about_as_often_as_it_says():
    """Recordings differ in how well they are done; 300 draws of 30 recordings."""
    random = np.random.default_rng(0)
    truth = 0.6
    inside = 0
    for _ in range(300):
        events = random.integers(5, 20, 30)
        right = random.binomial(events, random.beta(6, 4, 30))
        low, high = f1_interval(right.astype(float), 2.0 * events)
        inside += low <= truth <= high
    assert 0.9 < inside / 300 < 0.99


def test_the_interval_needs_two_recordings_with_events():
    assert f1_interval(np.array([3.0, 0]), np.array([6.0, 0])) is None
    low, high = f1_interval(np.array([3.0, 2]), np.array([6.0, 4]))
    assert 0 < low < high == 1
