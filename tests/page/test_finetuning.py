"""Training from the page: one at a time, its progress and its end are shown, and it can be stopped."""

import sys
import time

import pytest
from page.collection import opened
from starlette.testclient import TestClient

from melpatch.page import finetuning
from melpatch.page.finetuning import Finetuning
from melpatch.page.server import make_app


@pytest.fixture
def training(index, tmp_path, monkeypatch):
    """A training of which a script takes the place."""
    with opened(index, tmp_path / "labels.csv") as session:
        training = Finetuning(session.index, session.labels.path)
        monkeypatch.setattr(training, "_folder", tmp_path)
        yield training
        training.end()


def runs(monkeypatch, script):
    """Let a script take the place of melpatch finetune; it is given the command's words."""
    start = finetuning.subprocess.Popen
    monkeypatch.setattr(
        finetuning.subprocess,
        "Popen",
        lambda words, **how: start([sys.executable, "-u", "-c", script, *words[3:]], **how),
    )


def until(training, condition):
    for _ in range(600):
        state = training.state()
        if condition(state):
            return state
        time.sleep(0.1)
    pytest.fail(f"still {state}")


WAITS = "print('training: 3/10 steps, 2.0 steps/s'); import time; time.sleep(100)"


def test_the_command_that_is_shown_is_run_and_its_last_line_shown(training, monkeypatch):
    shown = training.state()
    assert shown["state"] == "idle"
    assert shown["command"].startswith("melpatch finetune --init ")
    runs(monkeypatch, "import sys; print('melpatch', *sys.argv[1:])")
    assert training.start()["command"] == shown["command"]
    ended = until(training, lambda state: state["state"] != "running")
    assert (ended["state"], ended["line"]) == ("done", shown["command"])


def test_one_runs_at_a_time_and_can_be_stopped(training, monkeypatch):
    runs(monkeypatch, WAITS)
    training.start()
    running = until(training, lambda state: "3/10 steps" in state["line"])
    assert running["state"] == "running"
    with pytest.raises(finetuning.ConfigError, match="a training is running; wait"):
        training.start()
    training.stop()
    assert until(training, lambda state: state["state"] != "running")["state"] == "stopped"


def test_a_failure_says_why_and_the_next_one_takes_another_folder(training, monkeypatch, tmp_path):
    runs(monkeypatch, "import sys; print('no labels; give some', file=sys.stderr); sys.exit(2)")
    training.start()
    failed = until(training, lambda state: state["state"] != "running")
    assert (failed["state"], failed["line"]) == ("failed", "no labels; give some")
    (tmp_path / "finetuned").mkdir()
    assert training.start()["command"].endswith("finetuned-2")


def test_it_ends_with_the_server(index, tmp_path, monkeypatch):
    runs(monkeypatch, WAITS)
    with opened(index, tmp_path / "labels.csv") as session:
        training = Finetuning(session.index, session.labels.path)
        monkeypatch.setattr(training, "_folder", tmp_path)
        app = make_app(session, finetuning=training)
        with TestClient(app, base_url="http://localhost") as page:
            assert page.post("/api/train", json={}).json()["state"] == "running"
            assert page.post("/api/train", json={}).status_code == 400
            # A page that is loaded again finds it.
            assert page.get("/api/training").json()["state"] == "running"
        assert training.state()["state"] == "stopped"


def test_a_stranger_can_start_none(index, tmp_path):
    with opened(index, tmp_path / "labels.csv") as session:
        guarded = TestClient(make_app(session, "secret"), base_url="http://host.example")
        assert guarded.post("/api/train", json={}).status_code == 403
        assert guarded.get("/api/training").status_code == 403
