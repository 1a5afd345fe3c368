"""The influence of clips against leaving each out, one at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melpatch.evaluation.influence import clip_influence, informative_clips
from melpatch.evaluation.metrics import compute_metrics

EXACT = ("accuracy", "balanced_accuracy", "mAP", "mAUC")


def task(seed, clips=40, labels=3, ties=False):
    generator = np.random.default_rng(seed)
    true = np.arange(clips) % labels
    generator.shuffle(true)
    positive = np.eye(labels, dtype=bool)[true]
    scores = generator.random((clips, labels)) + 0.4 * positive
    return (scores.round(1) if ties else scores), positive


def left_out(scores, positive, metric):
    """The metric of all clips but one, for each clip."""
    rows = [np.delete(np.arange(len(scores)), clip) for clip in range(len(scores))]
    return np.array([clip_influence(scores[row], positive[row], metric)[0] for row in rows])


@pytest.mark.parametrize("metric", EXACT)
@pytest.mark.parametrize("ties", [False, True])
def test_influence_is_the_change_when_a_clip_is_left_out(metric, ties):
    scores, positive = task(0, ties=ties)
    value, influence = clip_influence(scores, positive, metric)
    assert value == pytest.approx(compute_metrics(scores, positive, ["a", "b", "c"], False)[metric])
    change = (len(scores) - 1) * (value - left_out(scores, positive, metric))
    assert influence == pytest.approx(change, abs=1e-9)


def test_influence_on_the_f_score_is_nearly_the_change_when_a_clip_is_left_out():
    scores, positive = task(1, clips=40)
    value, influence = clip_influence(scores, positive, "macro_f1")
    change = 39 * (value - left_out(scores, positive, "macro_f1"))
    assert influence == pytest.approx(change, abs=0.1)


@given(st.integers(0, 1000), st.booleans())
def test_only_average_precision_has_a_bias_to_correct(seed, ties):
    scores, positive = task(seed, ties=ties)
    for metric in ("accuracy", "balanced_accuracy", "macro_f1", "mAUC"):
        _, influence = clip_influence(scores, positive, metric)
        assert influence.mean() == pytest.approx(0, abs=1e-9)


def test_a_class_of_one_clip_is_no_error():
    scores, positive = task(0, clips=7)
    for metric in (*EXACT, "macro_f1"):
        value, influence = clip_influence(scores, positive, metric)
        assert np.isfinite([value, *influence]).all()


def test_what_cannot_be_ranked_has_no_influence():
    scores = np.random.default_rng(0).random((4, 2))
    everything = np.eye(2, dtype=bool)[[0, 0, 0, 0]]
    assert clip_influence(scores, everything, "mAP") is None
    assert clip_influence(scores, everything, "d_prime") is None
    assert clip_influence(scores, everything, "accuracy") is not None


def test_a_ranking_rests_on_the_clips_of_the_rarer_kind():
    positive = np.zeros((100, 2), dtype=bool)
    positive[:5, 0] = True
    positive[5:, 1] = True
    assert informative_clips(positive, "mAP") == 10
    assert informative_clips(positive, "accuracy") == 100
