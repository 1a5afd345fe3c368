"""95 % intervals of scores: how far a figure may be off because the scored clips are a sample.

All follow from how much each clip moves the score (:mod:`melpatch.evaluation.influence`). Seeds
score the same clips and add none; folds are different clips. Clips of one group (a speaker, a site)
are no independent evidence: where groups are known, the spread is that between groups.

The interval is Wilson's (1927), with the number of independent clips that would have the same
variance (Korn and Graubard 1998): it stays between 0 and 1 and has a width where all clips are
right. Simulations of its coverage: ``lab/intervals.md``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import t

from melpatch.data.clip import Clip
from melpatch.data.corpus import label_matrix
from melpatch.evaluation.influence import clip_influence, informative_clips
from melpatch.evaluation.trials import TrialResult

Unit = Literal["clip", "group"]
NORMAL_95 = NormalDist().inv_cdf(0.975)
# Of the correction of a bias, how much stays uncertain; see lab/intervals.md.
_UNCERTAIN_SHARE = 0.5


@dataclass(frozen=True)
class ClipShares:
    """What each scored clip adds to a score, over all trials of an evaluation.

    Attributes:
        metric: the metric.
        value: mean over seeds of the mean over splits.
        shares: what each clip adds (the jackknife's pseudo-value, weighted); their sum is the value
            without its bias.
        weights: what each clip weighs; their sum is 1.
        group_of_clip: number of each clip's group; a clip without one is a group of its own.
        count: number of independent clips that the value rests on.
    """

    metric: str
    value: float
    shares: Float[np.ndarray, " clip"]
    weights: Float[np.ndarray, " clip"]
    group_of_clip: Int[np.ndarray, " clip"]
    count: float

    @property
    def groups(self) -> int | None:
        """Number of groups; None where each clip is one, or all clips are."""
        number = int(self.group_of_clip.max()) + 1
        return number if 1 < number < len(self.shares) else None

    @property
    def unit(self) -> Unit:
        """What is independent evidence."""
        return "clip" if self.groups is None else "group"


def clip_shares(
    trials: Sequence[TrialResult], labels: Sequence[str], metric: str
) -> ClipShares | None:
    """Return what each scored clip adds to a metric; None where it is undefined or has no interval.

    Args:
        trials: of one evaluation; those in which the metric is undefined are left out.
        labels: the names of the columns.
        metric: see :func:`melpatch.evaluation.influence.clip_influence`.
    """
    measured = []
    counts: dict[str, int] = {}
    for trial in trials:
        positive = label_matrix(trial.clips, labels) > 0.5
        result = clip_influence(trial.probabilities, positive, metric)
        if result is not None:
            measured.append((trial, *result))
            counts[trial.split] = informative_clips(positive, metric)
    if not measured:
        return None
    seeds = [trial.seed for trial, _, _ in measured]
    number: dict[int, int] = {}
    clips: list[Clip] = []
    for trial, _, _ in measured:
        for clip in trial.clips:
            if clip.key not in number:
                number[clip.key] = len(clips)
                clips.append(clip)
    shares = np.zeros(len(clips))
    weights = np.zeros(len(clips))
    total = 0.0
    for trial, value, influence in measured:
        weight = 1 / (len({*seeds}) * seeds.count(trial.seed))
        places = np.array([number[clip.key] for clip in trial.clips])
        np.add.at(shares, places, weight * (value + influence) / len(places))
        np.add.at(weights, places, weight / len(places))
        total += weight * value
    # A mean over splits is as certain as one over this many clips: splits of few clips weigh more.
    count = len(counts) ** 2 / sum(1 / number for number in counts.values())
    return ClipShares(metric, total, shares, weights, _number_groups(clips), count)


def variance_of_sum(
    shares: ClipShares, parts: Float[np.ndarray, " clip"], unit: Unit
) -> tuple[float, int]:
    """Return the variance of a sum over independent clips or groups, and the number of these."""
    if unit == "group":
        parts = np.bincount(shares.group_of_clip, parts)
    number = len(parts)
    if number < 2:
        return float("inf"), number
    return float(number * parts.var(ddof=1)), number


def interval(shares: ClipShares, unit: Unit) -> list[float]:
    """Return the 95 % interval of a score, by clips or by groups; it holds the score."""
    count, number = _independent_clips(shares, "clip")
    quantile = NORMAL_95
    if shares.metric != "accuracy":
        quantile = t.ppf(0.975, max(shares.count - 1, 1))
    if unit == "group":
        between_groups, number = _independent_clips(shares, "group")
        count = min(count, between_groups)
        quantile = t.ppf(0.975, number - 1)
    low, high = wilson(_unbiased(shares), count, float(quantile))
    return [min(low, shares.value), max(high, shares.value)]


def wilson(share: float, count: float, quantile: float = NORMAL_95) -> tuple[float, float]:
    """Return Wilson's score interval of a share of some independent clips (Wilson 1927)."""
    squared = quantile * quantile / count
    centre = (share + squared / 2) / (1 + squared)
    half = (squared * share * (1 - share) + squared * squared / 4) ** 0.5 / (1 + squared)
    # At 0 and 1 rounding must not leave the truth outside.
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return low, high


def share_interval(clips: Sequence[Clip], counts: Bool[np.ndarray, " clip"]) -> dict[str, Any]:
    """Return the share of clips that count, as plain values that JSON can hold.

    Args:
        clips: different clips, at least one.
        counts: which of them count.

    Returns:
        ``clips``, how many count; ``share``; ``interval_95``, by groups where these are known, else
        by clips; ``interval_by``.
    """
    number = len(clips)
    value = float(counts.mean())
    weights = np.full(number, 1 / number)
    # A share is an accuracy, of which each clip adds all or nothing.
    shares = ClipShares(
        "accuracy", value, counts * weights, weights, _number_groups(clips), float(number)
    )
    return {
        "clips": int(counts.sum()),
        "share": value,
        "interval_95": interval(shares, shares.unit),
        "interval_by": shares.unit,
    }


def describe_intervals(
    trials: Sequence[TrialResult], labels: Sequence[str], metric: str
) -> dict[str, Any]:
    """Return the intervals of a metric, as plain values that JSON can hold.

    Returns:
        ``interval_95``, by groups where groups are known, else by clips; ``interval_by``;
        ``interval_method``; ``intervals_95``, both of them by name; ``groups``, the number of
        groups. None where there is none.
    """
    shares = clip_shares(trials, labels, metric)
    if shares is None:
        return {
            "interval_95": None,
            "interval_by": None,
            "interval_method": None,
            "intervals_95": {"clip": None, "group": None},
            "groups": None,
        }
    by_group = None if shares.groups is None else interval(shares, "group")
    intervals = {"clip": interval(shares, "clip"), "group": by_group}
    return {
        "interval_95": intervals[shares.unit],
        "interval_by": shares.unit,
        "interval_method": _method(shares),
        "intervals_95": intervals,
        "groups": shares.groups,
    }


def _method(shares: ClipShares) -> str:
    if shares.unit == "group":
        return "Wilson, variance between groups, t quantile"
    return "Wilson" if shares.metric == "accuracy" else "Wilson, jackknife variance"


def _unbiased(shares: ClipShares) -> float:
    return float(np.clip(shares.shares.sum(), 0, 1))


def _independent_clips(shares: ClipShares, unit: Unit) -> tuple[float, int]:
    """Return how many independent clips would have the variance of a score, and how many units there are."""
    centred = shares.shares - shares.value * shares.weights
    variance, number = variance_of_sum(shares, centred, unit)
    if shares.metric == "accuracy" and unit == "clip":
        return shares.count, number
    bias = float(centred.sum())
    variance += (_UNCERTAIN_SHARE * bias) ** 2
    spread = _unbiased(shares) * (1 - _unbiased(shares))
    if number < 2 or variance == 0 or spread == 0:
        # Nothing differs, or nothing shows how much it does: each unit counts once.
        return float(min(shares.count, number)), number
    return spread / variance, number


def _number_groups(clips: Sequence[Clip]) -> Int[np.ndarray, " clip"]:
    names = [clip.group or clip.key for clip in clips]
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names])
