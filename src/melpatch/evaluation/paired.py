"""Two sets of predictions of the same clips: their difference, a test, and the clips it would take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import binomtest, t

from melpatch.evaluation.intervals import NORMAL_95, ClipShares, Unit, clip_shares, variance_of_sum
from melpatch.evaluation.trials import TrialResult

_FLIPS = 9999
_VALUES_AT_ONCE = 1 << 22
_ROUNDING = 1e-12
# All of five in favour of one run have a chance of 2 / 2^5 = 0.06, of six 0.03.
_LEAST_DIFFERING = 6
# Distance of the null from a difference that a test at 5 % sees with a power of 80 %.
_DETECTABLE = NORMAL_95 + NormalDist().inv_cdf(0.8)


@dataclass(frozen=True)
class _Pair:
    """What each clip adds to the scores of two runs."""

    ours: ClipShares
    theirs: ClipShares
    same_predictions: bool

    @property
    def difference(self) -> float:
        return self.ours.value - self.theirs.value

    @property
    def shares(self) -> Float[np.ndarray, " clip"]:
        """What each clip adds to the difference."""
        difference = self.ours.shares - self.theirs.shares
        # What rounding leaves is no difference.
        return np.where(abs(difference) < _ROUNDING, 0.0, difference)

    def of_units(self, unit: Unit) -> Float[np.ndarray, " unit"]:
        """What each clip or group adds to the difference."""
        shares = self.shares
        return np.bincount(self.ours.group_of_clip, shares) if unit == "group" else shares

    def variance(self, unit: Unit) -> float:
        """Return the variance of the difference between independent clips or groups."""
        centred = self.shares - self.difference * self.ours.weights
        variance, _ = variance_of_sum(self.ours, centred, unit)
        variance += (centred.sum() / 2) ** 2
        # Bonett and Price (2012): one more clip in favour of each run. Without clips on which they
        # differ the variance would be 0.
        count = self.ours.count
        shrunk: float = (variance * count**2 + 2) / (count + 2) ** 2
        return shrunk


def compare(
    trials: Sequence[TrialResult],
    others: Sequence[TrialResult],
    labels: Sequence[str],
    metric: str,
) -> dict[str, Any] | None:
    """Return the difference of two evaluations of the same clips, as plain values that JSON can hold.

    Args:
        trials: of one evaluation.
        others: of the other, of the same splits and seeds.
        labels: the names of the columns.
        metric: the primary metric.

    Returns:
        ``difference``, ``difference_95``, ``by`` (clip or group), ``p_value``, ``test``,
        ``clips`` and ``groups``, and ``clips_needed`` and ``groups_needed``: how many it takes to
        see such a difference with a power of 80 %, None where there is no difference. None where
        the metric has no interval, or where other clips were scored.
    """
    pair = _pair(trials, others, labels, metric)
    if pair is None:
        return None
    unit = pair.ours.unit
    one_seed = len({trial.seed for trial in trials}) == 1
    # Folds of unequal size weigh their clips differently, which McNemar's test does not.
    even = np.ptp(pair.ours.weights) < _ROUNDING
    exact = metric == "accuracy" and unit == "clip" and one_seed and even
    return {
        "difference": pair.difference,
        "difference_95": _interval(pair),
        "by": unit,
        "p_value": _mcnemar(pair) if exact else _flip_signs(pair, unit),
        "test": "McNemar, exact" if exact else f"sign flips of {unit}s",
        "clips": len(pair.ours.shares),
        "groups": pair.ours.groups,
        "clips_needed": _needed(pair, unit, len(pair.ours.shares)),
        "groups_needed": _needed(pair, unit, pair.ours.groups),
    }


def paired_interval(
    trials: Sequence[TrialResult],
    others: Sequence[TrialResult],
    labels: Sequence[str],
    metric: str,
) -> list[float] | None:
    """Return the 95 % interval of the difference of two scores of the same clips, see :func:`compare`."""
    pair = _pair(trials, others, labels, metric)
    return None if pair is None else _interval(pair)


def _pair(
    trials: Sequence[TrialResult],
    others: Sequence[TrialResult],
    labels: Sequence[str],
    metric: str,
) -> _Pair | None:
    # Trials are paired by split and seed; without a partner, or on other clips, there is no pair.
    by_name = {(trial.split, trial.seed): trial for trial in others}
    matched = [by_name.get((trial.split, trial.seed)) for trial in trials]
    partners = [trial for trial in matched if trial is not None]
    if len(partners) != len(trials) or len(others) != len(trials):
        return None
    pairs = [*zip(trials, partners, strict=True)]
    if any(ours.clips != theirs.clips for ours, theirs in pairs):
        return None
    ours = clip_shares(trials, labels, metric)
    theirs = clip_shares(partners, labels, metric)
    if ours is None or theirs is None:
        return None
    same = all(np.array_equal(a.probabilities, b.probabilities) for a, b in pairs)
    return _Pair(ours, theirs, same)


def _interval(pair: _Pair) -> list[float]:
    if pair.same_predictions:
        return [0.0, 0.0]
    variance = pair.variance("clip")
    quantile = NORMAL_95
    if pair.ours.groups is not None:
        # Clips of a group are not independent; the larger of the two variances is on the safe side.
        variance = max(variance, pair.variance("group"))
        quantile = float(t.ppf(0.975, pair.ours.groups - 1))
    count = pair.ours.count
    # Agresti and Min 2005: half a clip is added to each of the four outcomes of a pair.
    centre = float(pair.shares.sum()) * count / (count + 2)
    half = quantile * variance**0.5
    # The difference itself is always inside, and none is beyond -1 or 1.
    low = max(-1.0, min(centre - half, pair.difference))
    high = min(1.0, max(centre + half, pair.difference))
    return [low, high]


def _needed(pair: _Pair, unit: Unit, number: int | None) -> int | None:
    """Return how many clips or groups it takes instead of this many to see the difference."""
    if number is None or number < 2 or abs(pair.difference) < _ROUNDING:
        return None
    needed = number * pair.variance(unit) * (_DETECTABLE / pair.difference) ** 2
    # A test that only asks for whom each of them is cannot tell on fewer.
    differing = max(1, int(np.count_nonzero(pair.of_units(unit))))
    return math.ceil(max(needed, _LEAST_DIFFERING * number / differing))


def _mcnemar(pair: _Pair) -> float:
    """Return the chance that clips on which one run alone is right split as unevenly (McNemar 1947)."""
    # Clips on which both are right, or both wrong, say nothing.
    ours = int((pair.shares > 0).sum())
    theirs = int((pair.shares < 0).sum())
    if ours + theirs == 0:
        return 1.0
    return float(binomtest(ours, ours + theirs).pvalue)


def _flip_signs(pair: _Pair, unit: Unit) -> float:
    """Return the chance of so large a difference if the runs were exchanged at random on each unit."""
    shares = pair.of_units(unit)
    shares = shares[shares != 0]
    if not len(shares):
        return 1.0
    generator = np.random.default_rng(0)
    # Sums in another order differ by rounding; as large is as large.
    limit = abs(shares.sum()) * (1 - 1e-9)
    # Signs are drawn in blocks, so that memory does not grow with the clips.
    at_once = max(1, _VALUES_AT_ONCE // len(shares))
    as_large = 0
    for first in range(0, _FLIPS, at_once):
        size = (min(at_once, _FLIPS - first), len(shares))
        signs = 2.0 * generator.integers(0, 2, size, dtype=np.int8) - 1
        as_large += int((abs(signs @ shares) >= limit).sum())
    # The observed signs are one of the draws, so that the chance is never 0.
    return (1 + as_large) / (1 + _FLIPS)
