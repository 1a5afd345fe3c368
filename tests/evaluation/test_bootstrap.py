"""Bootstrap intervals against a loop that draws clips one set at a time, and their coverage."""

import numpy as np
import pytest

from melpatch.evaluation.bootstrap import bootstrap, percentile_interval


def mean_of(values):
    return lambda weights: weights @ values / weights.sum(axis=1)


def test_weights_say_how_often_each_clip_was_drawn():
    seen = []
    bootstrap(lambda weights: seen.append(weights) or np.zeros(len(weights)), 7, seed=0)
    weights = np.concatenate(seen)
    assert weights.shape == (1000, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.15)


def test_interval_is_that_of_an_obvious_bootstrap():
    values = np.random.default_rng(0).random(40)
    generator = np.random.default_rng(1)
    means = [values[generator.integers(0, 40, 40)].mean() for _ in range(4000)]
    assert percentile_interval(bootstrap(mean_of(values), 40, seed=0)) == pytest.approx(
        np.quantile(means, [0.025, 0.975]), abs=0.012
    )


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        low, high = percentile_interval(
            bootstrap(mean_of((generator.random(60) < 0.7).astype(float)), 60, seed)
        )
        covered += low <= 0.7 <= high
    assert 85 <= covered <= 100


def test_draws_without_a_value_are_left_out():
    assert percentile_interval(np.where(np.arange(1000) < 5, np.nan, 0.5)) == [0.5, 0.5]
    assert percentile_interval(np.full(1000, np.nan)) is None
