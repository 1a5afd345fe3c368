import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_runs import noises, settings

from melpatch.colours import class_colours
from melpatch.data.clip import Batch
from melpatch.errors import MelpatchError
from melpatch.objectives.base import Picture
from melpatch.training import trackers
from melpatch.training.config import build
from melpatch.training.loop import fit
from melpatch.training.run import Run
from melpatch.training.trackers import Tracker, make_tracker
from melpatch.training.trackers.images import image_of_views

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
image = pytest.importorskip("PIL.Image")
TAG = "clean, input, reconstruction"
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
        shown(tmp_path, "clean, input, mask, reconstruction")[::-1, :, 0], [2, 4, 6, 8, 10, 12]
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


class FakeClient:
    """Stands for the client of wandb, MLflow and Trackio; keeps what is called on it."""

    def __init__(self):
        self.calls = []
        self.id = "id-1"
        self.info = SimpleNamespace(run_id="id-1")

    def __getattr__(self, name):
        def call(*values, **named):
            self.calls.append((name, values, named))
            return self

        return call

    def called(self, name):
        return [(values, named) for called, values, named in self.calls if called == name]


@pytest.fixture(params=["wandb", "mlflow", "trackio"])
def client(request, monkeypatch):
    """Return the name of a tracker and a fake of its client."""
    fake = FakeClient()
    monkeypatch.setitem(sys.modules, request.param, fake)
    return request.param, fake


def test_clients_get_numbers_and_pictures_by_step(client, tmp_path):
    kind, fake = client
    tracker = make_tracker(kind, tmp_path / "run")
    tracker.scalars({"loss": 0.5}, 3)
    batch = Batch(torch.zeros(1, 8), torch.tensor([8]), torch.tensor([1]))
    tracker.picture(with_picture(picture(torch.nan)), batch, 3)
    tracker.close()
    pictures = fake.called("log_image" if kind == "mlflow" else "Image")
    assert pictures[0][0][0].shape == (10, 3, 3)
    assert pictures[0][0][0].dtype == np.uint8
    values, named = fake.called("log_metrics" if kind == "mlflow" else "log")[0]
    assert values[0]["loss"] == 0.5
    assert named.get("step", values[0].get("train_step")) == 3
    assert fake.called("end_run" if kind == "mlflow" else "finish")


def test_a_resumed_run_continues_in_the_same_curves(client, tmp_path):
    kind, fake = client
    key = {"wandb": "id", "mlflow": "run_id", "trackio": "name"}[kind]
    for _ in range(2):
        make_tracker(kind, tmp_path / "run").close()
    first, second = fake.called("start_run" if kind == "mlflow" else "init")
    if kind == "trackio":
        assert first[1][key] == second[1][key]
    else:
        assert (first[1][key], second[1][key]) == (None, "id-1")


def test_only_rank_zero_tracks(client, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "is_rank_zero", lambda: False)
    assert type(make_tracker(client[0], tmp_path)) is Tracker
    assert client[1].calls == []


@pytest.mark.parametrize("kind", ["wandb", "mlflow", "trackio"])
def test_a_missing_client_is_named_with_its_extra(kind, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(MelpatchError, match=rf"pip install 'melpatch\[{kind}\]'"):
        make_tracker(kind, tmp_path)


def test_views_of_a_clip_are_shown_one_above_the_other():
    clip = torch.tensor([[0.0, 4.0], [2.0, 1.0]])
    assert image_of_views({}) == {}
    ((name, pixels),) = image_of_views({"clip": clip, "view 1": clip[:, :1]}).items()
    assert name == "clip, view 1"
    white = [[1.0, 1.0]] * 2
    expected = [[0.5, 0.25], [0.0, 1.0], *white, [0.5, 0.5], [0.0, 0.5]]
    assert pixels[..., 0].tolist() == expected
