"""Metrics of predictions: accuracy and its relatives, mAP, mAUC and d'; classes that cannot be scored are named.

A class without a positive clip in the evaluated set, or without a negative one, has no ranking to
judge. It is reported by name and left out of every mean; it never counts as 0, 1 or nan.
"""

from collections.abc import Mapping, Sequence
from itertools import compress
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped

from melpatch.counted import agreeing, counted
from melpatch.errors import DataError, NotFiniteError
from melpatch.evaluation.decisions import Decisions, count_decisions
from melpatch.evaluation.ranking import Positive, Scores, rank_classes, rankable

MOST_CONFUSED = 2000
"""Classes up to which there is a confusion matrix; a larger one would fill scores.json."""
THRESHOLD = 0.5
"""Probability from which on a label counts as predicted where a clip may have several."""
BASELINES = ("majority_rate", "prevalence")
"""What a constant answer scores, by its name among the metrics: accuracy, or mAP."""


def primary_metric(multi_label: bool) -> Literal["accuracy", "mAP"]:
    """Return the metric by which the literature compares tasks of this kind."""
    return "mAP" if multi_label else "accuracy"


def compute_metrics(
    probabilities: Scores,
    targets: Shaped[np.ndarray, "clip label"],
    labels: Sequence[str],
    multi_label: bool,
) -> dict[str, Any]:
    """Return every metric of one set of predictions, as plain values that JSON can hold.

    The definitions are those of the published SSAST and AST code (behaviour of its statistics
    function): ``mAP`` and ``mAUC`` are means over classes; ``d_prime`` is sqrt(2) times the normal
    quantile of the mean AUC, not the mean of the classes' own d'.

    *Differs:* there, a class without positives turns mAUC and d' into nan and lowers mAP, silently;
    here it is listed in ``classes_without_positives`` (or ``classes_without_negatives``) and the
    means are over the other classes.

    Args:
        probabilities: one score per clip and label.
        targets: 1 where the clip has the label, else 0.
        labels: the names of the columns.
        multi_label: whether a clip may have several labels or none. If not, the arg-max is judged
            too: ``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``majority_rate`` (accuracy of
            the commonest label) and ``confusion_matrix`` (a row per true label, a column per
            predicted one; None for more than 2000 labels).

    Returns:
        The metrics; None where one is undefined (mAP without a class to rank, d' of a perfect
        mAUC). Of several labels ``prevalence`` is the mAP of a constant score. ``per_class`` holds
        a row per label, with the number of clips that are ``predicted`` to have it: it is their
        most probable one or, of several, has a probability of 0.5 or more.

    Raises:
        DataError: there is no clip, or a clip of a single-label task has no label or several.
        NotFiniteError: a probability is not finite.
    """
    _check(probabilities, targets, labels, multi_label)
    positive = targets > 0.5
    num_positive = positive.sum(axis=0)
    metrics: dict[str, Any] = {}
    table: dict[str, list[Any]] = {"label": [*labels], "positives": num_positive.tolist()}
    table |= _ranking_columns(probabilities, positive)
    if multi_label:
        table["predicted"] = (probabilities >= THRESHOLD).sum(axis=0).tolist()
        metrics["prevalence"] = _prevalence(positive)
    else:
        decisions = count_decisions(probabilities, positive)
        table |= _decision_columns(decisions)
        metrics |= _decision_metrics(decisions)
        metrics["confusion_matrix"] = _confusion(positive, probabilities)
    mean_auc = _mean(table["AUC"])
    metrics |= {
        "clips": len(positive),
        "mAP": _mean(table["AP"]),
        "mAUC": mean_auc,
        "d_prime": d_prime(mean_auc),
        "classes_without_positives": list(compress(labels, num_positive == 0)),
        "classes_without_negatives": list(compress(labels, num_positive == len(positive))),
        "per_class": _rows(table),
    }
    return metrics


