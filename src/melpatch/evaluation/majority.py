"""What stands beside a score: what a constant answer scores, and words where a classifier is none better.

Where nine of ten clips are of one class, calling all of them so has an accuracy of 0.9.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from melpatch.counted import agreeing, counted
from melpatch.evaluation.metrics import THRESHOLD

NAMED = 5
"""Classes that a sentence names; of further ones it gives the number."""
REMEDY = (
    "what usually helps: melpatch finetune with --balanced-sampling or --objective.loss-weights "
    "balanced, weights chosen with --objective.select-by balanced_accuracy, more clips of the rare "
    "classes, or a linear probe (--head linear)"
)

# What stands beside a score, and how it is called there.
_BESIDE = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "majority_rate": "majority",
    "prevalence": "constant score",
}
_CONSTANT = {
    "majority_rate": "calling every clip the commonest class",
    "prevalence": "one score for every clip",
}


def metric_in_words(metric: str) -> str:
    """Return the name of a metric as it is printed: ``balanced_accuracy`` is balanced accuracy."""
    return metric.replace("_", " ").replace("f1", "F1")


def score_in_words(metric: str, value: float, metrics: Mapping[str, float | None]) -> str:
    """Return a score with what belongs beside it: ``accuracy 0.846 (balanced 0.500, majority 0.846)``.

    Args:
        metric: its name.
        value: its value.
        metrics: the others of the same predictions, by name; those that are missing are left out.
    """
    return f"{metric_in_words(metric)} {value:.3f}{beside_in_words(metric, metrics)}"


def beside_in_words(metric: str, metrics: Mapping[str, float | None]) -> str:
    """Return what belongs beside a score in brackets after a space; empty if nothing is known."""
    known = []
    for name, word in _BESIDE.items():
        value = metrics.get(name)
        if name != metric and value is not None:
            known.append(f"{word} {value:.3f}")
    if not known:
        return ""
    return f" ({', '.join(known)})"


def describe_collapse(scores: Mapping[str, Any], *, own_thresholds: bool = False) -> str | None:
    """Return a sentence if predictions are no better than a constant answer, or leave classes out.

    Args:
        scores: what :func:`melpatch.evaluation.summary.summarize` returns, or
            :func:`melpatch.evaluation.metrics.compute_metrics` with its ``metrics`` by name.
        own_thresholds: whether a clip of several labels is ``predicted`` to have one by a threshold
            of the label's own; otherwise 0.5 says little of those that are rare.
    """
    table = scores["per_class"]
    labels = [row["label"] for row in table]
    positives = np.array([row["positives"] for row in table])
    predicted = np.array([row["predicted"] for row in table])
    metrics = scores["metrics"]
    if "accuracy" in metrics:
        no_better = _no_better("accuracy", metrics, "majority_rate")
        classes = _one_class(labels, positives, predicted)
    else:
        no_better = _no_better("mAP", metrics, "prevalence")
        classes = None
    if classes is None:
        sure = "accuracy" in metrics or own_thresholds
        classes = _never_predicted(labels, positives, predicted, sure=sure)
    return "; ".join(filter(None, (classes, no_better))) or None


def listed(names: Sequence[str]) -> str:
    """Return names in words, of many the first ones."""
    more = [f"and {len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])


def _one_class(
    labels: Sequence[str],
    positives: Int[np.ndarray, " label"],
    predicted: Shaped[np.ndarray, " label"],
) -> str | None:
    (called,) = np.nonzero(predicted)
    if len(called) != 1 or np.count_nonzero(positives) < 2:
        return None
    return f"every clip is called {labels[called[0]]!r}"


def _no_better(metric: str, metrics: Mapping[str, float | None], baseline: str) -> str | None:
    value = metrics[metric]
    constant = metrics[baseline]
    # With one class alone everything is right.
    if value is None or constant is None or constant == 1 or value > constant:
        return None
    return f"{metric} {value:.3f} is not above {constant:.3f}, which {_CONSTANT[baseline]} has"


def _never_predicted(
    labels: Sequence[str],
    positives: Int[np.ndarray, " label"],
    predicted: Shaped[np.ndarray, " label"],
    *,
    sure: bool,
) -> str | None:
    (missing,) = np.nonzero((positives > 0) & (predicted == 0))
    if not len(missing):
        return None
    names = listed([labels[number] for number in missing.tolist()])
    verb = f"{agreeing(len(missing), 'is', 'are')} never predicted"
    if not sure:
        verb = f"never {agreeing(len(missing), 'reaches', 'reach')} a probability of {THRESHOLD:g}"
    return f"{len(missing)} of {counted(len(labels), 'class')} {verb}: {names}"
