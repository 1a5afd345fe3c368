"""Settings of a classifier that its labels decide: its classes, their weights, what chooses its weights."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int

from melpatch.config import check
from melpatch.data.clip import Clip
from melpatch.data.corpus import Corpus
from melpatch.evaluation.majority import metric_in_words
from melpatch.evaluation.metrics import primary_metric
from melpatch.training.config import RunConfig
from melpatch.training.start import fitted, measured

UNEVEN = 0.2
"""Share of the validation clips that would have to be of another class for all classes to have
equally many, from which on the best weights follow balanced accuracy instead of accuracy."""
_POWERS = {"sqrt": 0.5, "balanced": 1.0}


def resolved(
    training: RunConfig, corpus: Corpus, train: Corpus, clips: int, val: Corpus | None = None
) -> RunConfig:
    """Return the settings with what the data decides: labels, multi-label or not, mean and std.

    Args:
        training: settings of a classifier.
        corpus: all clips, whose labels are the classes.
        train: the training clips, on which mean and std are measured.
        clips: number of clips to measure at most; 0 keeps the given mean and std.
        val: the validation clips, if any.
    """
    objective = replace(training.objective, multi_label=corpus.multi_label)
    objective = _with_class_weights(objective, train, corpus.labels)
    if val is not None:
        objective = replace(objective, select_by=selection_metric(objective, val))
    training = replace(training, labels=corpus.labels, objective=objective)
    if clips:
        training = measured(training, train, clips)
    return fitted(training)


def selection_metric(objective: Any, val: Corpus) -> str:
    """Return the metric on validation clips that chooses which weights a classifier keeps.

    Args:
        objective: settings of a classifier.
        val: the validation clips.
    """
    asked: str = objective.select_by
    if asked not in ("auto", "standard"):
        return asked
    if asked == "auto" and not objective.multi_label and unevenness(val) >= UNEVEN:
        return "balanced_accuracy"
    return primary_metric(objective.multi_label)


def describe_selection(training: RunConfig, val: Corpus) -> str | None:
    """Return a sentence on what chooses the kept weights, if that is not the metric of the literature."""
    metric = selection_metric(training.objective, val)
    if training.train.average_last > 0 or metric == primary_metric(training.objective.multi_label):
        return None
    reason = ""
    share = unevenness(val)
    if metric == "balanced_accuracy" and share >= UNEVEN:
        reason = (
            f", since {share:.0%} of these clips would have to be of another class for equal ones"
        )
    return (
        f"the weights with the best {metric_in_words(metric)} on validation are kept{reason}; "
        "--objective.select-by chooses another metric"
    )


def unevenness(corpus: Corpus) -> float:
    """Return the share of clips that would have to be of another class for classes of one size.

    Classes without a clip do not count. 0 if all have equally many clips; 0.4 if nine of ten clips
    are of one of two classes.
    """
    counts = _clips_per_class(corpus.clips, corpus.labels)
    shares = counts[counts > 0] / counts.sum()
    # The total variation distance between the classes' shares and equal ones.
    return float(np.abs(shares - 1 / len(shares)).sum() / 2)


def class_weights(kind: str, clips: Sequence[Clip], labels: Sequence[str]) -> tuple[float, ...]:
    """Return the weight of each class by the number of its clips; 0 without any.

    Args:
        kind: ``sqrt`` or ``balanced``.
        clips: the training clips; over their labels the mean weight is 1.
        labels: the classes.
    """
    counts = _clips_per_class(clips, labels)
    weights = np.where(counts > 0, np.maximum(counts, 1.0) ** -_POWERS[kind], 0.0)
    weights *= counts.sum() / (weights * counts).sum()
    # Six digits, so that config.toml can be read.
    return tuple(float(f"{weight:.6g}") for weight in weights)


def class_weights_of_probe(training: RunConfig, clips: Sequence[Clip]) -> tuple[float, ...]:
    """Return the weight of each class in the loss of a linear probe; none if they are equal.

    Args:
        training: settings of the classifier, resolved.
        clips: the training clips.
    """
    objective = training.objective
    weights: tuple[float, ...] = objective.class_weights
    if objective.loss_weights == "auto" and not weights and not objective.multi_label:
        weights = class_weights("balanced", clips, training.labels)
    return weights if len(set(weights)) > 1 else ()


def _with_class_weights(objective: Any, train: Corpus, labels: Sequence[str]) -> Any:
    if objective.loss_weights in ("equal", "auto"):
        return objective
    allowed = (
        f"nothing with loss_weights = {objective.loss_weights}, which sets them; leave one out"
    )
    check(not objective.class_weights, "class_weights", objective.class_weights, allowed)
    weights = class_weights(objective.loss_weights, train.clips, labels)
    return replace(objective, class_weights=weights)


def _clips_per_class(clips: Sequence[Clip], labels: Sequence[str]) -> Int[np.ndarray, " label"]:
    # A matrix of clips and labels would take 4 GB for the whole of AudioSet.
    counts = Counter(label for clip in clips for label in clip.labels)
    return np.array([counts[label] for label in labels])
