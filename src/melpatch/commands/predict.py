"""Label recordings of any length."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melpatch.config import check
from melpatch.errors import ConfigError
from melpatch.inference.model import load
from melpatch.inference.tables import Column
from melpatch.inference.using import UseConfig, write_rows
from melpatch.objectives.classify import Classify

TOGETHER = True


@dataclass(frozen=True, kw_only=True)
class Config(UseConfig):
    """What to label, and where to write it."""

    out: Path
    """CSV to write: path, start and end in seconds, label, probability, then one column per class; for clips of a CSV
    file or of shards their key too. A name that ends in .parquet or .npz is written as such."""
    hop: float | None = None
    """Seconds between the starts of windows, each as long as the segments that the classifier was trained on
    (melpatch finetune --seconds); without, one line per recording."""
    threshold: float = 0.5
    """Probability from which a label of a multi-label model counts."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check(self.hop is None or self.hop > 0, "hop", self.hop, "seconds above 0")
        check(0 <= self.threshold <= 1, "threshold", self.threshold, "0 to 1")


def run(config: Config) -> None:
    """Write one table; unreadable files are named beside it, and with --hop one that is damaged has its windows up to
    the damage."""
    model = load(config.run, precision=config.precision)
    if not isinstance(model.objective, Classify):
        raise ConfigError(
            f"{config.run}: has no labels to predict; fine-tune it first with melpatch finetune --init {config.run}"
        )
    threshold = config.threshold if model.objective.config.multi_label else None
    columns = [
        Column("label", lambda rows: _heard(rows["values"], model.labels, threshold)),
        Column("probability", lambda rows: rows["values"].max(axis=1), ".6g"),
        Column("probabilities", lambda rows: rows["values"], ".6g", names=model.labels),
    ]
    about = {"command": "predict", "hop": config.hop}
    task = model.prediction_task(hop=config.hop)
    write_rows(
        config,
        model,
        task,
        columns,
        kind=".csv",
        about=about,
        timed=True,
        keep=config.hop is not None,
    )


def _heard(
    probabilities: np.ndarray, labels: tuple[str, ...], threshold: float | None
) -> np.ndarray:
    """Return the most probable label of each row, or where there is a threshold all that reach it, parted by
    semicolons."""
    if threshold is None:
        return np.asarray(np.array(labels)[probabilities.argmax(axis=1)])
    return np.array([";".join(np.array(labels)[row >= threshold]) for row in probabilities])
