import io
import json

import numpy as np
import pytest
import torch
from tiny_runs import noises, settings

from melpatch.colours import class_colours
from melpatch.data.clip import Batch
from melpatch.errors import MelpatchError
from melpatch.objectives.base import Picture
from melpatch.training.config import build
from melpatch.training.loop import fit
from melpatch.training.run import Run
from melpatch.training.tracking import Tracker, make_tracker

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
image = pytest.importorskip("PIL.Image")
TAG = "clean, seen, rebuilt"
CLEAN = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 10.0]])


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
    assert {"loss", "nce", "mse", "accuracy", "lr", "grad_norm", "health"} <= set(
        found.Tags()["scalars"]
    )
    assert [picture.step for picture in found.Images(TAG)] == [2, 4]


def test_a_picture_shows_its_stages_one_above_the_other_with_low_mels_below(tmp_path):
    drawn = picture(torch.nan)
    track(tmp_path, drawn, None)
    white, grey = np.ones((2, 3)), np.where(drawn.masked, 0.5, CLEAN / 10)[::-1]
    expected = np.concatenate([CLEAN.numpy()[::-1] / 10, white, grey, white, np.ones((2, 3))])
    np.testing.assert_allclose(shown(tmp_path, TAG)[..., 0], expected, atol=1 / 255)
    assert events(tmp_path).Tags()["images"] == [TAG]


def test_a_mask_that_other_values_cover_is_shown_by_itself(tmp_path):
    track(tmp_path, picture(8.0))
    stages = np.split(
        shown(tmp_path, "clean, seen, mask, rebuilt")[::-1, :, 0], [2, 4, 6, 8, 10, 12]
    )
    rebuilt, _, mask, _, seen, _, clean = stages
    np.testing.assert_allclose(clean, CLEAN / 10, atol=1 / 255)
    np.testing.assert_allclose(seen, [[0, 0.8, 0.2], [0.3, 0.4, 1.0]], atol=1 / 255)
    np.testing.assert_allclose(mask, [[1, 0.5, 1], [1, 1, 1]], atol=1 / 255)
    assert rebuilt.min() == 1


def test_classes_are_a_second_picture_in_their_own_colours(tmp_path):
    classes = torch.tensor([[3, 700, 3]])
    track(tmp_path, picture(torch.nan)._replace(pseudo_labels=torch.cat([classes, classes + 1])))
    assert events(tmp_path).Tags()["images"] == [TAG, "classes"]
    seen = shown(tmp_path, "classes")
    assert seen.shape == (32, 48, 3)
    np.testing.assert_allclose(
        seen[8::16, 8::16], class_colours(torch.cat([classes + 1, classes])), atol=1 / 255
    )
    assert np.ptp(seen[:16, 16:32], axis=(0, 1)).max() == 0  # a patch has one colour


def picture(fill):
    """Return a picture of two mels and three frames, of which one value is hidden."""
    hidden = torch.tensor([[False, True, False], [False, False, False]])
    return Picture(CLEAN, CLEAN.masked_fill(hidden, fill), hidden, CLEAN + 100)


def track(folder, *drawn):
    """Track what objectives have to show, one after the other."""
    batch = Batch(torch.zeros(1, 8), torch.tensor([8]), torch.tensor([1]))
    tracker = make_tracker("tensorboard", folder)
    for step, one in enumerate(drawn, start=3):
        tracker.picture(with_picture(one), batch, step)
    tracker.close()


def shown(folder, tag):
    """Return the one picture of that name, (height, width, colour) in [0, 1]."""
    (found,) = events(folder).Images(tag)
    assert found.step == 3
    return np.asarray(image.open(io.BytesIO(found.encoded_image_string))) / 255


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
    with pytest.raises(
        MelpatchError, match=r"needs TensorBoard; install it: pip install 'melpatch\[track\]'"
    ):
        make_tracker("tensorboard", tmp_path)
