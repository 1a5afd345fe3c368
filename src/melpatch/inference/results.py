"""What a model returns for a recording: a vector, frames along it, or predictions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from melpatch.inference.rows import Row


class Frames(NamedTuple):
    """Embeddings along a recording."""

    start: Float[np.ndarray, " frame"]
    """Start of each frame, in seconds from the start of the recording."""
    end: Float[np.ndarray, " frame"]
    """End of each frame, in seconds from the start of the recording."""
    vectors: Float[np.ndarray, "frame dim"]


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


Embedding = Float[np.ndarray, " dim"] | Frames
"""One vector for a recording or, with a hop, its frames."""


def embedding_of(rows: Sequence[Row], hop: float | None) -> Embedding:
    """Return the vector of a recording's only row, or with a hop its frames."""
    if hop is None:
        return rows[0].values
    starts = np.array([row.start for row in rows])
    ends = np.array([row.end for row in rows])
    return Frames(starts, ends, np.stack([row.values for row in rows]))


def predictions_of(rows: Sequence[Row], labels: Sequence[str]) -> list[Prediction]:
    """Return the predictions that rows of probabilities stand for."""
    return [prediction_of(row, labels) for row in rows]


def prediction_of(row: Row, labels: Sequence[str]) -> Prediction:
    """Return the prediction that a row of probabilities stands for."""
    values = row.values.tolist()
    novelty = values.pop() if len(values) > len(labels) else None
    probabilities = dict(zip(labels, values, strict=True))
    return Prediction(row.start, row.end, probabilities, row.silent, novelty)