def _rows(table: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the rows of a table that is given by its columns."""
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def validation_scores(
    probabilities: Scores,
    targets: Shaped[np.ndarray, "clip label"],
    labels: Sequence[str],
    multi_label: bool,
    metric: str,
) -> dict[str, float | None]:
    """Return the metric that weights are chosen by, and those that cost next to nothing beside it.

    Args:
        probabilities: see :func:`compute_metrics`, as the rest.
        targets: 1 where the clip has the label.
        labels: the names of the columns.
        multi_label: whether a clip may have several labels or none.
        metric: ``mAP`` or, of one label, ``accuracy``, ``balanced_accuracy`` or ``macro_f1``.

    Returns:
        The metrics by name; mAP is None where no class can be ranked.

    Raises:
        DataError: there is no clip, or a clip of a single-label task has no label or several.
        NotFiniteError: a probability is not finite.
    """
    _check(probabilities, targets, labels, multi_label)
    positive = targets > 0.5
    scores: dict[str, float | None] = {}
    if not multi_label:
        scores |= _decision_metrics(count_decisions(probabilities, positive))
    if multi_label or metric == "mAP":
        precision, _ = rank_classes(probabilities, positive)
        scores["mAP"] = _mean(_known(precision))
    return scores


def d_prime(mean_auc: float | None) -> float | None:
    """Return sqrt(2) times the normal quantile of a mean AUC; None where that is not finite."""
    if mean_auc is None or mean_auc in (0.0, 1.0):
        return None
    # Two normal distributions of unit variance whose means are d' apart have AUC = Phi(d' /
    # sqrt(2)).
    return 2**0.5 * NormalDist().inv_cdf(mean_auc)


def accuracy(probabilities: Scores, targets: Shaped[np.ndarray, "clip label"]) -> float:
    """Return the share of clips whose most probable label is their label; of equally probable ones the first counts."""
    return float(np.mean(probabilities.argmax(axis=1) == targets.argmax(axis=1)))


def check_finite(what: str, values: Float[np.ndarray, "clip value"]) -> None:
    """Raise a NotFiniteError that says how many clips have a value that is not finite, if any has."""
    bad = int((~np.isfinite(values)).any(axis=1).sum())
    if bad:
        raise NotFiniteError(
            f"{what} of {bad} of {counted(len(values), 'clip')} hold nan or infinity: the model has "
            "diverged; take an earlier checkpoint, or train with a lower learning rate"
        )


def _check(
    probabilities: Scores,
    targets: Shaped[np.ndarray, "clip label"],
    labels: Sequence[str],
    multi_label: bool,
) -> None:
    if not len(targets):
        raise DataError("no clip to evaluate; check the split and the manifest's split column")
    if probabilities.shape != targets.shape or targets.shape[1] != len(labels):
        raise ValueError(
            f"{probabilities.shape} probabilities, {targets.shape} targets, {len(labels)} labels"
        )
    check_finite("probabilities", probabilities)
    wrong = int(((targets > 0.5).sum(axis=1) != 1).sum())
    if wrong and not multi_label:
        raise DataError(
            f"{wrong} of {counted(len(targets), 'clip')} {agreeing(wrong, 'has', 'have')} no label or "
            "several, but the task is single-label; correct the labels in the manifest, or evaluate "
            "as multi-label"
        )


def _ranking_columns(probabilities: Scores, positive: Positive) -> dict[str, list[Any]]:
    """Return the columns AP and AUC of the table of classes; None for a class that cannot be ranked."""
    precision, area = rank_classes(probabilities, positive)
    return {"AP": _known(precision), "AUC": _known(area)}


def _known(values: Float[np.ndarray, " label"]) -> list[float | None]:
    """Return the values of classes, None in place of nan."""
    return [None if value != value else value for value in values.tolist()]


def _prevalence(positive: Positive) -> float | None:
    """Return the mAP of a constant score: the mean share of positive clips of the classes it ranks."""
    shares = positive.mean(axis=0)[rankable(positive)]
    return float(shares.mean()) if len(shares) else None


def _decision_metrics(decisions: Decisions) -> dict[str, float]:
    """Return the metrics of the arg-max; means over classes leave out classes without a clip."""
    return {
        "accuracy": decisions.accuracy,
        "balanced_accuracy": decisions.balanced_accuracy,
        "macro_f1": decisions.macro_f1,
        "majority_rate": decisions.majority_rate,
    }


def _confusion(positive: Positive, probabilities: Scores) -> list[list[int]] | None:
    """Return the number of clips of label i that are predicted as label j; None for many labels."""
    classes = positive.shape[1]
    if classes > MOST_CONFUSED:
        return None
    # A pair of labels is one number, so that pairs are counted like numbers.
    pairs = positive.argmax(axis=1) * classes + probabilities.argmax(axis=1)
    counts = np.bincount(pairs, minlength=classes * classes)
    matrix: list[list[int]] = counts.reshape(classes, classes).tolist()
    return matrix


def _decision_columns(decisions: Decisions) -> dict[str, list[Any]]:
    """Return the columns of decisions in the table of classes."""
    return {
        "predicted": decisions.predicted.tolist(),
        "precision": decisions.precision.tolist(),
        "recall": decisions.recall.tolist(),
        "F1": decisions.f1.tolist(),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
