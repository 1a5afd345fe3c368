"""Events, against a search that goes frame by frame, and signals whose events are known."""

import numpy as np
import pytest

from melpatch.errors import ConfigError
from melpatch.inference.events import EventRule, FrameScores, find_events, frame_scores


def frames(scores, hop=0.5, start=0.0):
    scores = np.array(scores, dtype=float)
    begins = start + hop * np.arange(len(scores))
    return FrameScores(begins, begins + hop, scores.reshape(len(scores), -1))


def events_of(scores, threshold=0.5, **rule):
    events = find_events(frames(scores), ["a"], np.array([threshold]), EventRule(**rule))
    return [(event.start, event.end, event.score) for event in events]


def slowly(scores, threshold, rule, hop=0.5):
    """Walk along the frames with a state, then merge pairs, then drop, one at a time."""
    events = []
    current = None
    for number, score in enumerate([*scores, -1.0]):
        if score >= rule.release * threshold:
            if current is None:
                current = [number, number, score]
            current[1] = number
            current[2] = max(current[2], score)
        elif current is not None:
            if current[2] >= threshold:
                events.append(current)
            current = None
    merging = True
    while merging:
        merging = False
        for number in range(len(events) - 1):
            left, right = events[number], events[number + 1]
            if (right[0] - left[1] - 1) * hop <= rule.gap:
                events[number : number + 2] = [[left[0], right[1], max(left[2], right[2])]]
                merging = True
                break
    return [
        (first * hop, (last + 1) * hop, score)
        for first, last, score in events
        if (last + 1 - first) * hop >= rule.shortest
    ]


@pytest.mark.parametrize("seed", range(20))
def test_events_are_those_of_a_walk_along_the_frames(seed):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(size=60).round(2)
    rule = EventRule(
        release=float(rng.choice([0.3, 0.8, 1.0])),
        gap=float(rng.choice([0.0, 0.5, 1.0])),
        shortest=float(rng.choice([0.0, 1.0, 1.5])),
    )
    threshold = rng.uniform(0.3, 0.9)
    events = find_events(frames(scores), ["a"], np.array([threshold]), rule)
    expected = slowly(scores, threshold, rule)
    assert [(e.start, e.end, e.score) for e in events] == expected


def test_a_dip_above_the_release_does_not_part_an_event():
    assert events_of([0.1, 0.6, 0.45, 0.7, 0.1]) == [(0.5, 2.0, 0.7)]
    assert events_of([0.1, 0.6, 0.45, 0.7, 0.1], release=1.0) == [(0.5, 1.0, 0.6), (1.5, 2.0, 0.7)]
    assert events_of([0.45, 0.45]) == []  # never reaches the threshold


def test_gaps_are_merged_before_short_events_are_dropped():
    scores = [0.9, 0.0, 0.9, 0.0, 0.0, 0.0, 0.9]
    assert events_of(scores, gap=0.5, shortest=1.0) == [(0.0, 1.5, 0.9)]
    assert events_of(scores, shortest=1.0) == []


def test_each_label_has_its_threshold_and_events_come_by_start():
    both = frames([[0.1, 0.3], [0.6, 0.3], [0.1, 0.1]])
    events = find_events(both, ["a", "b"], np.array([0.5, 0.2]), EventRule())
    assert [(e.label, e.start, e.end) for e in events] == [("b", 0.0, 1.0), ("a", 0.5, 1.0)]


def test_background_is_no_event():
    both = frames([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])
    events = find_events(both, ["background", "b"], np.array([0.5, 0.5]), EventRule())
    assert [(e.label, e.start, e.end) for e in events] == [("b", 0.5, 1.0)]


@pytest.mark.parametrize("last", [2.0, 1.3])
def test_a_frame_has_the_mean_of_all_windows_that_cover_it(last):
    hop, seconds, total = 0.5, 2.0, 6.0 + last
    start = 10 + np.arange(0, total - seconds + hop, hop)
    end = np.minimum(start + seconds, 10 + total)
    scores = np.random.default_rng(0).uniform(size=(len(start), 2))
    result = frame_scores(start, end, scores, hop)
    assert result.end[-1] == pytest.approx(10 + total)
    np.testing.assert_allclose(result.start[1:], result.end[:-1])
    for begin, stop, own in zip(*result, strict=True):
        middle = (begin + stop) / 2
        covers = (start <= middle) & (middle < end)
        np.testing.assert_allclose(own, scores[covers].mean(axis=0), atol=1e-9)


def test_overlapping_windows_tell_where_a_short_sound_is():
    """Windows of 1 s that hold any of 4.0 to 4.2 s answer yes; the sound is in the frames with the most of them."""
    start = np.arange(0, 9.05, 0.1)
    scores = ((start < 4.2 - 1e-9) & (start + 1 > 4.0 + 1e-9)).astype(float)[:, None]
    result = frame_scores(start, start + 1, scores, 0.1)
    (event,) = find_events(result, ["a"], np.array([0.95]), EventRule(release=1.0))
    assert (event.start, event.end) == (pytest.approx(4.0), pytest.approx(4.2))


def test_times_that_were_rounded_in_a_table_fall_on_the_same_frames():
    hop = 1 / 3
    start = np.arange(30) * hop
    scores = np.random.default_rng(0).uniform(size=(30, 1))
    exact = frame_scores(start, start + 1, scores, hop)
    rounded = frame_scores(start.round(6), (start + 1).round(6), scores, hop)
    np.testing.assert_allclose(rounded.scores, exact.scores)


@pytest.mark.parametrize(
    "wrong", [{"release": 0.0}, {"release": 1.5}, {"gap": -1.0}, {"shortest": float("nan")}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        EventRule(**wrong)
