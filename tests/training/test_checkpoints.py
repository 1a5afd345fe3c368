"""Faults during a save: a run resumes from an intact checkpoint, whichever system call fails."""

import errno
import io
import json
import os
import resource
import shutil
import subprocess
import threading
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from tiny_runs import noises, settings

from melpatch import atomic, checkpoint
from melpatch.checkpoint import load_weights
from melpatch.data.manifest import Rejected
from melpatch.errors import CheckpointError
from melpatch.training import checkpoints as checkpoints_module
from melpatch.training import run as run_module
from melpatch.training.checkpoints import Checkpoint, Progress
from melpatch.training.config import build
from melpatch.training.loop import fit
from melpatch.training.run import Run
from melpatch.training.trainer import make_optimizer


class Killed(BaseException):
    """Stands for the death of the process."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Skip recording the environment and syncing the disk, which take most of the time here."""
    monkeypatch.setattr(run_module, "environment", dict)
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", settings())


def state_of(step, config=None):
    """Return a checkpoint all of whose numbers depend on its step."""
    model = {"x": torch.full((4, 3), float(step))}
    average = {"x": torch.full((4, 3), float(-step))}
    groups = [{"betas": (0.9, 0.95), "params": [0]}]
    moments = {"state": {0: {"step": torch.tensor(float(step))}}, "param_groups": groups}
    return Checkpoint(Progress(step, best=step / 3), model, moments, average)


def save(run, step):
    run.log({"step": step})
    state = state_of(step)
    run.save(state, state.model)
    run.checkpoints.wait()


def steps_kept(run):
    return [
        int(path.name.removeprefix("step-"))
        for path in sorted((run.folder / "resume").glob("step-*"))
    ]


def restored(run):
    """Return the step that a resumed run starts at, after checking weights, state and metrics."""
    state = Run.reopen(run.folder).restore()
    metrics = (run.folder / "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line)["step"] for line in metrics]
    if state is None:
        assert logged == []
        return 0
    step = state.progress.step
    assert same(state, state_of(step))
    assert logged == [saved for saved in (2, 4, 6) if saved <= step]
    assert not list(run.folder.rglob(".*"))
    return step


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, Checkpoint):
        return same(vars(first), vars(second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(
            same(value, second[name]) for name, value in first.items()
        )
    return first == second


# --------------------------------------------------------------------------------------------- restore


def test_a_checkpoint_is_restored_exactly(tmp_path):
    run = Run.create(tmp_path / "run", settings())
    model = build(settings())
    optimizer = make_optimizer(model, settings().train)
    for step in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, step + 1.0)
        optimizer.step()
    progress = Progress(step=3, skipped=2, skipped_in_a_row=1, best=1 / 3, best_step=2, averaged=1)
    state = Checkpoint(
        progress, model.state_dict(), optimizer.state_dict(), {"x": torch.tensor([0.1, 0.2])}
    )
    run.save(state)
    run.checkpoints.wait()
    loaded = Run.reopen(run.folder).restore()
    assert same(loaded, state)
    other = build(replace(settings(), seed=9))
    other.load_state_dict(loaded.model)
    new_optimizer = make_optimizer(other, settings().train)
    new_optimizer.load_state_dict(loaded.optimizer)
    assert same(new_optimizer.state_dict(), optimizer.state_dict())


def test_without_a_checkpoint_a_run_starts_over(run):
    run.log({"step": 1, "loss": 1.0})
    assert restored(run) == 0


def test_training_does_not_change_a_checkpoint_that_is_being_written(run, monkeypatch):
    """The saving thread waits until the weights have changed."""
    changed = threading.Event()
    write = checkpoints_module.write_weights
    monkeypatch.setattr(
        checkpoints_module, "write_weights", lambda *a: changed.wait(10) and write(*a)
    )
    state = state_of(2)
    run.log({"step": 2})
    run.save(state, state.model)
    for tensors in (state.model, state.average, state.optimizer["state"][0]):
        for value in tensors.values():
            value.fill_(99.0)
    state.progress.step = 3
    changed.set()
    run.checkpoints.wait()
    assert restored(run) == 2
    assert load_weights(run.folder / "model.safetensors")["x"].unique().tolist() == [2.0]


def test_a_save_waits_for_the_previous_save(run, monkeypatch):
    released = threading.Event()
    write = checkpoints_module.write_weights
    log = []

    def slow(path, weights):
        released.wait(10)
        log.append(weights["x"][0, 0].item())
        write(path, weights)

    monkeypatch.setattr(checkpoints_module, "write_weights", slow)
    run.save(state_of(2))
    assert log == []
    threading.Timer(0.05, released.set).start()
    run.save(state_of(4))
    assert log[:2] == [2.0, -2.0]
    run.checkpoints.wait()
    assert log == [2.0, -2.0, 4.0, -4.0]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [({}, [8, 10]), ({"keep_last": 1}, [10]), ({"keep_last": 3, "keep_every": 4}, [4, 6, 8, 10])],
)
def test_the_newest_checkpoints_and_those_at_keep_every_are_kept(tmp_path, keep, kept):
    run = Run.create(tmp_path / "run", settings(save_every=2, **keep))
    for step in (2, 4, 6, 8, 10):
        save(run, step)
    assert steps_kept(run) == kept


