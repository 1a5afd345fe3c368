"""What is kept of validation clips, and which warnings."""

from dataclasses import replace
from itertools import compress
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import settings

from melpatch.data.clip import Clip
from melpatch.inference.calibration import Calibration
from melpatch.inference.corpus import ClipTable
from melpatch.objectives.classify import Classify
from melpatch.workflows.kept_weights import validation_record

LABELS = ("cat", "dog")


def record_of(calibration):
    """Of four clips, of which a classifier of several labels knows all without ever being sure."""
    found = np.array([[True, False], [False, True], [True, True], [False, False]])
    clips = tuple(
        Clip(Path(f"{number}.wav"), number, 0.0, 1.0, tuple(compress(LABELS, has)))
        for number, has in enumerate(found)
    )
    table = ClipTable(clips, np.where(found, 0.25, 0.05).astype(np.float32), ())
    objective = Classify.Config(multi_label=True)
    config = replace(settings(), objective=objective, labels=LABELS)
    return validation_record(table, config, "mAP", calibration=calibration)


@pytest.mark.parametrize(
    "calibration",
    [
        None,
        Calibration(True),
        Calibration(True, thresholds=np.array([0.3, 0.2], np.float32)),
        Calibration(True, thresholds=np.array([0.2, 0.2], np.float32)),
    ],
)
def test_classes_are_missing_only_where_their_thresholds_are_never_reached(calibration):
    record = record_of(calibration)
    assert record["metrics"]["mAP"] == 1
    if calibration is None or calibration.thresholds is None:
        (warning,) = record["warnings"]
        assert "2 of 2 classes never reach a probability of 0.5: cat, dog" in warning
    elif calibration.thresholds[0] > 0.25:
        (warning,) = record["warnings"]
        assert "1 of 2 classes is never predicted: cat" in warning
    else:
        assert record["warnings"] == []
