"""Precision and recall of a head over thresholds, with intervals, from clips drawn at random."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from melpatch.evaluation.intervals import wilson


class Share(NamedTuple):
    """A share with its 95 % interval; None where there is nothing that it is a share of."""

    value: float | None
    low: float
    high: float


class Point(NamedTuple):
    """What a threshold gives.

    Attributes:
        threshold: lowest probability at which the label is given.
        precision: share of the clips given the label that have it.
        recall: share of the clips that have the label that are given it.
    """

    threshold: float
    precision: Share
    recall: Share


def points(
    probabilities: Float[np.ndarray, " clip"],
    yes: Bool[np.ndarray, " clip"],
    groups: Int[np.ndarray, " clip"],
    thresholds: Float[np.ndarray, " threshold"],
) -> list[Point]:
    """Return precision and recall at each threshold.

    Args:
        probabilities: what the head gives the clips of the test set.
        yes: whether each has the label.
        groups: the recording of each.
        thresholds: lowest probabilities at which the label is given.
    """
    result = []
    for threshold in thresholds.tolist():
        given = probabilities >= threshold
        precision = share(given & yes, given, groups)
        result.append(Point(threshold, precision, share(given & yes, yes, groups)))
    return result


def share(
    part: Bool[np.ndarray, " clip"],
    whole: Bool[np.ndarray, " clip"],
    groups: Int[np.ndarray, " clip"],
) -> Share:
    """Return the share of clips that are part of a whole, and Wilson's interval by recordings.

    Clips of a recording are alike: the interval is that of as many independent clips as have the
    variance of the ratio between recordings (linearised), where these are fewer.
    """
    count = int(whole.sum())
    if not count:
        return Share(None, 0.0, 1.0)
    value = float(part.sum() / count)
    independent = float(count)
    # Deviation of each recording from the ratio; their sum is 0.
    deviations = np.bincount(groups, part - value * whole)[np.unique(groups)]
    number = int((np.bincount(groups, whole) > 0).sum())
    if 0 < value < 1 and number > 1:
        variance = number / (number - 1) * float((deviations**2).sum()) / count**2
        independent = min(independent, value * (1 - value) / variance)
    elif number:
        independent = float(min(count, number))
    low, high = wilson(value, independent)
    return Share(value, low, high)
