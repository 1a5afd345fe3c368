"""The pictures of a record of scores: confusion, the score of each class, and reliability."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from melpatch.evaluation.majority import score_in_words
from melpatch.plots.confusion import MOST_CLASSES, confusion
from melpatch.plots.per_class import per_class
from melpatch.plots.reliability import reliability_diagram

CONFUSION = "confusion.png"
PER_CLASS = "per_class.png"
RELIABILITY = "reliability.png"
NAMES = (CONFUSION, PER_CLASS, RELIABILITY)
"""The files of pictures of an evaluation."""


def title_of(record: Mapping[str, Any]) -> str:
    """Return what a picture shows: score, run, corpus, splits and protocol."""
    weights = " at random weights" if record["initialisation"] == "random weights" else ""
    splits = ", ".join(entry["split"] for entry in record["splits"])
    what = f"{record['run']}{weights} on {record['corpus']} ({splits}), {record['protocol']}"
    if record["value"] is None:
        return what
    return f"{score_in_words(record['metric'], record['value'], record['metrics'])}: {what}"


def pictures_of(record: Mapping[str, Any]) -> dict[str, Callable[[Path], None]]:
    """Return by file name how each picture of a record is drawn, which the file's path is given to.

    There is no confusion matrix of more than 50 classes or of several labels, and no reliability
    of what was not calibrated. Drawing raises a MelpatchError without matplotlib.
    """
    table = record["per_class"]
    title = title_of(record)
    drawing: dict[str, Callable[[Path], None]] = {}
    matrix = record.get("confusion_matrix")
    if matrix is not None and len(table) <= MOST_CLASSES:
        labels = [row["label"] for row in table]
        counts = np.rint(matrix).astype(int)
        drawing[CONFUSION] = partial(confusion, matrix=counts, labels=labels, title=title)
    calibration = record["calibration"]
    if calibration is not None:
        curves = _curves(calibration)
        drawing[RELIABILITY] = partial(reliability_diagram, curves=curves, title=title)
    score = "F1" if "F1" in table[0] else "AP"
    drawing[PER_CLASS] = partial(per_class, table=table, score=score, title=title)
    return drawing


def _curves(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the bins of a reliability diagram by a name, with the expected calibration error."""
    errors = {"calibrated": calibration["ece"], "uncalibrated": calibration["ece_uncalibrated"]}
    curves = {}
    for kind, bins in calibration["bins"].items():
        shown = "predictions" if calibration["temperature"] is None else kind
        curves[f"{shown} (ECE {errors[kind]:.3f})"] = bins
    return curves
