"""How good predictions are: accuracy and its relatives, mAP, mAUC and d', with what cannot be scored said aloud.

A class that has no positive clip in the evaluated set, or no negative one, has no ranking to judge. It is reported by
name and left out of every mean; it is never counted as 0, as 1, or as nan.
"""

from collections.abc import Sequence
from itertools import compress
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from melpatch.errors import DataError, MelpatchError
from melpatch.evaluation.bootstrap import RESAMPLES, interval, resampled

Scores = Float[np.ndarray, "clip label"]
Positive = Bool[np.ndarray, "clip label"]


def primary_metric(multi_label: bool) -> Literal["accuracy", "mAP"]:
    """Return the metric by which the literature compares tasks of this kind."""
    return "mAP" if multi_label else "accuracy"


def scores(
    probabilities: Scores,
    targets: Shaped[np.ndarray, "clip label"],
    labels: Sequence[str],
    multi_label: bool,
    *,
    seed: int | None = 0,
) -> dict[str, Any]:
    """Return every metric of one set of predictions, as plain values that JSON can hold.

    The definitions are those of the published SSAST and AST code (behaviour of its statistics function): ``mAP`` and
    ``mAUC`` are means over classes; ``d_prime`` is sqrt(2) times the normal quantile of the mean AUC, not the mean of
    the classes' own d'.

    *Differs:* there, a class without positives turns mAUC and d' into nan and pulls mAP down, silently; here it stands
    in ``classes_without_positives`` (or ``classes_without_negatives``) and the means are over the other classes.

    Args:
        probabilities: one score per clip and label.
        targets: 1 where the clip has the label, else 0.
        labels: the names of the columns.
        multi_label: whether a clip may have several labels or none. If not, the arg-max is judged too: ``accuracy``,
            ``balanced_accuracy``, ``macro_f1`` and ``confusion`` (a row per true label, a column per predicted one).
        seed: of the bootstrap behind ``accuracy_95`` or ``mAP_95``, the 95 % interval of the primary metric; None
            leaves that out.

    Returns:
        The metrics; None where one is not defined (mAP without a class to rank, d' of a perfect mAUC). ``per_class``
        holds a row per label.

    Raises:
        DataError: there is no clip, or a clip of a single-label task has no label or several.
        MelpatchError: a probability is not finite.
    """
    _check(probabilities, targets, labels, multi_label)
    positive = targets > 0.5
    count = positive.sum(axis=0)
    ranked = np.flatnonzero((count > 0) & (count < len(positive)))
    decisions, columns = ({}, {}) if multi_label else _decisions(probabilities, positive)
    table = (
        {"label": labels, "positives": count.tolist()}
        | _ranking(probabilities, positive, ranked)
        | columns
    )
    mean_auc = _mean(table["AUC"])
    found = decisions | {
        "clips": len(positive),
        "mAP": _mean(table["AP"]),
        "mAUC": mean_auc,
        "d_prime": d_prime(mean_auc),
        "classes_without_positives": list(compress(labels, count == 0)),
        "classes_without_negatives": list(compress(labels, count == len(positive))),
        "per_class": [
            dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)
        ],
    }
    if seed is not None:
        primary = primary_metric(multi_label)
        found[f"{primary}_95"] = interval(redrawn(probabilities, positive, primary, seed))
    return found


def d_prime(mean_auc: float | None) -> float | None:
    """Return sqrt(2) times the normal quantile of a mean AUC; None where that is not finite."""
    return (
        None
        if mean_auc is None or mean_auc in (0.0, 1.0)
        else 2**0.5 * NormalDist().inv_cdf(mean_auc)
    )


def accuracy(probabilities: Scores, targets: Shaped[np.ndarray, "clip label"]) -> float:
    """Return the share of clips whose most probable label is their label; of equally probable ones the first counts."""
    return float(np.mean(probabilities.argmax(axis=1) == targets.argmax(axis=1)))