def test_checkpoints_are_sorted_by_step_not_by_name(run):
    for step in (2, 999_999_999, 1_000_000_000):
        save(run, step)
    assert Run.reopen(run.folder).restore().progress.step == 1_000_000_000


def test_keep_every_must_be_a_multiple_of_save_every():
    with pytest.raises(Exception, match=r"keep_every = 6; allowed: a multiple of save_every = 4"):
        settings(keep_every=6)


def test_a_checkpoint_can_be_verified_without_melpatch(run):
    save(run, 2)
    command = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    subprocess.run(command, cwd=run.newest, check=True)


def test_files_of_the_user_are_left_alone(run):
    save(run, 2)
    (run.folder / "resume" / "notes.txt").write_text("mine")
    save(run, 4)
    assert restored(run) == 4
    assert (run.folder / "resume" / "notes.txt").read_text() == "mine"


# ----------------------------------------------------------------------------------------------------------- damaged


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def flip(path, share):
    content = bytearray(path.read_bytes())
    content[int(share * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)


FILES = ("model.safetensors", "average.safetensors", "optimizer.pt", "progress.json", "SHA256SUMS")


@pytest.mark.parametrize("damage", [cut, flip])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_reported_and_the_previous_one_used(run, capsys, damage, name):
    for share in (0.0, 0.3, 0.7, 0.99):
        for step in (2, 4):
            save(run, step)
        damage(run.newest / name, share)
        assert restored(run) == 2
        notices = capsys.readouterr().err
        assert notices.count("\n") == 1
        assert "step-000000004: damaged (" in notices
        # A damaged checkpoint does not count as one of the newest.
        assert steps_kept(run) == [2]
        (run.folder / "metrics.jsonl").unlink()


@pytest.mark.parametrize("name", FILES)
def test_a_checkpoint_without_one_of_its_files_is_damaged(run, name):
    for step in (2, 4):
        save(run, step)
    (run.newest / name).unlink()
    assert restored(run) == 2


def test_if_all_checkpoints_are_damaged_none_is_removed(run):
    for step in (2, 4):
        save(run, step)
    for path in (run.folder / "resume").iterdir():
        flip(path / "optimizer.pt", 0.5)
    with pytest.raises(
        CheckpointError, match=r"none of its 2 checkpoints is intact; restore one from a backup"
    ):
        Run.reopen(run.folder).restore()
    assert steps_kept(run) == [2, 4]


# ------------------------------------------------------------------------------------------------- at every call

CALLS = [
    (os, name)
    for name in ("open", "fsync", "replace", "rename", "unlink", "rmdir", "mkdir", "truncate")
]
CALLS += [(io, "open"), (torch, "save")]


class Fault:
    """Make the ``at``-th call that changes files fail, and all later ones too if it ``lasts``."""

    def __init__(self, patch, at, error, lasts):
        self.at = at
        self.error = error
        self.lasts = lasts
        self.count = 0
        for place, name in CALLS:
            patch.setattr(place, name, self.watched(getattr(place, name)))

    def watched(self, call):
        def watched(*arguments, **more):
            self.count += 1
            if self.count == self.at or (self.lasts and self.count > self.at):
                raise self.error
            return call(*arguments, **more)

        return watched


def faults(monkeypatch, prepare, do, error, *, lasts):
    """Let each system call of ``do(prepared)`` fail in turn; yield ``prepared`` and what was raised."""
    for at in count(1):
        prepared = prepare(at)
        raised = None
        with monkeypatch.context() as patch:
            fault = Fault(patch, at, error, lasts)
            try:
                do(prepared)
            except BaseException as caught:  # noqa: BLE001
                raised = caught
        if fault.count < at:
            assert at > 10
            return
        yield prepared, raised


@pytest.fixture
def twice_saved(tmp_path):
    """Return a function that makes a run folder with two checkpoints."""
    first = Run.create(tmp_path / "first", settings())
    for step in (2, 4):
        save(first, step)
    return lambda number: Run(
        Path(shutil.copytree(first.folder, tmp_path / f"{number}")), first.config
    )


def third_save(run):
    save(run, 6)


def test_a_kill_at_any_call_of_a_save_leaves_an_intact_checkpoint(twice_saved, monkeypatch):
    """A dead process makes no further call, so it does not clean up either."""
    steps = []
    for run, raised in faults(monkeypatch, twice_saved, third_save, Killed(), lasts=True):
        assert isinstance(raised, Killed)
        steps.append(restored(run))
        assert load_weights(run.folder / "model.safetensors")["x"].unique().tolist() in (
            [4.0],
            [6.0],
        )
    assert steps == sorted(steps)
    assert set(steps) == {4, 6}


def test_after_a_kill_at_any_call_of_a_resume_the_next_resume_is_the_same(twice_saved, monkeypatch):
    def prepare(number):
        run = twice_saved(number)
        flip(run.newest / "optimizer.pt", 0.5)
        (run.folder / ".model.safetensors.77.partial").write_bytes(b"half")
        (run.folder / "resume" / ".step-000000006.77.partial").mkdir()
        return run

    for run, raised in faults(
        monkeypatch, prepare, lambda run: Run.reopen(run.folder).restore(), Killed(), lasts=True
    ):
        assert isinstance(raised, Killed)
        assert restored(run) == 2


def test_a_kill_at_any_call_of_the_start_leaves_a_run_or_nothing(tmp_path, monkeypatch):
    def start(folder):
        Run.create(folder, settings(), settings())

    for folder, raised in faults(
        monkeypatch, lambda number: tmp_path / f"{number}", start, Killed(), lasts=True
    ):
        assert isinstance(raised, Killed)
        if not (folder / "config.toml").exists():
            start(folder)
        run = Run.reopen(folder)
        assert run.restore() is None
        save(run, 2)
        assert restored(run) == 2


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return noises(tmp_path_factory.mktemp("noise"))


def train(corpus, folder):
    if (folder / "config.toml").exists():
        run = Run.reopen(folder)
    else:
        run = Run.create(folder, settings())
    fit(
        build(run.config),
        corpus,
        run,
        evaluate=lambda objective, step: {"score": -1.0 * step},
        select="score",
    )
    names = ("metrics.jsonl", "model.safetensors", "resume/step-000000012/model.safetensors")
    return [(folder / name).read_bytes() for name in names]


@pytest.fixture(scope="module")
def uninterrupted(corpus, tmp_path_factory):
    """Return the files of an uninterrupted training, and its number of system calls."""
    with pytest.MonkeyPatch.context() as patch:
        fault = Fault(patch, -1, None, lasts=False)
        return train(corpus, tmp_path_factory.mktemp("whole")), fault.count


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_killed_and_resumed_training_leaves_the_files_of_an_uninterrupted_one(
    corpus, uninterrupted, tmp_path, monkeypatch, share
):
    files, calls = uninterrupted
    with monkeypatch.context() as patch:
        Fault(patch, int(share * calls), Killed(), lasts=True)
        with pytest.raises(Killed):
            train(corpus, tmp_path)
    assert train(corpus, tmp_path) == files


def test_a_disk_that_is_full_at_any_call_does_not_end_the_run(twice_saved, monkeypatch, capsys):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some file")
    for run, raised in faults(monkeypatch, twice_saved, third_save, full, lasts=False):
        assert raised is None
        notices = capsys.readouterr().err
        # Nothing is printed if the fault hits a log line, which is written a moment later.
        if notices:
            message = "some file: no room to save (No space left on device); the run continues, and"
            assert message in notices
            assert notices.count("\n") == 1
        assert steps_kept(run) in ([2, 4], [4, 6], [2, 4, 6])
        third_save(run)
        metrics = (run.folder / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in metrics] == [2, 4, 6, 6]
        assert steps_kept(run) == [4, 6]
        assert not list(run.folder.rglob(".*"))
        assert Run.reopen(run.folder).restore().progress.step == 6


# --------------------------------------------------------------------------------------------------------- full disk


@pytest.fixture
def little_room():
    """Return a function that limits the size of files written from then on, in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_files_beyond_a_real_size_limit_are_saved_later(run, little_room, capsys):
    save(run, 2)
    # The limits hit the log, the weights, and the other files.
    for limit in (10, 100, 300, 700, 1100):
        little_room(limit)
        save(run, 4)
        assert "no room to save (File too large)" in capsys.readouterr().err
        little_room(-1)
        assert steps_kept(run) == [2]
        assert not list(run.folder.rglob(".*"))
    run.save(state_of(4))
    run.checkpoints.wait()
    metrics = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [2, 4, 4, 4, 4, 4]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no device that is always full")  # noqa: PTH110
def test_a_full_device_is_recognised():
    with pytest.raises(OSError, match="No space left on device") as caught:
        checkpoint.write_weights(Path("/dev/full"), {"x": torch.zeros(9)})
    assert atomic.lack_of_space(caught.value) is caught.value


def test_a_last_save_without_room_is_an_error(run, little_room):
    message = rf"{run.folder}: no room for the last weights \(File too large\); free some"
    with pytest.raises(CheckpointError, match=message), run.checkpoints:  # noqa: PT012
        save(run, 2)
        little_room(100)
        save(run, 4)
    little_room(-1)
    with run.checkpoints:
        save(run, 4)


def test_weights_that_did_not_fit_are_published_by_the_next_save(run, little_room):
    little_room(100)
    run.publish({"x": torch.full((50,), 7.0)})
    run.checkpoints.wait()
    little_room(-1)
    assert not (run.folder / "model.safetensors").exists()
    run.save(state_of(2))
    run.checkpoints.wait()
    assert load_weights(run.folder / "model.safetensors")["x"].unique().tolist() == [7.0]


def test_rejected_clips_that_did_not_fit_are_listed_later(run, little_room):
    little_room(3)
    run.reject([Rejected("a.wav", "is no sound")])
    little_room(-1)
    assert not (run.folder / "rejected.csv").exists()
    run.reject([])
    assert "a.wav" in (run.folder / "rejected.csv").read_text()


def test_training_continues_while_the_disk_is_full(
    corpus, uninterrupted, tmp_path, little_room, capsys, monkeypatch
):
    """The disk is full from step 3 to step 9, while logs, weights and a checkpoint are due."""
    limits = {2: 400, 8: -1}
    log = Run.log

    def log_and_limit(run, record):
        if record["step"] in limits:
            little_room(limits[record["step"]])
        log(run, record)

    monkeypatch.setattr(Run, "log", log_and_limit)
    assert train(corpus, tmp_path) == uninterrupted[0]
    assert "no room to save (File too large)" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ other errors


def test_another_error_of_a_write_is_raised_by_the_next_check(run, monkeypatch):
    denied = OSError(errno.EIO, os.strerror(errno.EIO), "the/file")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_module, "write_weights", lambda *_: (_ for _ in ()).throw(denied))
        run.save(state_of(2))
        run.checkpoints._thread.shutdown()
        with pytest.raises(
            CheckpointError,
            match=r"the/file: cannot be written \(Input/output error\); look at the disk",
        ):
            run.checkpoints.check()
    # It is raised only once.
    run.checkpoints.check()


def test_an_error_in_the_body_is_not_replaced_by_an_error_of_a_write(run, monkeypatch):
    monkeypatch.setattr(checkpoints_module, "write_weights", lambda *_: 1 / 0)
    with pytest.raises(KeyError), run.checkpoints:  # noqa: PT012
        run.save(state_of(2))
        raise KeyError
