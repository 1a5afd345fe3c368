"""Whatever happens to a save, a run goes on from a state that is whole; most of it is made to happen at every call."""

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
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """What a run notes of its machine, and waiting for the disk, takes longer than all else here."""
    monkeypatch.setattr(run_module, "environment", dict)
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", settings())


def state_of(step, config=None):
    """Return a state whose every number tells its step."""
    model, average = {"x": torch.full((4, 3), float(step))}, {"x": torch.full((4, 3), float(-step))}
    groups = [{"betas": (0.9, 0.95), "params": [0]}]
    moments = {"state": {0: {"step": torch.tensor(float(step))}}, "param_groups": groups}
    return Checkpoint(Progress(step, best=step / 3), model, moments, average)


def save(run, step, **more):
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
    """Return the step that a resumed run begins with, once all that it begins with has been found to fit."""
    again = Run.reopen(run.folder)
    found = again.restore()
    lines = [
        json.loads(line)["step"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()
    ]
    if found is None:
        assert lines == []
        return 0
    step = found.progress.step
    assert same(found, state_of(step))
    assert lines == [each for each in (2, 4, 6) if each <= step]
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


# ---------------------------------------------------------------------------------------------------- kept and found


def test_a_saved_state_comes_back_whole(tmp_path):
    run, model = Run.create(tmp_path / "run", settings()), build(settings())
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
    found = Run.reopen(run.folder).restore()
    assert same(found, state)
    other = build(replace(settings(), seed=9))
    other.load_state_dict(found.model)
    blank = make_optimizer(other, settings().train)
    blank.load_state_dict(found.optimizer)
    assert same(blank.state_dict(), optimizer.state_dict())


def test_without_a_saved_state_a_run_starts_over(run):
    run.log({"step": 1, "loss": 1.0})
    assert restored(run) == 0


def test_what_trains_on_does_not_change_what_is_being_saved(run, monkeypatch):
    """The thread is held up until the weights have changed."""
    changed, write = threading.Event(), checkpoints_module.write_weights
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


def test_a_save_waits_for_the_one_before(run, monkeypatch):
    going, write, log = threading.Event(), checkpoints_module.write_weights, []

    def slow(path, weights):
        going.wait(10)
        log.append(weights["x"][0, 0].item())
        write(path, weights)

    monkeypatch.setattr(checkpoints_module, "write_weights", slow)
    run.save(state_of(2))
    assert log == []
    threading.Timer(0.05, going.set).start()
    run.save(state_of(4))
    assert log[:2] == [2.0, -2.0]
    run.checkpoints.wait()
    assert log == [2.0, -2.0, 4.0, -4.0]


@pytest.mark.parametrize(
    ("keep", "kept"),
    [({}, [8, 10]), ({"keep_last": 1}, [10]), ({"keep_last": 3, "keep_every": 4}, [4, 6, 8, 10])],
)
def test_the_newest_states_are_kept_and_every_so_manieth(tmp_path, keep, kept):
    run = Run.create(tmp_path / "run", settings(save_every=2, **keep))
    for step in (2, 4, 6, 8, 10):
        save(run, step)
    assert steps_kept(run) == kept


def test_states_are_told_apart_by_number(run):
    for step in (2, 999_999_999, 1_000_000_000):
        save(run, step)
    assert Run.reopen(run.folder).restore().progress.step == 1_000_000_000


def test_what_is_kept_must_be_saved():
    with pytest.raises(Exception, match=r"keep_every = 6; allowed: a multiple of save_every = 4"):
        settings(keep_every=6)


def test_a_state_can_be_checked_without_melpatch(run):
    save(run, 2)
    words = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    subprocess.run(words, cwd=run.newest, check=True)


def test_files_that_are_not_ours_are_left_alone(run):
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
def test_a_damaged_state_is_told_and_the_one_before_it_used(run, capsys, damage, name):
    for share in (0.0, 0.3, 0.7, 0.99):
        for step in (2, 4):
            save(run, step)
        damage(run.newest / name, share)
        assert restored(run) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        assert "step-000000004: damaged (" in told
        assert steps_kept(run) == [2]  # a damaged one does not count as one of the newest
        (run.folder / "metrics.jsonl").unlink()


@pytest.mark.parametrize("name", FILES)
def test_a_state_without_one_of_its_files_is_damaged(run, name):
    for step in (2, 4):
        save(run, step)
    (run.newest / name).unlink()
    assert restored(run) == 2


def test_where_all_states_are_damaged_nothing_is_thrown_away(run):
    for step in (2, 4):
        save(run, step)
    for path in (run.folder / "resume").iterdir():
        flip(path / "optimizer.pt", 0.5)
    with pytest.raises(
        CheckpointError, match=r"none of its 2 states is whole; take one from a backup, or remove"
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
    """Has the ``at``-th of the calls that change files fail, and all after it while it lasts."""

    def __init__(self, patch, at, error, lasts):
        self.at, self.error, self.lasts, self.count = at, error, lasts, 0
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
    """Yield, for every call of ``do(prepared)``, what was prepared and what was raised when that call failed."""
    for at in count(1):
        prepared, raised = prepare(at), None
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
    """Return what makes a run folder with two states."""
    first = Run.create(tmp_path / "first", settings())
    for step in (2, 4):
        save(first, step)
    return lambda number: Run(
        Path(shutil.copytree(first.folder, tmp_path / f"{number}")), first.config
    )


def third_save(run):
    save(run, 6)


def test_a_kill_at_any_call_of_a_save_leaves_a_state_that_is_whole(twice_saved, monkeypatch):
    """A dead process makes no further call: neither does it clean up."""
    found = []
    for run, raised in faults(monkeypatch, twice_saved, third_save, Killed(), lasts=True):
        assert isinstance(raised, Killed)
        found.append(restored(run))
        assert load_weights(run.folder / "model.safetensors")["x"].unique().tolist() in (
            [4.0],
            [6.0],
        )
    assert found == sorted(found)
    assert set(found) == {4, 6}


def test_a_kill_at_any_call_of_a_resume_leaves_the_same_state_to_the_next(twice_saved, monkeypatch):
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


def test_a_kill_at_any_call_of_the_start_leaves_a_run_or_none(tmp_path, monkeypatch):
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
    run = (
        Run.reopen(folder) if (folder / "config.toml").exists() else Run.create(folder, settings())
    )
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
def whole(corpus, tmp_path_factory):
    """Return what an uninterrupted training leaves, and how many calls it makes."""
    with pytest.MonkeyPatch.context() as patch:
        fault = Fault(patch, -1, None, lasts=False)
        return train(corpus, tmp_path_factory.mktemp("whole")), fault.count


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_training_killed_anywhere_leaves_in_the_end_what_it_would_have_left(
    corpus, whole, tmp_path, monkeypatch, share
):
    files, calls = whole
    with monkeypatch.context() as patch:
        Fault(patch, int(share * calls), Killed(), lasts=True)
        with pytest.raises(Killed):
            train(corpus, tmp_path)
    assert train(corpus, tmp_path) == files


def test_a_disk_that_is_full_at_any_call_does_not_end_the_run(twice_saved, monkeypatch, capsys):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "some file")
    for run, raised in faults(monkeypatch, twice_saved, third_save, full, lasts=False):
        assert raised is None
        told = capsys.readouterr().err
        if told:  # what is logged may find room a moment later
            assert (
                "some file: no room to save (No space left on device); the run goes on, and" in told
            )
            assert told.count("\n") == 1
        assert steps_kept(run) in ([2, 4], [4, 6], [2, 4, 6])
        third_save(run)
        assert [json.loads(line)["step"] for line in (run.folder / "metrics.jsonl").open()] == [
            2,
            4,
            6,
            6,
        ]
        assert steps_kept(run) == [4, 6]
        assert not list(run.folder.rglob(".*"))
        assert Run.reopen(run.folder).restore().progress.step == 6


# --------------------------------------------------------------------------------------------------------- full disk


@pytest.fixture
def little_room():
    """Return what makes all files that are written from now on too large beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_files_that_really_find_no_room(run, little_room, capsys):
    save(run, 2)
    for most in (10, 100, 300, 700, 1100):  # the log, the weights, the rest
        little_room(most)
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
def test_a_device_that_is_full_is_recognised():
    with pytest.raises(OSError, match="No space left on device") as caught:
        checkpoint.write_weights(Path("/dev/full"), {"x": torch.zeros(9)})
    assert atomic.lack_of_space(caught.value) is caught.value


def test_a_last_save_without_room_is_an_error(run, little_room):
    told = rf"{run.folder}: no room for the last weights \(File too large\); free some"
    with pytest.raises(CheckpointError, match=told), run.checkpoints:  # noqa: PT012
        save(run, 2)
        little_room(100)
        save(run, 4)
    little_room(-1)
    with run.checkpoints:
        save(run, 4)


def test_weights_that_found_no_room_are_published_by_the_next_save(run, little_room):
    little_room(100)
    run.publish({"x": torch.full((50,), 7.0)})
    run.checkpoints.wait()
    little_room(-1)
    assert not (run.folder / "model.safetensors").exists()
    run.save(state_of(2))
    run.checkpoints.wait()
    assert load_weights(run.folder / "model.safetensors")["x"].unique().tolist() == [7.0]


def test_rejected_clips_that_found_no_room_are_listed_later(run, little_room):
    little_room(3)
    run.reject([Rejected("a.wav", "is no sound")])
    little_room(-1)
    assert not (run.folder / "rejected.csv").exists()
    run.reject([])
    assert "a.wav" in (run.folder / "rejected.csv").read_text()


def test_a_training_goes_on_through_a_full_disk(
    corpus, whole, tmp_path, little_room, capsys, monkeypatch
):
    """The disk is full from step 3 to step 9, while lines, weights and a state are due."""
    room, log = {2: 400, 8: -1}, Run.log

    def note(run, record):
        if record["step"] in room:
            little_room(room[record["step"]])
        log(run, record)

    monkeypatch.setattr(Run, "log", note)
    assert train(corpus, tmp_path) == whole[0]
    assert "no room to save (File too large)" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ other errors


def test_an_error_of_another_kind_is_raised_at_the_next_chance(run, monkeypatch):
    denied = OSError(errno.EIO, os.strerror(errno.EIO), "the/file")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_module, "write_weights", lambda *_: (_ for _ in ()).throw(denied))
        run.save(state_of(2))
        run.checkpoints._thread.shutdown()
        with pytest.raises(
            CheckpointError,
            match=r"the/file: cannot be written \(Input/output error\); mend the disk",
        ):
            run.checkpoints.check()
    run.checkpoints.check()  # is raised once


def test_the_bodys_own_error_is_the_one_to_tell(run, monkeypatch):
    monkeypatch.setattr(checkpoints_module, "write_weights", lambda *_: 1 / 0)
    with pytest.raises(KeyError), run.checkpoints:  # noqa: PT012
        run.save(state_of(2))
        raise KeyError
