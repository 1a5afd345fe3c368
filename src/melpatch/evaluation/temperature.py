"""How well probabilities hold what they promise: expected calibration error, and a temperature that mends it.

A classifier that says 0.9 should be right nine times out of ten. Trained networks say too much, and
one number learnt on validation clips makes up for most of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import expit

from melpatch.data.corpus import label_matrix
from melpatch.evaluation.trials import TrialResult
from melpatch.inference.calibration import logits_of, rescaled

_COLDEST = 0.01
_HOTTEST = 100.0
_CLIPS_PER_BIN = 20  # at least; fewer make the error of any classifier look large
_MOST_BINS = 15


def fit_temperature(
    probabilities: Float[np.ndarray, "clip label"],
    targets: Float[np.ndarray, "clip label"],
    multi_label: bool,
) -> float:
    """Return the temperature with the least cross-entropy on validation clips.

    There is one for all classes, also where a clip may have several labels: rare classes have too
    few validation clips for their own, and the order of a clip's labels stays as it is. Targets are
    smoothed by one clip in two more than there are, so that few clips, all of them right, do not
    make a classifier certain.

    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2; the smoothing is Platt's (1999).

    Args:
        probabilities: of validation clips, uncalibrated.
        targets: 1 where a clip has the label, else 0.
        multi_label: whether a clip may have several labels.
    """
    logits = logits_of(probabilities, multi_label)
    smoothing = 1 / (len(targets) + 2)
    # Towards the share of labels that are given: 1 / labels where each clip has one.
    goal = (1 - smoothing) * targets + smoothing * targets.mean()
    wanted = float((goal * logits).sum())

    def slope(log_scale: float) -> float:
        """Return d loss / d scale, of logits times a scale; it rises with the scale."""
        scaled = logits * np.exp(log_scale)
        if multi_label:
            answers = expit(scaled)
        else:
            scaled -= scaled.max(axis=1, keepdims=True)
            answers = np.exp(scaled, out=scaled)
            answers /= answers.sum(axis=1, keepdims=True)
        return float((answers * logits).sum()) - wanted

    low = -np.log(_HOTTEST)
    high = -np.log(_COLDEST)
    # The loss is convex in the scale, so that it is least where its slope is 0, or at an end.
    if slope(low) >= 0:
        return _HOTTEST
    if slope(high) <= 0:
        return _COLDEST
    return float(np.exp(-brentq(slope, low, high, xtol=1e-4)))


@dataclass(frozen=True)
class Reliability:
    """Answers in bins of equal numbers, the least certain first.

    Attributes:
        answers: number of answers in each bin.
        confidence: their mean probability.
        right: the share of them that is right.
    """

    answers: Float[np.ndarray, " bin"]
    confidence: Float[np.ndarray, " bin"]
    right: Float[np.ndarray, " bin"]

    @property
    def error(self) -> float:
        """The expected calibration error: how far the share of right answers is off the promise."""
        gaps = np.abs(self.right - self.confidence)
        return float((self.answers * gaps).sum() / self.answers.sum())


def calibration_entry(
    trials: Sequence[TrialResult], labels: Sequence[str], multi_label: bool
) -> dict[str, Any] | None:
    """Return how well the probabilities of trials hold what they promise, as plain values.

    None if a protocol gives scores that are no probabilities.

    The trials of all splits and seeds are taken together.

    Returns:
        ``ece``, the expected calibration error; ``ece_uncalibrated``, without the temperature that
        the classifier has learnt, and that ``temperature``, both None if it has none; and ``bins``,
        see :class:`Reliability`, of both.
    """
    targets = np.concatenate([label_matrix(trial.clips, labels) for trial in trials])
    probabilities = np.concatenate([trial.probabilities for trial in trials])
    if probabilities.min() < 0 or probabilities.max() > 1 + 1e-5:
        return None
    after = reliability(probabilities, targets, multi_label)
    bins = {"calibrated": after}
    temperature = trials[0].details.get("temperature")
    if temperature is not None:
        # The temperature divides the logits; its inverse gives the network's own probabilities.
        raw = rescaled(probabilities, 1 / temperature, multi_label)
        bins["uncalibrated"] = reliability(raw, targets, multi_label)
    before = bins.get("uncalibrated")
    return {
        "ece": after.error,
        "ece_uncalibrated": None if before is None else before.error,
        "temperature": temperature,
        "bins": {
            name: {column: values.tolist() for column, values in vars(points).items()}
            for name, points in bins.items()
        },
    }


def reliability(
    probabilities: Float[np.ndarray, "clip label"],
    targets: Float[np.ndarray, "clip label"],
    multi_label: bool,
) -> Reliability:
    """Return how often answers are right that have about the same probability.

    An answer is the most probable label of a clip or, where a clip may have several, each of its
    labels. There are up to 15 bins of at least 20 answers.

    Args:
        probabilities: of clips.
        targets: 1 where a clip has the label, else 0.
        multi_label: whether a clip may have several labels.
    """
    if multi_label:
        confidence = probabilities.reshape(-1).astype(np.float64)
        right = targets.reshape(-1)
    else:
        confidence = probabilities.max(axis=1).astype(np.float64)
        best = probabilities.argmax(axis=1)
        right = np.take_along_axis(targets, best[:, None], axis=1)[:, 0]
    order = np.argsort(confidence, kind="stable")
    bins = min(_MOST_BINS, max(1, len(order) // _CLIPS_PER_BIN))
    edges = np.arange(bins) * len(order) // bins
    counts = np.diff([*edges, len(order)]).astype(np.float64)
    return Reliability(
        counts,
        np.add.reduceat(confidence[order], edges) / counts,
        np.add.reduceat(right[order].astype(np.float64), edges) / counts,
    )
