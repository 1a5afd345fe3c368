import io
import json

import numpy as np
import pytest
import torch
from tiny_runs import noises, settings

from melpatch.data.clip import Batch
from melpatch.errors import MelpatchError
from melpatch.objectives.base import Picture
from melpatch.training.config import build
from melpatch.training.loop import fit
from melpatch.training.run import Run
from melpatch.training.tracking import Tracker, make_tracker

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
image = pytest.importorskip("PIL.Image")
TAG = "clean, masked, rebuilt"


def events(folder):
    found = accumulators.EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return found


def test_curves_and_pictures_of_a_run_are_kept(tmp_path):
    run = Run.create(tmp_path / "run", settings(steps=4, evaluations=2))
    objective, corpus = build(run.config), noises(tmp_path / "noise")
    tracker = make_tracker("tensorboard", run.folder)
    fit(objective, corpus, run, evaluate=lambda *_: {"health": 0.5}, tracker=tracker)
    found = events(run.folder)
    for line in map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines()):
        for name in line.keys() - {"step"}:
            points = {point.step: point.value for point in found.Scalars(name)}
            assert points[line["step"]] == pytest.approx(line[name])
    assert {"loss", "nce", "mse", "accuracy", "lr", "grad_norm", "health"} <= set(found.Tags()["scalars"])
    assert [picture.step for picture in found.Images(TAG)] == [2, 4]


def test_a_picture_shows_its_stages_one_above_the_other_with_low_mels_below(tmp_path):
    clean = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 10.0]])
    masked = clean.clone()
    masked[0, 1] = torch.nan
    drawn = Picture(clean, masked, clean + 100)
    batch = Batch(torch.zeros(1, 8), torch.tensor([8]), torch.tensor([1]))
    tracker = make_tracker("tensorboard", tmp_path)
    tracker.picture(with_picture(drawn), batch, 3)
    tracker.picture(with_picture(None), batch, 4)
    tracker.close()
    (found,) = events(tmp_path).Images(TAG)
    shown = np.asarray(image.open(io.BytesIO(found.encoded_image_string)))[..., 0] / 255
    white = np.ones((2, 3))
    grey = np.where(torch.isnan(masked), 0.5, clean / 10)[::-1]
    expected = np.concatenate([clean.numpy()[::-1] / 10, white, grey, white, np.ones((2, 3))])
    assert found.step == 3
    np.testing.assert_allclose(shown, expected, atol=1 / 255)


def with_picture(drawn):
    """Return an objective that has this to show."""
    objective = build(settings())
    objective.picture = lambda batch, step: drawn
    return objective


def test_without_a_tracker_nothing_is_kept(tmp_path):
    tracker = make_tracker("none", tmp_path)
    assert type(tracker) is Tracker
    tracker.scalars({"loss": 1.0}, 1)
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_tensorboard_is_named_with_its_cure(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", False)
    with pytest.raises(MelpatchError, match=r"needs TensorBoard; install it: pip install 'melpatch\[track\]'"):
        make_tracker("tensorboard", tmp_path)
