"""What ``predict`` decides about scored clips: its labels, and how often it says none of these.

The clips are of the classifier's classes, so that each "none of these" is a false alarm.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from melpatch.counted import agreeing, counted
from melpatch.data.clip import Clip
from melpatch.data.corpus import label_matrix
from melpatch.evaluation.decisions import Decisions
from melpatch.evaluation.intervals import share_interval
from melpatch.evaluation.trials import TrialResult
from melpatch.inference.label_rule import LabelRule, describe_too_few
from melpatch.inference.novelty import NONE_OF_THESE

_MEANS = ("precision", "recall", "F1")


def given_labels(trial: TrialResult, rule: LabelRule) -> Bool[np.ndarray, "clip label"]:
    """Return which labels ``predict`` gives to the clips of a trial."""
    return rule.given(trial.probabilities, trial.novelty)


def decisions_entry(
    trials: Sequence[TrialResult], labels: Sequence[str], rule: LabelRule
) -> dict[str, Any]:
    """Return the scores of the labels that are given, as plain values that JSON can hold.

    The clips of all splits are taken together, under the first seed, on which they do not depend.

    Args:
        trials: of one evaluation.
        labels: the names of the columns.
        rule: when a label is given.

    Returns:
        ``threshold_rule`` and ``false_alarms``, the settings; ``clips``; ``without_label``, how
        many are given none; ``macro``, the mean precision, recall and F1 of the classes that have clips,
        where they are defined; ``novelty_clips``, the validation clips behind the novelty;
        ``none_of_these``, see :func:`melpatch.evaluation.intervals.share_interval`, None where
        nothing can be called so; and ``per_class``, a row per class with its ``threshold``, its
        ``positives``, how often it is ``given``, its scores (None for the precision of a class that
        is never given, and for recall and F1 of one without clips), and its clips that are called
        none of these.
    """
    first = [trial for trial in trials if trial.seed == trials[0].seed]
    clips = [clip for trial in first for clip in trial.clips]
    positive = label_matrix(clips, labels) > 0.5
    given = np.concatenate([given_labels(trial, rule) for trial in first])
    unlike = None
    if rule.tells_unlike:
        unlike = np.concatenate([rule.unlike(trial.novelty, len(trial.clips)) for trial in first])
    counts = Decisions(positive.sum(axis=0), given.sum(axis=0), (given & positive).sum(axis=0))
    table: dict[str, Sequence[Any]] = {
        "label": labels,
        "threshold": [None] * len(labels),
        "positives": counts.positives.tolist(),
        "given": counts.predicted.tolist(),
        "precision": _where(counts.predicted > 0, counts.precision),
        "recall": _where(counts.positives > 0, counts.recall),
        "F1": _where(counts.positives > 0, counts.f1),
        "none_of_these": [_alarms(clips, own, unlike) for own in positive.T],
    }
    if rule.thresholds is not None:
        table["threshold"] = rule.thresholds.tolist()
    has_clips = counts.positives > 0
    return {
        "threshold_rule": rule.how,
        "false_alarms": rule.false_alarms,
        "clips": len(clips),
        "without_label": int((~given.any(axis=1)).sum()),
        "macro": {name: _mean([*compress(table[name], has_clips)]) for name in _MEANS},
        "novelty_clips": rule.novelty_clips,
        "none_of_these": _alarms(clips, np.ones(len(clips), dtype=bool), unlike),
        "per_class": [
            dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)
        ],
    }


def describe_decisions(run: str, decisions: Mapping[str, Any]) -> Iterator[str]:
    """Yield sentences on the labels that ``predict`` gives, and on its false alarms.

    Args:
        run: the run that was scored.
        decisions: what :func:`decisions_entry` returned.
    """
    means = ", ".join(f"{name} {_number(decisions['macro'][name])}" for name in _MEANS)
    clips = counted(decisions["clips"], "clip")
    yield (
        f"as predict gives labels (thresholds: {decisions['threshold_rule']}): {means}, means over "
        f"classes; {decisions['without_label']} of {clips} without a label"
    )
    alarms = decisions["none_of_these"]
    novelty_clips = decisions["novelty_clips"]
    limit = decisions["false_alarms"]
    if alarms is not None:
        low, high = alarms["interval_95"]
        by_group = " by group" if alarms["interval_by"] == "group" else ""
        verb = agreeing(alarms["clips"], "is", "are")
        sentence = (
            f"{alarms['clips']} of {clips} of the known classes {verb} called {NONE_OF_THESE}: "
            f"{alarms['share']:.3f} (95 %{by_group}: {low:.3f} to {high:.3f}), where --false-alarms "
            f"allows {limit:g}"
        )
        if low > limit:
            sentence += "; they are less like the training clips than the validation clips were"
        yield sentence
    elif novelty_clips is not None and limit:
        yield describe_too_few(run, novelty_clips, limit)


def _alarms(
    clips: Sequence[Clip],
    chosen: Bool[np.ndarray, " clip"],
    unlike: Bool[np.ndarray, " clip"] | None,
) -> dict[str, Any] | None:
    """Return how many of the chosen clips are none of the classes; None if that is not known."""
    if unlike is None or not chosen.any():
        return None
    return share_interval([*compress(clips, chosen)], unlike[chosen])


def _where(
    known: Bool[np.ndarray, " label"], values: Float[np.ndarray, " label"]
) -> list[float | None]:
    """Return the values that are known, and None in place of the others."""
    return [
        value if is_known else None
        for value, is_known in zip(values.tolist(), known.tolist(), strict=True)
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3f}"
