"""Another run on the same clips: the difference to it, and whether these clips tell the two apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from melpatch.config import check
from melpatch.errors import ConfigError
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.paired import compare
from melpatch.evaluation.protocol import Protocol
from melpatch.evaluation.request import EvaluationRequest
from melpatch.evaluation.summary import summarize
from melpatch.evaluation.trials import TrialResult

SIGNIFICANT = 0.05


def request_against(
    request: EvaluationRequest, against: Path, features_dir: Path
) -> EvaluationRequest:
    """Return what is asked of the other run: the same, and its trained weights.

    Args:
        request: what is asked of the run.
        against: the other run.
        features_dir: folder that keeps the other run's features.

    Raises:
        ConfigError: it is the same run.
    """
    same = against.resolve() == request.run.resolve() and not request.random_weights
    check(not same, "against", str(against), "another run than the one that is scored")
    out = None if request.out is None else request.out / "against"
    return replace(
        request,
        run=against,
        out=out,
        features_dir=features_dir,
        labels=None,
        random_weights=False,
        suffix="",
    )


def describe_difference(
    protocol: Protocol, job: EvaluationJob, trials: Sequence[TrialResult], other: EvaluationJob
) -> dict[str, Any]:
    """Return the score of another run and the difference to it, as plain values that JSON can hold.

    All processes must call it and get the same result.

    Args:
        protocol: how both are scored.
        job: the run.
        trials: its predictions.
        other: the other run, on the same corpus.

    Returns:
        ``run``, its ``value`` and ``balanced_accuracy`` (None for several labels), and what
        :func:`melpatch.evaluation.paired.compare` gives.

    Raises:
        ConfigError: the two have other classes, or did not score the same clips.
    """
    labels = protocol.labels(job)
    others, _ = protocol.run_trials(other)
    others = _in_order(others, protocol.labels(other), labels, other)
    multi_label = protocol.multi_label(job)
    metric = protocol.metric(multi_label)
    difference = compare(trials, others, labels, metric)
    if difference is None:
        raise ConfigError(
            f"--against {other.run}: it and {job.run} did not score the same clips, or {metric} is "
            "undefined on them; score both on clips that both can read, with several classes"
        )
    summary = summarize(others, labels, multi_label, metric)
    return {
        "run": str(other.run),
        "value": summary["value"],
        "balanced_accuracy": summary["metrics"].get("balanced_accuracy"),
        **difference,
    }


def describe_verdicts(records: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a sentence per protocol: whether the scored clips tell the two runs apart."""
    for name, record in records.items():
        against = record["against"]
        if against is None:
            continue
        unit = f"{against['by']}s"
        scored = f"{against[unit]} {unit}"
        p_value = f"p = {against['p_value']:.2g}, {against['test']}"
        if against["p_value"] <= SIGNIFICANT:
            yield f"{name}: the {scored} tell the two runs apart ({p_value})"
            continue
        sentence = f"{name}: the {scored} do not tell the two runs apart ({p_value})"
        needed = against[f"{unit}_needed"]
        if needed is not None:
            sentence += f"; a difference like this takes some {needed:,} {unit} (80 % power)"
        yield sentence


def _in_order(
    trials: Sequence[TrialResult],
    own: Sequence[str],
    labels: Sequence[str],
    other: EvaluationJob,
) -> list[TrialResult]:
    """Return trials with the columns in the order of these labels."""
    if sorted(own) != sorted(labels):
        extra = sorted({*own} ^ {*labels})
        listed = ", ".join([*extra[:5], *["..."] * (len(extra) > 5)])
        raise ConfigError(
            f"--against {other.run}: only one of the two runs has the classes {listed}; compare "
            "classifiers of the same classes, or use --protocol linear"
        )
    place = {label: number for number, label in enumerate(own)}
    columns = np.array([place[label] for label in labels])
    return [replace(trial, probabilities=trial.probabilities[:, columns]) for trial in trials]
