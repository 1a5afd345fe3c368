"""Precision and recall with intervals by recordings."""

import numpy as np
import pytest

from melpatch.evaluation.intervals import wilson
from melpatch.search.precision import points, share


def test_shares_are_those_of_the_definition():
    probabilities = np.array([0.9, 0.8, 0.3, 0.1])
    yes = np.array([True, False, True, False])
    (half, all_but_one) = points(probabilities, yes, np.arange(4), np.array([0.5, 0.2]))
    assert (half.precision.value, half.recall.value) == (0.5, 0.5)
    assert all_but_one.precision.value == pytest.approx(2 / 3)
    assert all_but_one.recall.value == 1


def test_clips_of_their_own_recordings_have_the_interval_of_wilson():
    part = np.arange(40) < 30
    found = share(part, np.ones(40, bool), np.arange(40))
    low, high = wilson(0.75, 40 * 39 / 40)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_clips_that_are_alike_count_as_their_recordings():
    part = np.repeat(np.arange(10) < 5, 20)
    groups = np.repeat(np.arange(10), 20)
    alone = share(part, np.ones(200, bool), np.arange(200))
    together = share(part, np.ones(200, bool), groups)
    assert (together.low, together.high) == pytest.approx(wilson(0.5, 9.0))
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_nothing_is_unknown():
    none = np.zeros(3, bool)
    assert share(none, none, np.arange(3)) == (None, 0.0, 1.0)
    assert share(none, np.ones(3, bool), np.zeros(3, np.int64))[1:] == wilson(0.0, 1.0)
