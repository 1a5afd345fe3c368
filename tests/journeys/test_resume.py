"""A run is killed, or asked to end, at an unforeseen moment and goes on: what it leaves is, to the byte, what it would
have left."""

import json
import os
import random
import signal
import time

import numpy as np
import pytest
import soundfile
import torch
from forked import Forked

from melpatch.cli import main
from melpatch.objectives.classify import Classify

FLAGS = [
    "pretrain",
    "ssast",
    "--size",
    "nano",
    "--steps",
    "30",
    "--batch-size",
    "4",
    "--seconds",
    "0.5",
]
FLAGS += ["--workers", "0", "--log-every", "1", "--save-every", "5", "--stats-clips", "8"]
FLAGS += ["--evaluations", "3"]


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for number in range(10):
        soundfile.write(
            folder / f"{number}.wav", 0.1 * rng.normal(size=rng.integers(4000, 14000)), 16000
        )
    return folder


def arguments(noise, out, *more):
    return [*FLAGS, "--data", str(noise), "--out", str(out), *more]


def started(noise, out, *more, **how):
    return Forked(arguments(noise, out, *more), **how)


def kill_after(process, metrics, lines, seconds):
    """Kill a process once it has written so many lines, and a moment later still."""
    wait_for(process, metrics, lines)
    time.sleep(seconds)
    process.kill()
    _, told = process.communicate()
    assert process.returncode == -9, told


def wait_for(process, metrics, lines):
    while process.poll() is None and (
        not metrics.exists() or metrics.read_bytes().count(b"\n") < lines
    ):
        time.sleep(0.005)


@pytest.fixture(scope="module")
def whole(noise, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(arguments(noise, out)) == 0
    return out


def test_a_killed_run_goes_on_as_if_it_had_not_been(noise, whole, tmp_path):
    out, lines, moment = tmp_path / "run", random.randint(1, 15), random.uniform(0, 0.1)
    kill_after(
        started(noise, out, "--resume"), out / "metrics.jsonl", lines, moment
    )  # of a folder that holds no run
    assert main(arguments(noise, out, "--resume")) == 0
    for name in ("metrics.jsonl", "model.safetensors", "config.toml"):
        same = (out / name).read_bytes() == (whole / name).read_bytes()
        assert same, f"{name} differs when killed {moment} s after {lines} lines"
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 31))
    assert sorted(path.name for path in (out / "resume").iterdir()) == [
        "step-000000025",
        "step-000000030",
    ]
    assert len(json.loads((out / "environment.json").read_text())) == 2


def test_a_run_that_gets_sigterm_saves_and_goes_on_as_if_it_had_not(noise, whole, tmp_path):
    """As a scheduler sends it, to the workers too."""
    out = tmp_path / "run"
    process = started(noise, out, "--workers", "1", session=True)
    wait_for(process, out / "metrics.jsonl", 7)
    os.killpg(process.pid, signal.SIGTERM)
    _, told = process.communicate()
    assert process.returncode == 143, told
    last = told.splitlines()[-1]
    step = max(
        json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()
    )
    assert last.startswith(
        f"melpatch pretrain: {out}: stopped by SIGTERM and saved after step {step} of 30; "
    )
    assert "Traceback" not in told
    assert (out / "resume" / f"step-{step:09d}").is_dir()
    words = ["pretrain", "ssast", "--out", str(out), "--resume"]
    assert main(words) == 0
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_a_folder_that_may_not_be_written_is_refused_before_anything_is_read(
    tmp_path, monkeypatch, capsys, more
):
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.F_OK)
    assert (
        main(
            [
                "pretrain",
                "ssast",
                "--data",
                str(tmp_path / "missing"),
                "--out",
                str(tmp_path),
                *more,
            ]
        )
        == 2
    )
    told = f"{tmp_path}: cannot be written; make it writable, or give another --out\n"
    assert capsys.readouterr().err == f"melpatch pretrain: error: {told}"


def test_flags_may_be_left_out_when_a_run_goes_on(whole, capsys):
    before = {path: path.read_bytes() for path in whole.rglob("*.safetensors")}
    assert main(["pretrain", "ssast", "--out", str(whole), "--resume"]) == 0
    assert {path: path.read_bytes() for path in whole.rglob("*.safetensors")} == before
    assert f"done: {whole}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ("--lr 0.5", "--lr = 0.5"),
        ("--objective.mask-ratio 0.5", "--objective.mask-ratio = 0.5"),
        ("--size mini", "--size = 'mini'"),
        ("--stats-clips 9", "--stats-clips = 9"),
        ("--exclude-splits x y", "--exclude-splits = ['x', 'y']"),
    ],
)
def test_a_flag_that_differs_from_the_runs_is_refused_in_one_line(
    noise, whole, capsys, flags, named
):
    before = (whole / "metrics.jsonl").read_bytes()
    assert main(["pretrain", "ssast", "--out", str(whole), "--resume", *flags.split()]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"{named}, but {whole} was started with" in told
    assert "leave the flag out, or start a new run with another --out" in told
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_another_recipe_cannot_go_on_with_a_run(whole, capsys):
    assert main(["pretrain", "ssast_patch", "--out", str(whole), "--resume"]) == 2
    assert "--recipe = 'ssast_patch', but" in capsys.readouterr().err


def test_a_folder_that_holds_a_run_is_not_overwritten(noise, whole, capsys):
    assert main([*FLAGS, "--data", str(noise), "--out", str(whole)]) == 2
    assert f"{whole}: holds a run already; add --resume to continue it" in capsys.readouterr().err


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["in a step", "in the first save"])
def test_a_fine_tuning_stopped_by_ctrl_c_goes_on_with_what_it_had(
    noise, whole, tmp_path, monkeypatch, capsys, where
):
    """Which clips train, and from which weights, is settled by flags of the command; none need be given again."""
    rows = [
        f"{number}.wav,{'ab'[number % 2]},{'val' if number > 7 else number % 4}"
        for number in range(10)
    ]
    (noise / "labels.csv").write_text("\n".join(["path,label,split", *rows]))
    flags = "--test-fold 3 --labels-per-class 2 --steps 8 --save-every 3 --log-every 1 "
    flags += "--batch-size 2 --seconds 0.5 --workers 0"
    words = ["finetune", "--data", str(noise / "labels.csv"), "--init", str(whole), *flags.split()]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        if where == "in a step":
            patch.setattr(Classify, "after_step", lambda _, step: step == 4 and interrupt())
        else:
            patch.setattr(torch, "save", interrupt)
        assert main([*words, "--out", str(tmp_path / "stopped")]) == 130
    assert main(["finetune", "--out", str(tmp_path / "stopped"), "--resume"]) == 0
    for name in ("metrics.jsonl", "model.safetensors", "corpus.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (
            tmp_path / "whole" / name
        ).read_bytes()
    assert (
        main(
            ["finetune", "--out", str(tmp_path / "stopped"), "--resume", "--labels-per-class", "1"]
        )
        == 2
    )
    assert "--labels-per-class = 1, but" in capsys.readouterr().err
