import json
import subprocess
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from tiny_runs import settings

from melpatch.checkpoint import load_weights
from melpatch.data.clip import Clip
from melpatch.data.manifest import Corpus, Rejected, read_rejected
from melpatch.errors import CheckpointError, ConfigError
from melpatch.training import run as run_module
from melpatch.training.config import build
from melpatch.training.loop import make_optimizer
from melpatch.training.run import Progress, Run


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
    with pytest.raises(CheckpointError, match="holds a run already; add --resume to go on with it, or give another"):
        Run.create(run.folder, replace(settings(), seed=1))
    assert Run.reopen(run.folder).config.seed == 0


def test_a_folder_that_holds_no_run_cannot_be_reopened(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.toml: cannot be read"):
        Run.reopen(tmp_path)


def test_environment_says_with_what_each_start_was_made(run):
    Run.reopen(run.folder)
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
    asked = subprocess.run(["git", "log", "-1", "--format=%H"], cwd=folder, capture_output=True, text=True, check=False)
    monkeypatch.chdir(tmp_path)
    assert run_module.environment()["git_commit"] == (asked.stdout.strip() or None)


# ------------------------------------------------------------------------------------------------------------- state


def test_a_saved_state_comes_back_whole(run, model):
    optimizer = optimizer_after(model, 3)
    progress = Progress(step=3, skipped=2, skipped_in_a_row=1, best=1 / 3, best_step=2, averaged=1)
    average = {"x": torch.tensor([0.1, 0.2])}
    run.save(progress, model.state_dict(), optimizer, average)
    other = build(replace(settings(), seed=9))
    blank = make_optimizer(other, settings().train)
    found, averaged = Run.reopen(run.folder).restore(other, blank)
    assert found == progress
    assert torch.equal(averaged["x"], average["x"])
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    before, after = optimizer.state_dict(), blank.state_dict()
    assert before["param_groups"] == after["param_groups"]
    for number, state in before["state"].items():
        assert all(torch.equal(value, after["state"][number][name]) for name, value in state.items())


def test_without_a_saved_state_a_run_starts_over(run, model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run.log({"step": 1, "loss": 1.0})
    progress, average = run.restore(model, make_optimizer(model, settings().train))
    assert (progress, average) == (Progress(), {})
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert (run.folder / "metrics.jsonl").read_text() == ""


def save(run, model, step):
    with torch.no_grad():
        model.mask_embed.fill_(float(step))
    run.save(Progress(step=step), model.state_dict(), make_optimizer(model, settings().train), {})


def restored(run):
    """Return the step and the weights that a resumed run would begin with."""
    model = build(settings())
    progress, _ = Run.reopen(run.folder).restore(model, make_optimizer(model, settings().train))
    return progress.step, model.mask_embed.flatten()[0].item()


def test_the_newest_state_is_taken_and_only_it_is_kept(run, model):
    for step in (2, 10, 9_999_999):
        save(run, model, step)
        assert restored(run) == (step, float(step))
        assert [path.name for path in (run.folder / "resume").iterdir()] == [f"step-{step:09d}"]


def test_of_two_complete_states_the_newer_is_taken(run, model):
    """So a crash after the new state took its name, and before the old one was dropped, loses nothing."""
    save(run, model, 2)
    (run.folder / "resume" / "step-000000002").rename(run.folder / "kept")
    save(run, model, 4)
    (run.folder / "kept").rename(run.folder / "resume" / "step-000000002")
    assert restored(run) == (4, 4.0)


@pytest.mark.parametrize("at", ["save_weights", "optimizer", "progress", "sync", "rename"])
def test_a_crash_while_saving_leaves_the_state_before(run, model, monkeypatch, at):
    save(run, model, 2)
    seen = []

    def crash(*args, **settings):
        seen.append(args)
        raise Killed

    if at == "save_weights":
        monkeypatch.setattr(run_module, "save_weights", crash)
    elif at == "optimizer":
        monkeypatch.setattr(torch, "save", crash)
    elif at == "progress":
        monkeypatch.setattr(run_module.json, "dumps", crash)
    elif at == "sync":
        monkeypatch.setattr("melpatch.checkpoint.sync", crash)
    else:
        monkeypatch.setattr(run_module.Path, "replace", crash)
    with pytest.raises(Killed):
        save(run, model, 4)
    monkeypatch.undo()
    assert seen
    assert restored(run) == (2, 2.0)


def test_what_a_kill_left_half_written_is_passed_over_and_cleared(run, model):
    save(run, model, 2)
    half = run.folder / "resume" / ".step-000000004.77.partial"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    (run.folder / ".model.safetensors.77.partial").write_bytes(b"half")
    assert restored(run) == (2, 2.0)
    save(run, model, 4)
    assert [path for path in run.folder.rglob("*") if path.name.startswith(".")] == []


def test_a_file_that_is_not_ours_is_left_alone(run, model):
    save(run, model, 2)
    (run.folder / "resume" / ".DS_Store").write_bytes(b"")
    save(run, model, 4)
    assert restored(run) == (4, 4.0)
    assert (run.folder / "resume" / ".DS_Store").exists()


def test_published_weights_are_the_weights_to_use(run, model):
    run.publish(model.state_dict())
    back = load_weights(run.folder / "model.safetensors")
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in model.state_dict().items())


# ------------------------------------------------------------------------------------------------------------- lines


def test_lines_after_the_saved_step_and_half_lines_are_cut(run, model):
    for name, log in (("metrics.jsonl", run.log), ("speed.jsonl", run.log_speed)):
        for step in range(1, 7):
            log({"step": step, "loss": step / 3})
        with (run.folder / name).open("a") as file:
            file.write('{"step": 3, "lo')
    save(run, model, 4)
    restored(run)
    for name in ("metrics.jsonl", "speed.jsonl"):
        assert lines(run.folder / name) == [{"step": step, "loss": step / 3} for step in range(1, 5)]


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
    assert [one.path for one in read_rejected(run.folder / "rejected.csv")] == ["a.wav", "b.wav", "c.wav"]
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
    for other in (clips[:2], (*clips[:2], replace(clips[2], labels=("dog",))), (*clips, replace(clips[0], key=9))):
        with pytest.raises(CheckpointError, match="was started on other clips"):
            run.remember(replace(corpus, clips=other))
