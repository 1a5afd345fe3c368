"""How much each clip moves a score: what intervals and paired tests are computed from.

The influence of a clip is the jackknife's: the number of clips, less one, times the change of the
score when the clip is left out (Quenouille 1956, Tukey 1958). A score differs from what endless
clips would give by about the mean influence of the scored ones, so the variance of a score is that
of a mean, for any metric. For the area under the ROC curve this is DeLong's variance (1988).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from melpatch.evaluation.ranking import Positive, Scores, rankable

Influence = Float[np.ndarray, " clip"]
Measured = tuple[float, Influence]


def clip_influence(probabilities: Scores, positive: Positive, metric: str) -> Measured | None:
    """Return a metric and the influence of each clip on it; None where it is undefined or has none.

    The mean over the clips is the jackknife's correction of the bias, zero for most metrics:
    average precision is too high where a class has few clips.

    Args:
        probabilities: one score per clip and label.
        positive: which clips have which label.
        metric: ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``mAP`` or ``mAUC``.
    """
    if metric in _OF_RANKING:
        return _ranking_influence(probabilities, positive, _OF_RANKING[metric])
    if metric in _OF_DECISION:
        return _OF_DECISION[metric](probabilities.argmax(axis=1), positive.argmax(axis=1))
    return None


def informative_clips(positive: Positive, metric: str) -> int:
    """Return how many clips a metric rests on: all, or those of the rarer kind of each ranked class."""
    if metric not in _OF_RANKING:
        return len(positive)
    count = positive[:, rankable(positive)].sum(axis=0)
    rarer = np.minimum(count, len(positive) - count)
    return int(min(rarer.sum(), len(positive)))


def _accuracy(predicted: Int[np.ndarray, " clip"], true: Int[np.ndarray, " clip"]) -> Measured:
    correct = (predicted == true).astype(np.float64)
    mean = float(correct.mean())
    return mean, correct - mean


def _balanced_accuracy(
    predicted: Int[np.ndarray, " clip"], true: Int[np.ndarray, " clip"]
) -> Measured:
    correct = (predicted == true).astype(np.float64)
    count = np.bincount(true)
    recall = np.bincount(true, correct) / np.maximum(count, 1)
    mean = float(recall[count > 0].mean())
    scale = (len(true) - 1) / (np.count_nonzero(count) * np.maximum(count - 1, 1))
    # A class of one clip says nothing of the spread within it; that between classes stands for it.
    centre = np.where(count == 1, mean, recall)
    influence = scale[true] * (correct - centre[true])
    return mean, influence - influence.mean()


def _macro_f1(predicted: Int[np.ndarray, " clip"], true: Int[np.ndarray, " clip"]) -> Measured:
    classes = int(max(predicted.max(), true.max())) + 1
    correct = predicted == true
    count = np.bincount(true, minlength=classes)
    # F1 = 2 hits / (clips of the class + clips predicted as it): the derivative of a quotient.
    both = np.maximum(count + np.bincount(predicted, minlength=classes), 1)
    f1 = 2 * np.bincount(true[correct], minlength=classes) / both
    wanted = count > 0
    scale = np.where(wanted, len(true) / (wanted.sum() * both), 0.0)
    lost = scale * f1
    influence = 2 * correct * scale[true] - lost[true] - lost[predicted]
    return float(f1[wanted].mean()), influence


def _ranking_influence(
    scores: Scores,
    positive: Positive,
    of_class: Callable[[Float[np.ndarray, " clip"], Bool[np.ndarray, " clip"]], Measured],
) -> Measured | None:
    """Return a mean over the classes that can be ranked, and the influence on it."""
    classes = np.flatnonzero(rankable(positive))
    if not len(classes):
        return None
    total = 0.0
    influence = np.zeros(len(scores))
    for label in classes.tolist():
        value, on_class = of_class(np.ascontiguousarray(scores[:, label]), positive[:, label])
        total += value
        influence += on_class
    return total / len(classes), influence / len(classes)


def _average_precision(
    score: Float[np.ndarray, " clip"], positive: Bool[np.ndarray, " clip"]
) -> Measured:
    hits = np.sort(score[positive])
    count = len(hits)
    retrieved = len(score) - np.searchsorted(np.sort(score), hits, "left")
    hits_retrieved = count - np.searchsorted(hits, hits, "left")
    precision = hits_retrieved / retrieved
    # Leaving a clip out changes the precision at each positive clip that it is not below.
    fewer = np.maximum(retrieved - 1, 1)
    without_negative = hits_retrieved / fewer - precision
    without_positive = (hits_retrieved - 1) / fewer - precision
    reached = np.searchsorted(hits, score, "right")
    change = np.append(0.0, np.cumsum(without_negative))[reached] / count
    mean = float(precision.mean())
    # A positive clip also takes its own precision out of the mean.
    rank = np.searchsorted(hits, score[positive], "left")
    others = np.append(0.0, np.cumsum(without_positive))[reached[positive]] - without_positive[rank]
    change[positive] = (others + mean - precision[rank]) / max(count - 1, 1)
    return mean, -(len(score) - 1) * change


def _area_under_curve(
    score: Float[np.ndarray, " clip"], positive: Bool[np.ndarray, " clip"]
) -> Measured:
    hits = np.sort(score[positive])
    misses = np.sort(score[~positive])
    # The share of clips of the other kind that a clip is on the right side of; a tie is half.
    won = _share_below(misses, score[positive])
    held = 1 - _share_below(hits, score[~positive])
    area = float(won.mean())
    influence = np.empty(len(score))
    influence[positive] = (won - area) / max(len(hits) - 1, 1)
    influence[~positive] = (held - area) / max(len(misses) - 1, 1)
    return area, (len(score) - 1) * influence


def _share_below(
    values: Float[np.ndarray, " value"], at: Float[np.ndarray, " place"]
) -> Float[np.ndarray, " place"]:
    below = np.searchsorted(values, at, "left") + np.searchsorted(values, at, "right")
    return np.asarray(below / (2 * len(values)))


_OF_DECISION = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "macro_f1": _macro_f1,
}
_OF_RANKING = {"mAP": _average_precision, "mAUC": _area_under_curve}
