"""Average precision of many classes when clips have weights, as a bootstrap needs it.

Two ways give the same numbers. A class with many positive clips is sorted once, and the weights
between the scores of these clips are summed. A class with few of them asks how much weight lies at
or above each of these scores: one matrix product answers this for many classes.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from melpatch.evaluation.ranking import Positive, Scores

# Positive clips of a class up to which the product is faster.
_FEW = 24
# Values of a product's matrix of 32-bit numbers: 64 MiB.
_MOST_VALUES = 1 << 24


def average_precisions(
    scores: Scores, positive: Positive, weights: Float[np.ndarray, "resample clip"]
) -> Float[np.ndarray, "label resample"]:
    """Return the average precision of classes under each row of clip weights.

    It is nan where no positive clip of a class has weight.

    Args:
        scores: one score per clip and class.
        positive: which clips are of which class.
        weights: whole numbers, how often each clip counts.
    """
    values = np.full((positive.shape[1], len(weights)), np.nan)
    counts = positive.sum(axis=0)
    # Sums of whole numbers below 2^24 are exact in 32 bits.
    if weights.sum(axis=1).max(initial=0) < 1 << 24:
        weights = weights.astype(np.float32)
    by_clip = np.ascontiguousarray(weights.T)
    for label in np.flatnonzero(counts > _FEW):
        values[label] = average_precision(scores[:, label], positive[:, label], by_clip)
    for labels, clips in _groups(positive, np.flatnonzero((counts > 0) & (counts <= _FEW))):
        values[labels] = _of_few(scores, labels, clips, weights)
    return values


def average_precision(
    score: Float[np.ndarray, " clip"],
    positive: Bool[np.ndarray, " clip"],
    weights: Float[np.ndarray, "clip resample"],
) -> Float[np.ndarray, " resample"]:
    """Return the average precision of one class for each column of weights; nan where it has none.

    Clips of equal score enter together. scikit-learn's ``average_precision_score`` gives the same
    numbers for one column at a time.
    """
    # A step down the ranking ends at the score of a positive clip, with all clips of that score.
    thresholds = np.unique(score[positive])[::-1]
    step = np.searchsorted(-thresholds, -score, "left")
    retrieved = np.cumsum(_sums(step, len(thresholds), weights), axis=0)
    own = _sums(step[positive], len(thresholds), weights[positive])
    hits = np.cumsum(own, axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0: no positive clip has weight
        return np.asarray((own * hits / np.maximum(retrieved, 1)).sum(axis=0) / hits[-1])


def _sums(
    step: Int[np.ndarray, " clip"], steps: int, weights: Float[np.ndarray, "clip resample"]
) -> Float[np.ndarray, "step resample"]:
    """Return the weight of the clips of each step; clips beyond the last step do not count."""
    order = np.argsort(step, kind="stable")
    ends = np.cumsum(np.bincount(step, minlength=steps))[:steps]
    order = order[: ends[-1]]
    matrix = sparse.csr_matrix(
        (np.ones(len(order), weights.dtype), order, np.append(0, ends)),
        shape=(steps, len(weights)),
    )
    return np.asarray(matrix @ weights, dtype=np.float64)


def _groups(
    positive: Positive, labels: Int[np.ndarray, " judged"]
) -> Iterator[tuple[Int[np.ndarray, " some"], Int[np.ndarray, "some hit"]]]:
    """Yield classes of an equal number of positive clips, and these clips, of a bounded size."""
    columns, clips = np.nonzero(positive[:, labels].T)
    counts = np.bincount(columns, minlength=len(labels))
    starts = np.cumsum(counts) - counts
    for count in np.unique(counts):
        alike = np.flatnonzero(counts == count)
        at_once = max(1, _MOST_VALUES // (len(positive) * int(count)))
        for first in range(0, len(alike), at_once):
            chosen = alike[first : first + at_once]
            yield labels[chosen], clips[starts[chosen, None] + np.arange(count)]


def _of_few(
    scores: Scores,
    labels: Int[np.ndarray, " some"],
    clips: Int[np.ndarray, "some hit"],
    weights: Float[np.ndarray, "resample clip"],
) -> Float[np.ndarray, "some resample"]:
    """Return the average precision of classes with the same few positive clips each."""
    thresholds = scores[clips, labels[:, None]]
    # Weight of all clips with at least the score of a positive clip: (resample, class, hit).
    reached = scores[:, labels, None] >= thresholds
    retrieved = weights @ reached.reshape(len(scores), -1).astype(weights.dtype)
    retrieved = retrieved.reshape(len(weights), *clips.shape)
    # Weight of the positive clips among them, class by class.
    own = weights[:, clips].transpose(1, 0, 2)
    at_least = thresholds[:, :, None] >= thresholds[:, None, :]
    hits = own @ at_least.astype(weights.dtype)
    # A positive clip adds its weight to the recall, at the precision of its threshold.
    gained = own.astype(np.float64)
    precision = hits / np.maximum(retrieved.transpose(1, 0, 2), 1)
    with np.errstate(invalid="ignore"):  # 0 / 0: no positive clip was drawn
        return np.asarray((gained * precision).sum(axis=2) / gained.sum(axis=2))
