"""Average precision under clip weights, of one class and of thousands."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from melpatch.evaluation import weighted_precision
from melpatch.evaluation.metrics import compute_metrics
from melpatch.evaluation.weighted_precision import average_precision, average_precisions


@given(st.data())
def test_average_precision_is_that_of_scikit_learn_under_any_weights(data):
    clips = data.draw(st.integers(1, 20))

    def draw(low, high):
        return np.array(data.draw(st.lists(st.integers(low, high), min_size=clips, max_size=clips)))

    score, positive, weights = draw(0, 6) / 6, draw(0, 1).astype(bool), draw(0, 3).astype(float)
    positive[0] = True
    ours = average_precision(score, positive, np.stack([weights, np.ones(clips)], axis=1))
    for value, weight in zip(ours, (weights, np.ones(clips)), strict=True):
        if weight[positive].sum() == 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(
                average_precision_score(positive, score, sample_weight=weight)
            )


@pytest.mark.parametrize("few", [0, 3, 40])
def test_many_classes_at_once_have_the_numbers_of_each_alone(few, monkeypatch):
    """Whatever their number of positive clips, with ties, and in pieces."""
    monkeypatch.setattr(weighted_precision, "_FEW", few)
    monkeypatch.setattr(weighted_precision, "_MOST_VALUES", 300)
    random = np.random.default_rng(0)
    scores = random.integers(0, 8, (40, 30)) / 8
    positive = random.random((40, 30)) < random.random(30) ** 3
    weights = random.multinomial(40, np.full(40, 1 / 40), size=6).astype(np.float64)
    alone = [
        average_precision(scores[:, label], positive[:, label], weights.T)
        if positive[:, label].any()
        else np.full(6, np.nan)
        for label in range(30)
    ]
    together = average_precisions(scores, positive, weights)
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-6)


def test_ten_thousand_classes_are_scored_in_seconds():
    """Class by class, the bootstrap alone took a minute of CPU time."""
    random = np.random.default_rng(0)
    scores = random.random((500, 10_000), dtype=np.float32)
    targets = random.random((500, 10_000), dtype=np.float32) < 2 / 500
    before = time.process_time()
    scored = compute_metrics(scores, targets, [str(label) for label in range(10_000)], True)
    assert time.process_time() - before < 15
    low, high = scored["mAP_95"]
    assert low < high
