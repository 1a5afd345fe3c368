"""The clips that an evaluation answers worst, from its predictions: those to listen to first."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from melpatch.evaluation.report import PREDICTIONS
from melpatch.opening import open_text, reading

# A probability of 0 would cost infinitely much.
_LEAST = 1e-7
_LAST_FIXED = "seed"
"""The column after which those of the classes come."""


class Answer(NamedTuple):
    """What was answered to a clip."""

    path: str
    """Where the clip is: its file, or its shard with member and offset."""
    start: float
    """Second of the file at which it starts."""
    end: float | None
    """Second of the file at which it ends; None if it is not recorded."""
    split: str
    labels: tuple[str, ...]
    """Its true labels."""
    predicted: tuple[str, ...]
    """What was answered: the most probable class or, of several labels, those from 0.5 on."""
    probabilities: dict[str, float]
    """Of each class."""
    loss: float
    """Cross-entropy of the answer; of several labels, the mean over the classes."""

    @property
    def is_right(self) -> bool:
        """Whether the answer is what it should be."""
        return set(self.labels) == set(self.predicted)


def worst_answers(folder: Path, record: Mapping[str, Any], count: int) -> list[Answer]:
    """Return the wrong answers of an evaluation that cost most, the worst first, each clip once.

    Args:
        folder: the folder of the evaluation.
        record: its record.
        count: how many at most.

    Raises:
        CheckpointError: there are no predictions, or they are damaged.
    """
    labels = [row["label"] for row in record["per_class"]]
    multi_label = "accuracy" not in record["metrics"]
    path = folder / PREDICTIONS
    worst: dict[tuple[str, float], Answer] = {}
    with reading(path, "score again, or restore it from a backup", None):
        for answer in _answers(path, labels, multi_label=multi_label):
            place = answer.path, answer.start
            # Of several seeds, or splits, the worst answer to a clip counts.
            if not answer.is_right and (place not in worst or answer.loss > worst[place].loss):
                worst[place] = answer
    return sorted(worst.values(), key=lambda answer: -answer.loss)[:count]


def _answers(path: Path, labels: Sequence[str], *, multi_label: bool) -> Iterator[Answer]:
    with open_text(path) as file:
        rows = csv.reader(file)
        columns = next(rows, [])
        first = columns.index(_LAST_FIXED) + 1
        for row in rows:
            fields = dict(zip(columns[:first], row[:first], strict=True))
            probabilities = np.array(row[first:], dtype=float)
            if len(probabilities) != len(labels):
                raise ValueError(f"{len(probabilities)} probabilities of {len(labels)} classes")
            true = tuple(filter(None, fields["label"].split(";")))
            target = np.array([label in true for label in labels])
            chosen = [fields["predicted"]]
            if multi_label:
                chosen = [label for label, p in zip(labels, probabilities, strict=True) if p >= 0.5]
            yield Answer(
                fields["path"],
                float(fields["start"]),
                float(fields["end"]) if "end" in fields else None,
                fields["split"],
                true,
                tuple(chosen),
                dict(zip(labels, probabilities.tolist(), strict=True)),
                _loss(probabilities, target, multi_label=multi_label),
            )


def _loss(
    probabilities: Float[np.ndarray, " label"], target: np.ndarray, *, multi_label: bool
) -> float:
    """Return -log p of the right class, or the mean over classes of the binary cross-entropy."""
    p = np.clip(probabilities, _LEAST, 1 - _LEAST)
    if not multi_label:
        return -math.log(p[target].sum())
    return float(-np.where(target, np.log(p), np.log(1 - p)).mean())
