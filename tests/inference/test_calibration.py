"""The calibration of a run: read back as it was written, and refused in one line where it is damaged."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from melpatch.errors import CheckpointError
from melpatch.evaluation.novelty import fit_novelty
from melpatch.inference.calibration import CALIBRATION, Calibration, load_calibration
from melpatch.objectives.classify import Classify


class Head(Classify):
    """What is looked at of a classifier: two labels, vectors of four numbers."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.labels = ("a", "b")
        self.config = Classify.Config()
        self.vector_dim = 4


def made(dim=4):
    random = np.random.default_rng(0)
    novelty = fit_novelty(
        random.normal(size=(40, dim)).astype(np.float32),
        random.normal(size=(20, dim)).astype(np.float32),
    )
    thresholds = np.array([0.25, 0.75], np.float32)
    return Calibration(False, 2.5, 20, thresholds, "precision=0.9", novelty)


def test_it_is_read_as_it_was_written(tmp_path):
    made().save(tmp_path)
    again = load_calibration(tmp_path, Head())
    assert (again.temperature, again.clips, again.threshold_rule) == (2.5, 20, "precision=0.9")
    np.testing.assert_array_equal(again.thresholds, made().thresholds)
    assert not again.multi_label
    new = np.random.default_rng(1).normal(size=6).astype(np.float32)
    np.testing.assert_allclose(again.answers(new), made().answers(new), rtol=1e-5)


def test_a_run_without_one_has_none(tmp_path):
    assert load_calibration(tmp_path, Head()) is None


def test_parts_may_be_missing(tmp_path):
    Calibration(False, 1.5, 9).save(tmp_path)
    again = load_calibration(tmp_path, Head())
    assert again.thresholds is None
    assert again.novelty is None
    values = np.array([0.2, 0.8], np.float32)
    np.testing.assert_array_equal(again.answers(values), again.probabilities(values))


def write(path, changed, metadata=None):
    """Write a calibration with some tensors replaced, or left out where they are None."""
    made().save(path.parent)
    state = {
        "temperature": torch.tensor(2.0, dtype=torch.float64),
        "clips": torch.tensor(3),
        **made().novelty.state(),
    } | changed
    about = {"threshold_rule": '"none"'} if metadata is None else metadata
    save_file({name: value for name, value in state.items() if value is not None}, path, about)


@pytest.mark.parametrize(
    ("changed", "metadata"),
    [
        ({"temperature": None}, None),
        ({"temperature": torch.tensor(-1.0)}, None),
        ({"temperature": torch.tensor(float("nan"))}, None),
        ({"temperature": torch.ones(3)}, None),
        ({"clips": None}, None),
        ({"thresholds": torch.ones(3)}, None),
        ({"novelty.mean": torch.ones(3)}, None),
        ({"novelty.held_out": None}, None),
        ({"novelty.scale": torch.zeros(4)}, None),
        ({}, {}),
        ({}, {"threshold_rule": "{"}),
    ],
)
def test_a_damaged_one_is_refused_in_a_line(tmp_path, changed, metadata):
    path = tmp_path / CALIBRATION
    write(path, changed, metadata)
    with pytest.raises(CheckpointError) as caught:
        load_calibration(tmp_path, Head())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\xff" * 100])
def test_other_content_is_refused_in_a_line(tmp_path, content):
    (tmp_path / CALIBRATION).write_bytes(content)
    with pytest.raises(CheckpointError, match=CALIBRATION):
        load_calibration(tmp_path, Head())
