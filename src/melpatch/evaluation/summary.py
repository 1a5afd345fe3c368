"""From the predictions of single trials to the scores of an evaluation: means over folds and seeds, and an interval."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

import numpy as np
from jaxtyping import Float

from melpatch.data.clip import Clip
from melpatch.data.corpus import label_matrix
from melpatch.evaluation.bootstrap import interval
from melpatch.evaluation.metrics import d_prime, redrawn, scores


@dataclass(frozen=True)
class Trial:
    """What one round under one seed said of its clips.

    Attributes:
        round: the split or fold that was scored.
        seed: of whatever is random in the protocol.
        clips: those that were scored.
        probabilities: one score per clip and label.
        details: what was chosen on the way, and at what cost, as plain values.
    """

    round: str
    seed: int
    clips: tuple[Clip, ...]
    probabilities: Float[np.ndarray, "clip label"]
    details: dict[str, Any] = field(default_factory=dict)


def summary(
    trials: Sequence[Trial], labels: Sequence[str], multi_label: bool, metric: str, *, seed: int = 0
) -> dict[str, Any]:
    """Return the scores of all trials together, as plain values that JSON can hold.

    Every metric is the mean over seeds of the mean over rounds, but ``d_prime``, which is that of the mean mAUC;
    ``confusion`` and the counts of the classes are sums over rounds and means over seeds. A metric that is not defined
    in one trial is left out of its mean; in none, None. So are precision, recall and F1 of a class in rounds that score
    no clip of it.

    Args:
        trials: of one evaluation.
        labels: the names of the columns.
        multi_label: whether a clip may have several labels or none.
        metric: the one that counts, of :func:`melpatch.evaluation.metrics.scores`.
        seed: of the bootstrap.

    Returns:
        ``metric``, its ``value``; ``interval_95``, from clips drawn with replacement within each round (Efron 1979),
        the same for all seeds: how far the value may be off because the scored clips are a sample, not because the
        training clips are (None for metrics other than accuracy and mAP); ``seed_std``, the standard deviation between
        seeds (None for one); ``n``, the number of scored clips; ``metrics``, ``per_class``, ``confusion``, and the
        classes that could not be ranked in any round.
    """
    found = [
        scores(one.probabilities, label_matrix(one.clips, labels), labels, multi_label, seed=None)
        for one in trials
    ]
    seeds = sorted({one.seed for one in trials})

    def by_seed(name: str) -> list[float | None]:
        pairs = [(one.seed, each[name]) for one, each in zip(trials, found, strict=True)]
        return [_mean([value for seed, value in pairs if seed == wanted]) for wanted in seeds]

    known = [value for value in by_seed(metric) if value is not None]
    plain = [
        name for name, value in found[0].items() if name != "clips" and not isinstance(value, list)
    ]
    metrics = {name: _mean(by_seed(name)) for name in plain}
    result: dict[str, Any] = {
        "metric": metric,
        "value": _mean(known),
        "interval_95": _interval(trials, labels, metric, seed),
        "seed_std": stdev(known) if len(known) > 1 else None,
        "n": sum(len(one.clips) for one in trials if one.seed == seeds[0]),
        "metrics": metrics | {"d_prime": d_prime(metrics["mAUC"])},
        "per_class": _per_class([each["per_class"] for each in found], len(seeds)),
    }
    if "confusion" in found[0]:
        result["confusion"] = (
            np.sum([each["confusion"] for each in found], axis=0) / len(seeds)
        ).tolist()
    for name in ("classes_without_positives", "classes_without_negatives"):
        result[name] = [label for label in labels if all(label in each[name] for each in found)]
    return result


def _interval(
    trials: Sequence[Trial], labels: Sequence[str], metric: str, seed: int
) -> list[float] | None:
    if metric not in ("accuracy", "mAP"):
        return None
    order = {name: number for number, name in enumerate(dict.fromkeys(one.round for one in trials))}
    values = [
        redrawn(one.probabilities, label_matrix(one.clips, labels), metric, seed + order[one.round])
        for one in trials
    ]
    return interval(
        np.ma.masked_invalid(values).mean(axis=0).filled(np.nan)
    )  # over the rounds that a draw can score


def _per_class(tables: Sequence[list[dict[str, Any]]], seeds: int) -> list[dict[str, Any]]:
    """Return one row per class: counts summed over rounds, all else the mean of what is defined."""
    rows = []
    for same in zip(*tables, strict=True):
        row: dict[str, Any] = {
            "label": same[0]["label"],
            "positives": sum(one["positives"] for one in same) // seeds,
        }
        scored = [one for one in same if one["positives"]]
        row |= {name: _mean([one[name] for one in scored]) for name in same[0] if name not in row}
        rows.append(row)
    return rows


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
