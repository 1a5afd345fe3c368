"""What a model returns for a recording: a vector, frames along it, or predictions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from melpatch.counted import counted
from melpatch.data.columns import class_columns
from melpatch.data_frames import Column, Tabular
from melpatch.inference.rows import Row
from melpatch.markup import Html, table

_SHOWN = 20
"""Rows that a notebook shows; of more, it gives the number."""
_LABELS = 5
"""Labels of a prediction that a notebook shows, the most probable ones."""


class _Frames(NamedTuple):
    start: Float[np.ndarray, " frame"]
    """Start of each frame, in seconds from the start of the recording."""
    end: Float[np.ndarray, " frame"]
    """End of each frame, in seconds from the start of the recording."""
    vectors: Float[np.ndarray, "frame dim"]


class Frames(_Frames, Tabular):
    """Embeddings along a recording: the tuple of start, end and vectors.

    A notebook shows it as a table; :meth:`to_pandas` and :meth:`to_polars` make frames of it.
    """

    __slots__ = ()

    def columns(self) -> dict[str, Column]:
        """Return start and end, and then the vectors' dimensions as columns of numbers."""
        dimensions = {f"{number}": self.vectors[:, number] for number in range(self.dim)}
        return {"start": self.start, "end": self.end, **dimensions}

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self.vectors.shape[1])

    def _repr_html_(self) -> Html:
        norms = np.linalg.norm(self.vectors, axis=1)
        rows = [*zip(self.start.tolist(), self.end.tolist(), norms.tolist(), strict=True)]
        caption = f"Frames: {counted(len(rows), 'vector')} of {counted(self.dim, 'dimension')}"
        return _table(["start (s)", "end (s)", "length of the vector"], rows, caption)


class Prediction(NamedTuple):
    """The labels' probabilities for a stretch of a recording."""

    start: float
    """Seconds from the start of the recording."""
    end: float
    """Seconds from the start of the recording."""
    probabilities: dict[str, float]
    """One number per label; they sum to one unless the task is multi-label."""
    silent: bool = False
    """Whether there is no sound in it, so that the probabilities say nothing."""
    novelty: float | None = None
    """How unlike the training clips it is: the share of validation clips that are more like them,
    so that above 0.95 only one in twenty clips of the classes is; None if that is not known."""

    @property
    def label(self) -> str:
        """The most probable label."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    def _repr_html_(self) -> Html:
        best = sorted(self.probabilities.items(), key=lambda pair: -pair[1])
        silent = ", silent" if self.silent else ""
        caption = f"Prediction for {self.start:g} to {self.end:g} s{silent}"
        return _table(["label", "probability"], best, caption)


class Predictions(list[Prediction], Tabular):
    """The predictions for a recording, in order of time: a list.

    A notebook shows it as a table; :meth:`to_pandas` and :meth:`to_polars` make frames of it.
    """

    __slots__ = ()

    def columns(self) -> dict[str, Column]:
        """Return a row per prediction: start, end, label, silent, novelty, and each label's probability."""
        labels = self[0].probabilities if self else {}
        fixed = ["start", "end", "label", "silent", "novelty"]
        named = class_columns([*labels], fixed)
        columns: dict[str, Column] = {}
        for name in fixed:
            columns[name] = [getattr(prediction, name) for prediction in self]
        for name, label in zip(named, labels, strict=True):
            columns[name] = [prediction.probabilities[label] for prediction in self]
        return columns

    def _repr_html_(self) -> Html:
        rows = []
        for prediction in self:
            best = sorted(prediction.probabilities.items(), key=lambda pair: -pair[1])[:_LABELS]
            others = ", ".join(f"{label} {share:.3f}" for label, share in best[1:])
            rows.append([prediction.start, prediction.end, prediction.label, best[0][1], others])
        heads = ["start (s)", "end (s)", "label", "probability", "next"]
        return _table(heads, rows, f"{counted(len(rows), 'prediction')}")


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]], caption: str) -> Html:
    if len(rows) > _SHOWN:
        caption += f", of which the first {_SHOWN} are shown"
    return table(heads, rows[:_SHOWN], caption)


Embedding = Float[np.ndarray, " dim"] | Frames
"""One vector for a recording or, with a hop, its frames."""


def embedding_of(rows: Sequence[Row], hop: float | None) -> Embedding:
    """Return the vector of a recording's only row, or with a hop its frames."""
    if hop is None:
        return rows[0].values
    starts = np.array([row.start for row in rows])
    ends = np.array([row.end for row in rows])
    return Frames(starts, ends, np.stack([row.values for row in rows]))


def predictions_of(rows: Sequence[Row], labels: Sequence[str]) -> Predictions:
    """Return the predictions that rows of probabilities stand for."""
    return Predictions(prediction_of(row, labels) for row in rows)


def prediction_of(row: Row, labels: Sequence[str]) -> Prediction:
    """Return the prediction that a row of probabilities stands for."""
    values = row.values.tolist()
    novelty = values.pop() if len(values) > len(labels) else None
    probabilities = dict(zip(labels, values, strict=True))
    return Prediction(row.start, row.end, probabilities, row.silent, novelty)
