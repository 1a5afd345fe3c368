"""Label recordings of any length."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from melpatch.config import check
from melpatch.errors import ConfigError
from melpatch.evaluation.majority import listed
from melpatch.inference.jobs import InferenceConfig, inference_job
from melpatch.inference.model import load
from melpatch.inference.tables import Column
from melpatch.inference.writing import write_output
from melpatch.objectives.classify import Classify
from melpatch.progress import notice
from melpatch.training.clip_record import untrained_labels
from melpatch.workflows.kept_weights import read_validation

TOGETHER = True
_ENOUGH = 10  # recordings, or recordings per class, from which on missing classes are told


@dataclass(frozen=True, kw_only=True)
class Config(InferenceConfig):
    """What to label, and where to write it."""

    out: Path
    """CSV to write: path, start and end in seconds, label, probability, note (silent where there is
    no sound), then one column per class; clips of a CSV file or of shards have their key too. A name
    that ends in .parquet or .npz is written as such."""
    hop: float | None = None
    """Seconds between the starts of windows, each as long as the segments that the classifier was trained on
    (melpatch finetune --seconds); without, one line per recording."""
    threshold: float = 0.5
    """Lowest probability of a label that a multi-label model assigns."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check(self.hop is None or self.hop > 0, "hop", self.hop, "seconds above 0")
        check(0 <= self.threshold <= 1, "threshold", self.threshold, "0 to 1")


def run(config: Config) -> None:
    """Write one table; unreadable files are listed beside it.

    With ``--hop`` a damaged file has its windows up to the damage. Otherwise it has no row, or with
    ``--salvage`` that of the sound before the damage.
    """
    model = load(config.run, precision=config.precision, trust_code=config.trust_code)
    if not isinstance(model.objective, Classify):
        raise ConfigError(
            f"{config.run}: has no labels to predict; fine-tune it first with "
            f"melpatch finetune --init {config.run}"
        )
    untrained = untrained_labels(config.run)
    if untrained:
        notice(f"{config.run} was trained on no clip of these classes: {', '.join(untrained)}")
    validation = read_validation(config.run)
    if validation is not None and validation["warning"]:
        notice(f"{config.run}, on its validation clips: {validation['warning']}")
    threshold = config.threshold if model.objective.config.multi_label else None
    assigned = np.zeros(len(model.labels), dtype=bool)

    def labels(rows: np.ndarray) -> np.ndarray:
        assigned[rows["values"].argmax(axis=1)] = True
        return assigned_labels(rows["values"], model.labels, threshold)

    job = inference_job(
        config,
        model,
        model.prediction_task(hop=config.hop, salvage=config.salvage),
        [
            Column("label", labels),
            Column("probability", lambda rows: rows["values"].max(axis=1), ".6g"),
            Column("note", lambda rows: np.where(rows["silent"], "silent", "")),
            Column("probabilities", lambda rows: rows["values"], ".6g", names=model.labels),
        ],
        default_ending=".csv",
        about={"command": "predict", "hop": config.hop, "salvage": config.salvage},
        timed=True,
        keep=config.hop is not None or config.salvage,
    )
    write_output(job)
    warning = describe_assigned(assigned, model.labels, len(job.recordings))
    if warning is not None:
        notice(warning)


def describe_assigned(
    assigned: Bool[np.ndarray, " label"], labels: tuple[str, ...], recordings: int
) -> str | None:
    """Return a sentence if recordings that are enough to judge by are all called the same, or never some class.

    Args:
        assigned: which classes are the most probable one of any row.
        labels: the classes.
        recordings: how many recordings there are.
    """
    (called,) = np.nonzero(assigned)
    if len(called) == 1 and recordings >= _ENOUGH:
        return (
            f"the most probable class is {labels[called[0]]!r} in all of {recordings} recordings; if "
            "they are not all of it, the classifier has collapsed: see melpatch evaluate"
        )
    if called.size and recordings >= _ENOUGH * len(labels) and len(called) < len(labels):
        missing = [label for label, known in zip(labels, assigned, strict=True) if not known]
        return f"{len(missing)} of {len(labels)} classes are never the most probable one: {listed(missing)}"
    return None


def assigned_labels(
    probabilities: Float[np.ndarray, "row label"], labels: tuple[str, ...], threshold: float | None
) -> np.ndarray:
    """Return the most probable label of each row or, with a threshold, all labels that reach it.

    Several labels of a row are separated by semicolons.
    """
    names = np.array(labels)
    if threshold is None:
        return np.asarray(names[probabilities.argmax(axis=1)])
    return np.array([";".join(names[row >= threshold]) for row in probabilities])
