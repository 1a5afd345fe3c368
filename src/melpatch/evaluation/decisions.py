"""Metrics of decisions: which class is predicted, counted per class without a loop over classes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from melpatch.evaluation.ranking import Positive, Scores


class Decisions(NamedTuple):
    """The most probable classes of clips with one label each, counted by class."""

    positives: Int[np.ndarray, " label"]
    """Clips of each class."""
    predicted: Int[np.ndarray, " label"]
    """Clips that are called so."""
    hits: Int[np.ndarray, " label"]
    """Clips of each class that are called so."""

    @property
    def accuracy(self) -> float:
        """The share of clips that are called what they are."""
        return float(self.hits.sum() / self.positives.sum())

    @property
    def majority_rate(self) -> float:
        """The accuracy of calling every clip the commonest class."""
        return float(self.positives.max() / self.positives.sum())

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have clips."""
        return float(self.recall[self.positives > 0].mean())

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have clips."""
        return float(self.f1[self.positives > 0].mean())

    @property
    def precision(self) -> Float[np.ndarray, " label"]:
        """The share of the clips called so that are; 0 without any."""
        return np.asarray(self.hits / np.maximum(self.predicted, 1))

    @property
    def recall(self) -> Float[np.ndarray, " label"]:
        """The share of the clips of a class that are called so; 0 without any."""
        return np.asarray(self.hits / np.maximum(self.positives, 1))

    @property
    def f1(self) -> Float[np.ndarray, " label"]:
        """The harmonic mean of precision and recall; 0 without a hit."""
        return np.asarray(2 * self.hits / np.maximum(self.predicted + self.positives, 1))


def count_decisions(probabilities: Scores, positive: Positive) -> Decisions:
    """Return the counts of the most probable classes; of equally probable ones the first counts.

    Args:
        probabilities: one score per clip and class.
        positive: the class of each clip, one per clip.
    """
    classes = positive.shape[1]
    predicted = probabilities.argmax(axis=1)
    true = positive.argmax(axis=1)
    return Decisions(
        np.bincount(true, minlength=classes),
        np.bincount(predicted, minlength=classes),
        np.bincount(true[predicted == true], minlength=classes),
    )
