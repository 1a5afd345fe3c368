"""How well scores rank the clips of each class, from one sort per class."""

import numpy as np
from jaxtyping import Bool, Float

Scores = Float[np.ndarray, "clip label"]
Positive = Bool[np.ndarray, "clip label"]

_COLUMNS = 64  # classes at a time, whose columns are copied so that each is contiguous


def rankable(positive: Positive) -> Bool[np.ndarray, " label"]:
    """Return which classes have at least one positive and one negative clip."""
    count = positive.sum(axis=0)
    return np.asarray((count > 0) & (count < len(positive)))


def rank_classes(
    scores: Scores, positive: Positive
) -> tuple[Float[np.ndarray, " label"], Float[np.ndarray, " label"]]:
    """Return average precision and area under the ROC curve of each class; nan for others.

    Clips of equal score enter together, as in scikit-learn's functions, whose numbers these are.

    Args:
        scores: one score per clip and class.
        positive: which clips are of which class.
    """
    classes = positive.shape[1]
    precision = np.full(classes, np.nan)
    area = np.full(classes, np.nan)
    wanted = rankable(positive)
    for first in range(0, classes, _COLUMNS):
        block = np.ascontiguousarray(scores[:, first : first + _COLUMNS].T)
        marks = np.ascontiguousarray(positive[:, first : first + _COLUMNS].T)
        for place in np.flatnonzero(wanted[first : first + _COLUMNS]).tolist():
            average, under_curve = _rank_class(block[place], marks[place])
            precision[first + place] = average
            area[first + place] = under_curve
    return precision, area


def _rank_class(
    score: Float[np.ndarray, " clip"], positive: Bool[np.ndarray, " clip"]
) -> tuple[float, float]:
    """Return average precision and area under the curve of one class."""
    everything = np.sort(score)
    hits = np.sort(score[positive])
    below = np.searchsorted(everything, hits, "left")
    hits_below = np.searchsorted(hits, hits, "left")
    # The precision at the score of each positive clip: of all clips with at least this score, the
    # share that is positive. Each positive clip adds the same recall, so AP is the plain mean.
    average_precision = float(np.mean((len(hits) - hits_below) / (len(score) - below)))
    # AUC is the chance that a positive clip has a higher score than a negative one; a tie is half.
    ties = np.searchsorted(everything, hits, "right") - below
    hit_ties = np.searchsorted(hits, hits, "right") - hits_below
    wins = (below - hits_below) + 0.5 * (ties - hit_ties)
    return average_precision, float(np.mean(wins) / (len(score) - len(hits)))