def redrawn(
    probabilities: Scores, targets: Shaped[np.ndarray, "clip label"], metric: str, seed: int
) -> Float[np.ndarray, " resample"]:
    """Return ``accuracy`` or ``mAP`` over 1000 draws of the clips with replacement; nan where it is not defined."""
    positive = targets > 0.5
    ranked = np.flatnonzero(positive.any(axis=0) & ~positive.all(axis=0))

    def accuracies(weights: Float[np.ndarray, "resample clip"]) -> Float[np.ndarray, " resample"]:
        correct = probabilities.argmax(axis=1) == positive.argmax(axis=1)
        return np.asarray(weights @ correct / len(positive))

    def mean_aps(weights: Float[np.ndarray, "resample clip"]) -> Float[np.ndarray, " resample"]:
        aps = np.stack(
            [average_precision(probabilities[:, i], positive[:, i], weights) for i in ranked]
        )
        return np.asarray(
            np.ma.masked_invalid(aps).mean(axis=0).filled(np.nan)
        )  # over the classes a draw can rank

    if metric == "mAP" and not len(ranked):
        return np.full(RESAMPLES, np.nan)
    return resampled(mean_aps if metric == "mAP" else accuracies, len(positive), seed)


def average_precision(
    score: Float[np.ndarray, " clip"],
    positive: Bool[np.ndarray, " clip"],
    weights: Float[np.ndarray, "resample clip"],
) -> Float[np.ndarray, " resample"]:
    """Return the average precision of one class under each row of clip weights; nan where no positive has weight.

    Clips of equal score enter together. scikit-learn's ``average_precision_score`` gives the same numbers for one row
    of weights at a time; here the clips are sorted once for all rows, which makes a bootstrap affordable.
    """
    order = np.argsort(-score, kind="stable")
    last_of_equals = np.append(np.diff(score[order]) != 0, True)
    weights = weights[:, order]
    retrieved = np.cumsum(weights, axis=1)[:, last_of_equals]
    hits = np.cumsum(weights * positive[order], axis=1)[:, last_of_equals]
    with np.errstate(invalid="ignore"):  # 0 / 0: no positive, or nothing retrieved yet
        precision = np.nan_to_num(hits / retrieved)
        return np.asarray(
            (precision * np.diff(hits, axis=1, prepend=0.0)).sum(axis=1) / hits[:, -1]
        )


def check_finite(what: str, values: Float[np.ndarray, "clip value"]) -> None:
    """Raise a MelpatchError that says how many clips have a value that is not finite, if any has."""
    bad = int((~np.isfinite(values)).any(axis=1).sum())
    if bad:
        raise MelpatchError(
            f"{what} of {bad} of {len(values)} clips hold nan or infinity: the model has diverged; "
            "take an earlier checkpoint, or train with a lower learning rate"
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
            f"{wrong} of {len(targets)} clips have no label or several, but the task is single-label; "
            "mend the labels in the manifest, or evaluate as multi-label"
        )


def _ranking(
    probabilities: Scores, positive: Positive, ranked: Shaped[np.ndarray, " ranked"]
) -> dict[str, list[Any]]:
    """Return the columns AP and AUC of the table of classes, None for a class that cannot be ranked."""
    columns: dict[str, list[Any]] = {
        "AP": [None] * positive.shape[1],
        "AUC": [None] * positive.shape[1],
    }
    for i in ranked:
        score, hit = probabilities[:, i], positive[:, i]
        columns["AP"][i] = float(average_precision(score, hit, np.ones((1, len(hit))))[0])
        columns["AUC"][i] = float(roc_auc_score(hit, score))
    return columns


def _decisions(
    probabilities: Scores, positive: Positive
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Return the metrics of the arg-max, and the columns precision, recall and F1 of the table of classes."""
    true, predicted = positive.argmax(axis=1), probabilities.argmax(axis=1)
    classes = np.arange(positive.shape[1])
    precision, recall, f1, support = precision_recall_fscore_support(
        true, predicted, labels=classes, zero_division=0
    )
    metrics = {
        "accuracy": accuracy(probabilities, positive),
        "balanced_accuracy": float(recall[support > 0].mean()),
        "macro_f1": float(f1[support > 0].mean()),
        "confusion": (positive.T.astype(int) @ (predicted[:, None] == classes)).tolist(),
    }
    return metrics, {"precision": precision.tolist(), "recall": recall.tolist(), "F1": f1.tolist()}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
