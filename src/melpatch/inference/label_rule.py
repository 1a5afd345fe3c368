"""Which labels a classifier gives, and what is none of these: one rule for answers and scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from melpatch.config import check
from melpatch.counted import counted
from melpatch.inference.model import Model
from melpatch.inference.novelty import FALSE_ALARMS, NONE_OF_THESE, clips_needed, is_novel

THRESHOLD = 0.5
"""Probability from which on a label is given, where nothing else was chosen or learnt."""


@dataclass(frozen=True)
class LabelRule:
    """When a classifier gives a label.

    Attributes:
        multi_label: whether every label that reaches its threshold is given, or only the most
            probable one if it does.
        thresholds: the lowest probability at which each label is given; None: the most probable one
            is given, whatever its probability.
        how: how these were chosen, in a word: the rule of the calibration, or the threshold.
        false_alarms: share of clips like the training ones that may be called none of the classes.
        novelty_clips: number of validation clips that say what is unlike the training clips; None
            if that is not known.
    """

    multi_label: bool
    thresholds: Float[np.ndarray, " label"] | None
    how: str = "none"
    false_alarms: float = FALSE_ALARMS
    novelty_clips: int | None = None

    @property
    def has_too_few_clips(self) -> bool:
        """Whether nothing can be called none of the classes, for want of validation clips."""
        if self.novelty_clips is None or not self.false_alarms:
            return False
        return self.novelty_clips < clips_needed(self.false_alarms)

    @property
    def tells_unlike(self) -> bool:
        """Whether anything can be called none of the classes."""
        known = self.novelty_clips is not None and self.false_alarms > 0
        return known and not self.has_too_few_clips

    def unlike(
        self, novelty: Float[np.ndarray, " row"] | None, rows: int
    ) -> Bool[np.ndarray, " row"]:
        """Return which rows are none of the classes.

        Args:
            novelty: of each, see :meth:`melpatch.inference.novelty.Novelty.ranks`; None if that is
                not known.
            rows: how many there are.
        """
        if novelty is None:
            return np.zeros(rows, dtype=bool)
        # In float32, as answers are written, so that the same answer has the same verdict anywhere.
        return is_novel(novelty.astype(np.float32), self.false_alarms)

    def given(
        self,
        probabilities: Float[np.ndarray, "row label"],
        novelty: Float[np.ndarray, " row"] | None = None,
    ) -> Bool[np.ndarray, "row label"]:
        """Return which labels each row is given; none, where it is none of the classes.

        Args:
            probabilities: calibrated ones.
            novelty: see :meth:`unlike`.
        """
        values = probabilities.astype(np.float32)
        if self.multi_label:
            assert self.thresholds is not None
            given = values >= self.thresholds
        else:
            best = values.argmax(axis=1)
            given = np.arange(values.shape[1]) == best[:, None]
            if self.thresholds is not None:
                given &= (values.max(axis=1) >= self.thresholds[best])[:, None]
        kept: np.ndarray = given & ~self.unlike(novelty, len(values))[:, None]
        return kept

    def event_thresholds(self, labels: int) -> Float[np.ndarray, " label"]:
        """Return the lowest score of an event of each label: that of a label, or else 0.5."""
        if self.thresholds is None:
            return np.full(labels, THRESHOLD)
        return self.thresholds


def label_rule(
    model: Model, threshold: float | None = None, false_alarms: float = FALSE_ALARMS
) -> LabelRule:
    """Return when a classifier gives a label.

    Args:
        model: the classifier.
        threshold: lowest probability of a label; None takes that of each class which the run has
            learnt on validation clips, or else 0.5 where a recording may have several labels.
        false_alarms: share of clips like the training ones that may be called none of the classes.

    Raises:
        ConfigError: the model was not trained with labels.
    """
    multi_label = model.network.classifier().config.multi_label
    calibration = model.calibration
    thresholds = None
    how = "none"
    novelty_clips = None
    if calibration is not None:
        thresholds = calibration.thresholds
        how = calibration.threshold_rule
        if calibration.novelty is not None:
            novelty_clips = len(calibration.novelty.held_out)
    if threshold is not None:
        how = f"threshold={threshold:g}"
    if threshold is not None or (thresholds is None and multi_label):
        thresholds = np.full(len(model.labels), THRESHOLD if threshold is None else threshold)
    return LabelRule(multi_label, thresholds, how, false_alarms, novelty_clips)


def check_label_rule(threshold: float | None, false_alarms: float) -> None:
    """Raise ConfigError if the settings of a rule are out of range."""
    fits = threshold is None or 0 <= threshold <= 1
    check(fits, "threshold", threshold, "0 to 1")
    check(0 <= false_alarms < 1, "false_alarms", false_alarms, "0 to below 1")


def names_of(
    given: Bool[np.ndarray, "row label"], labels: Sequence[str]
) -> Shaped[np.ndarray, " row"]:
    """Return the labels that each row is given, as text; several are separated by semicolons."""
    names = np.array(labels)
    if (given.sum(axis=1) <= 1).all():
        return np.where(given.any(axis=1), names[given.argmax(axis=1)], "")
    return np.array([";".join(names[row]) for row in given])


def describe_too_few(run: str, clips: int, false_alarms: float) -> str:
    """Return a sentence on a run calibrated on too few clips to call any none of the classes."""
    return (
        f"nothing is called {NONE_OF_THESE}: {run} was calibrated on {counted(clips, 'clip')}, and "
        f"--false-alarms {false_alarms:g} needs {clips_needed(false_alarms)}"
    )
