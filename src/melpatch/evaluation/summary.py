"""From the predictions of trials to the scores of an evaluation: means over splits and seeds, and an interval."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from melpatch.data.corpus import label_matrix
from melpatch.evaluation.intervals import describe_intervals
from melpatch.evaluation.metrics import compute_metrics, d_prime
from melpatch.evaluation.trials import TrialResult


def summarize(
    trials: Sequence[TrialResult],
    labels: Sequence[str],
    multi_label: bool,
    metric: str,
) -> dict[str, Any]:
    """Return the scores of all trials together, as plain values that JSON can hold.

    Every metric is the mean over seeds of the mean over splits, except ``d_prime``, which is
    computed from the mean mAUC. ``confusion_matrix`` and the counts of the classes are sums over
    splits and means over seeds. A metric that is undefined in a trial is left out of the mean; one
    that is undefined in all trials is None. Precision, recall and F1 of a class leave out splits
    without a test clip of it.

    Args:
        trials: of one evaluation.
        labels: the names of the columns.
        multi_label: whether a clip may have several labels or none.
        metric: the primary metric, one of :func:`melpatch.evaluation.metrics.compute_metrics`.

    Returns:
        ``metric`` and its ``value``; ``interval_95`` and its like, see
        :func:`melpatch.evaluation.intervals.describe_intervals`: how far the value may be off
        because the test clips are a sample, not because the training clips are; ``seed_std``, the
        standard deviation between seeds (None for one seed);
        ``n``, the number of scored clips; ``metrics``, ``per_class``, ``confusion_matrix``, and the
        classes that no split could rank.
    """
    scores = [
        compute_metrics(trial.probabilities, label_matrix(trial.clips, labels), labels, multi_label)
        for trial in trials
    ]
    seeds = sorted({trial.seed for trial in trials})

    def mean_by_seed(name: str) -> list[float | None]:
        values: dict[int, list[float | None]] = {seed: [] for seed in seeds}
        for trial, trial_scores in zip(trials, scores, strict=True):
            values[trial.seed].append(trial_scores[name])
        return [_mean(values[seed]) for seed in seeds]

    primary = [value for value in mean_by_seed(metric) if value is not None]
    metrics = {name: _mean(mean_by_seed(name)) for name in _scalar_metrics(scores[0])}
    result: dict[str, Any] = {
        "metric": metric,
        "value": _mean(primary),
        **describe_intervals(trials, labels, metric),
        "seed_std": stdev(primary) if len(primary) > 1 else None,
        "n": sum(len(trial.clips) for trial in trials if trial.seed == seeds[0]),
        "metrics": metrics | {"d_prime": d_prime(metrics["mAUC"])},
        "per_class": _per_class([trial_scores["per_class"] for trial_scores in scores], len(seeds)),
    }
    if "confusion_matrix" in scores[0]:
        result["confusion_matrix"] = _confusion(scores, len(seeds))
    for name in ("classes_without_positives", "classes_without_negatives"):
        listed = [set(trial_scores[name]) for trial_scores in scores]
        in_all = set.intersection(*listed)
        result[name] = [label for label in labels if label in in_all]
    return result


def _confusion(scores: Sequence[dict[str, Any]], seeds: int) -> list[list[float]] | None:
    """Return the confusion matrix of all trials, summed over splits; None where labels are too many for one."""
    matrices = [trial_scores["confusion_matrix"] for trial_scores in scores]
    if None in matrices:
        return None
    summed: list[list[float]] = (np.sum(matrices, axis=0) / seeds).tolist()
    return summed


def _scalar_metrics(scores: dict[str, Any]) -> list[str]:
    return [
        name
        for name, value in scores.items()
        if name not in ("clips", "confusion_matrix") and not isinstance(value, list)
    ]


def _per_class(tables: Sequence[list[dict[str, Any]]], num_seeds: int) -> list[dict[str, Any]]:
    """Return one row per class: counts summed over splits, everything else the mean of what is defined."""
    rows = []
    for class_rows in zip(*tables, strict=True):
        row: dict[str, Any] = {
            "label": class_rows[0]["label"],
            "positives": sum(entry["positives"] for entry in class_rows) // num_seeds,
            "predicted": sum(entry["predicted"] for entry in class_rows) / num_seeds,
        }
        # Without a clip of the class a split says nothing of its precision, recall and F1.
        scored = [entry for entry in class_rows if entry["positives"]]
        for name in class_rows[0]:
            if name not in row:
                row[name] = _mean([entry[name] for entry in scored])
        rows.append(row)
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
