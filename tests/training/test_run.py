import errno
import fcntl
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from tiny_runs import settings

from melpatch.data.clip import Clip
from melpatch.data.manifest import Corpus, Rejected, read_rejected
from melpatch.errors import CheckpointError, ConfigError
from melpatch.training import run as run_module
from melpatch.training.checkpoints import Checkpoint, Progress
from melpatch.training.config import build
from melpatch.training.run import Run
from melpatch.training.trainer import make_optimizer


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", settings())


@pytest.fixture
def model():
    return build(settings())


def optimizer_after(model, steps):
    """Return an optimiser that has made so many steps."""
    made = make_optimizer(model, settings().train)
    for step in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, step + 1.0)
        made.step()
    return made


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_new_run_records_its_settings(run):
    assert Run.reopen(run.folder).config == run.config


def test_a_folder_that_holds_a_run_is_refused(run):
    with pytest.raises(
        CheckpointError, match="holds a run already; add --resume to continue it, or give another"
    ):
        Run.create(run.folder, replace(settings(), seed=1))
    assert Run.reopen(run.folder).config.seed == 0


def test_one_training_at_a_time(run, monkeypatch):
    monkeypatch.setattr(run_module, "_PATIENCE", 0.0)
    with run.locked():
        other = Run.reopen(run.folder)
        with pytest.raises(
            CheckpointError, match="another process trains in it; wait until it ends, or stop it"
        ):
            other.locked().__enter__()
    with other.locked():
        pass


def test_of_two_that_start_a_run_the_second_is_refused(run, monkeypatch):
    """Both saw no run there, and the first one was faster."""
    refuse = Run.refuse
    seen = []

    def too_early(folder):
        seen.append(folder)
        if len(seen) > 1:
            refuse(folder)

    monkeypatch.setattr(Run, "refuse", staticmethod(too_early))
    with pytest.raises(CheckpointError, match="holds a run already"):
        Run.create(run.folder, replace(settings(), seed=1))
    assert Run.reopen(run.folder).config.seed == 0


def test_a_training_waits_for_what_a_killed_one_left_running(run):
    # It holds the lock as the decoding processes of a training do.
    held = f"import filelock, time; lock = filelock.FileLock({str(run.folder / 'lock')!r})"
    with subprocess.Popen(
        [sys.executable, "-c", f"{held}; lock.acquire(); print(flush=True); time.sleep(0.3)"],
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        with run.locked():
            assert process.wait(10) == 0


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_where_there_are_no_locks_it_is_told(run, monkeypatch, capsys, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with run.locked():
        pass
    assert "its file system has no locks" in capsys.readouterr().err


def test_a_lock_that_cannot_be_made_is_told(run):
    (run.folder / "lock").unlink(missing_ok=True)
    (run.folder / "lock").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot be locked \(Is a directory\)"):
        run.locked().__enter__()


def test_a_folder_that_holds_no_run_cannot_be_reopened(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.toml: cannot be read"):
        Run.reopen(tmp_path)


def test_a_folder_that_may_not_be_written_is_told(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:  # whom nothing is forbidden
            os.setuid(65534)
        try:
            Run.require_writable(locked / "below" / "run")
        except CheckpointError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(reader, 1000).decode()
    assert told.endswith(": cannot be written; make it writable, or give another --out")
    assert str(locked).startswith(told.partition(":")[0])  # or a folder above it


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"file: is a file, not a folder; give another --out"):
        Run.create(tmp_path / "file" / "run", settings())


def test_environment_says_with_what_each_start_was_made(run):
    for start in (run, Run.reopen(run.folder)):
        with start.locked():
            pass
    starts = json.loads((run.folder / "environment.json").read_text())
    assert len(starts) == 2
    for name in ("torch", "numpy", "soundfile", "melpatch"):
        assert starts[1]["packages"][name] == version(name)
    assert starts[1]["machine"]["threads"] == torch.get_num_threads()
    assert starts[1]["command"]


def test_a_machine_without_git_can_train(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_module.environment()["git_commit"] is None


def test_the_commit_is_that_of_the_code(monkeypatch, tmp_path):
    folder = run_module.Path(run_module.__file__).parent
    asked = subprocess.run(
        ["git", "log", "-1", "--format=%H"], cwd=folder, capture_output=True, text=True, check=False
    )
    monkeypatch.chdir(tmp_path)
    assert run_module.environment()["git_commit"] == (asked.stdout.strip() or None)


# ------------------------------------------------------------------------------------------------------------- lines


def test_lines_after_the_saved_step_and_half_lines_are_cut(run, model):
    for name, log in (("metrics.jsonl", run.log), ("speed.jsonl", run.log_speed)):
        for step in range(1, 7):
            log({"step": step, "loss": step / 3})
        with (run.folder / name).open("a") as file:
            file.write('{"step": 3, "lo')
    run.save(Checkpoint(Progress(step=4), {}, {}))
    run.checkpoints.wait()
    Run.reopen(run.folder).restore()
    for name in ("metrics.jsonl", "speed.jsonl"):
        assert lines(run.folder / name) == [
            {"step": step, "loss": step / 3} for step in range(1, 5)
        ]


def test_numbers_that_json_cannot_hold_are_null(run):
    run.log({"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "lr": 0.1})
    assert json.loads((run.folder / "metrics.jsonl").read_text(), parse_constant=pytest.fail) == {
        "step": 1,
        "loss": None,
        "grad_norm": None,
        "lr": 0.1,
    }


def test_rejected_clips_are_listed_once_and_survive_a_resume(run):
    run.reject([Rejected("a.wav", "is no sound"), Rejected("b.wav", "ends, too\nearly")])
    run.reject([Rejected("a.wav", "is no sound")])
    again = Run.reopen(run.folder)
    again.reject([Rejected("b.wav", "ends, too\nearly"), Rejected("c.wav", "is gone")])
    assert [one.path for one in read_rejected(run.folder / "rejected.csv")] == [
        "a.wav",
        "b.wav",
        "c.wav",
    ]
    assert read_rejected(run.folder / "rejected.csv")[1].reason == "ends, too\nearly"
    assert sorted(again.rejected) == ["a.wav", "b.wav", "c.wav"]


def test_without_rejected_clips_there_is_no_list_of_them(run):
    run.reject([])
    assert not (run.folder / "rejected.csv").exists()


def test_a_run_goes_on_with_the_clips_it_was_started_with_only(run):
    clips = tuple(Clip(Path(f"{name}.wav"), key, 0.0, 1.0) for key, name in enumerate("abc"))
    corpus = Corpus("sounds", clips, (), False)
    run.remember(corpus)
    run.remember(replace(corpus, clips=clips[::-1]))
    for other in (
        clips[:2],
        (*clips[:2], replace(clips[2], labels=("dog",))),
        (*clips, replace(clips[0], key=9)),
    ):
        with pytest.raises(CheckpointError, match="was started on other clips"):
            run.remember(replace(corpus, clips=other))


def test_a_run_names_itself_in_a_notebook(tmp_path):
    run = Run.create(tmp_path / "birds", settings())
    assert repr(run) == f"Run({str(tmp_path / 'birds')!r}, SSAST on ViT, 12 steps)"
