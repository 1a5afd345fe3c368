"""``melpatch compare``: a whole small comparison, once; then nothing is done twice, and what fails is told."""

import csv
import json
import os
import re
import shlex
import shutil
import time

import pytest
from clocks import tick
from journeys.three_sounds import SHORT, SMALL, melpatch, write_corpus

from melpatch import cli
from melpatch.comparison import subprocesses
from melpatch.comparison.results import locked
from melpatch.comparison.spec import shipped
from melpatch.errors import MelpatchError
from melpatch.training import speed

SPEC = f"""
title = "Two ways"

[[methods]]
name = "random"
trained = false

[[methods]]
name = "masked"
recipe = "maskspec"

[[budgets]]
name = "small"
sizes = ["nano"]
recipe = "ssast"
flags = "{shlex.join((*SHORT, *SMALL, "--stats-clips", "3", "--evaluations", "1"))}"
steps = [2]
seeds = [0, 1]
protocols = ["knn k=3", "linear"]
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with sounds and a spec."""
    folder = tmp_path_factory.mktemp("here")
    write_corpus(folder / "sounds")
    (folder / "two.toml").write_text(SPEC)
    return folder


@pytest.fixture(scope="module")
def asked(here):
    """The words of a comparison of two methods on two tasks."""
    corpus = here / "sounds" / "corpus.csv"
    tasks = f"three={corpus}", f"held={corpus}:split:val"
    return ("compare", here / "two.toml", "--data", corpus, "--no-floors", "--task", *tasks)


class Here:
    """Commands in this process, which starts faster; what was run is noted."""

    def __init__(self):
        self.ran = []

    def melpatch(self, words, log):
        self.ran.append(words)
        module, config = cli.parse(words[0], words[1:])
        module.run(config)

    def stop(self):
        """Nothing is running."""


@pytest.fixture
def commands(monkeypatch):
    started = []

    def start():
        started.append(Here())
        return started[-1]

    monkeypatch.setattr("melpatch.comparison.work.Subprocesses", start)
    return started


@pytest.fixture(scope="module")
def done(here, asked):
    """A comparison that was carried out, and its commands."""
    with pytest.MonkeyPatch.context() as patch:
        one = Here()
        patch.setattr("melpatch.comparison.work.Subprocesses", lambda: one)
        tick(patch, speed)
        melpatch(*asked, "--out", here / "out")
    return here / "out", one.ran


def fails(*words):
    """Run a command that tells the user of something to put right."""
    assert cli.main([str(word) for word in words]) == 2


def lines(out):
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def rows(out):
    with (out / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_floors_stand_beside_the_scores_and_are_measured_when_they_are_asked_for(
    here, commands, tmp_path
):
    corpus = here / "sounds" / "corpus.csv"
    asked = ("compare", here / "two.toml", "--data", corpus, "--task", f"three={corpus}")
    asked = (*asked, "--only", "masked", "--seeds", "0", "--protocol", "knn k=3", "--out", tmp_path)
    melpatch(*asked, "--no-floors")
    assert not (tmp_path / "floors.csv").exists()
    melpatch(*asked)
    melpatch(*asked)
    # What is pretrained stays, and the score is made once more, with its floors.
    assert [[words[0] for words in one.ran] for one in commands] == [
        ["pretrain", "evaluate"],
        ["evaluate"],
        [],
    ]
    with (tmp_path / "floors.csv").open(newline="") as file:
        found = {row["floor"]: row for row in csv.DictReader(file)}
    expected = ["majority class", "log-mel statistics", "MFCC statistics", "random weights"]
    assert [*found] == expected
    (score,) = (float(row["value"]) for row in rows(tmp_path) if row["method"] == "masked")
    for floor in found.values():
        assert float(floor["value"]) + float(floor["gain"]) == pytest.approx(score)
    told = (tmp_path / "table.md").read_text()
    assert all(f"| {name} | - |" in told for name in expected[:3])
    assert "| masked | 2 steps | random weights |" in told


def test_every_cell_is_made_once(done):
    out, ran = done
    assert [words[0] for words in ran] == ["pretrain", *["evaluate"] * 4] * 4
    assert len(lines(out)) == 20
    assert not any("error" in line for line in lines(out))
    found = rows(out)
    names = [
        (row["method"], row["budget"], row["task"], row["protocol"], row["seeds"]) for row in found
    ]
    assert names == [
        (method, budget, task, protocol, "2")
        for method, budget in (("random", "none"), ("masked", "2 steps"))
        for task in ("three", "held")
        for protocol in ("knn k=3", "linear")
    ]
    assert [row["n"] for row in found] == ["6", "6", "3", "3"] * 2
    assert {row["steps"] for row in found} == {"0.0", "2.0"}
    cpu_seconds = {row["method"]: set() for row in found}
    for row in found:
        cpu_seconds[row["method"]].add(float(row["cpu_seconds"]))
    assert cpu_seconds == {"random": {0.0}, "masked": {2.0}}  # two steps of a second each
    assert (
        (out / "table.md")
        .read_text()
        .startswith(
            "**Two ways (small); pretrained on sounds/corpus; "
            "scored on three of sounds/corpus, held of sounds/corpus (val)**"
        )
    )
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_scores_are_those_that_evaluate_wrote(done):
    out, _ = done
    for row in rows(out):
        scored = [
            line
            for line in lines(out)
            if all(line.get(name) == row[name] for name in ("method", "task", "protocol"))
        ]
        assert [line["seed"] for line in scored] == [0, 1]
        values = []
        for line in scored:
            (path,) = (out / "scores" / line["folder"]).glob("*/scores.json")
            record = json.loads(path.read_text())
            assert (record["seeds"], record["settings"].get("k", 3)) == ([line["seed"]], 3)
            assert (record["initialisation"] == "random weights") == (row["method"] == "random")
            values.append(record["value"])
        assert float(row["value"]) == pytest.approx(sum(values) / 2)


def test_nothing_is_done_twice_and_more_seeds_add_to_it(done, asked, commands):
    out, _ = done
    melpatch(*asked, "--out", out)
    melpatch(
        *asked, "--out", out, "--seeds", "0", "1", "2", "--only", "random", "--protocol", "linear"
    )
    assert commands[0].ran == []
    assert [words[0] for words in commands[1].ran] == ["pretrain", "evaluate", "evaluate"]
    assert {(row["method"], row["protocol"], row["seeds"]) for row in rows(out)} == {
        ("random", "linear", "3"),
        ("masked", "linear", "2"),
    }
    assert all(bool(row["seeds_95"]) == (row["seeds"] == "3") for row in rows(out))


def test_a_budget_of_seconds_is_as_many_steps_as_it_pays_for(
    asked, tmp_path, commands, monkeypatch
):
    tick(monkeypatch, speed)
    words = (
        "--cpu-seconds",
        "3.2",
        "--only",
        "masked",
        "--seeds",
        "0",
        "--protocol",
        "linear",
        "--jobs",
        "2",
    )
    melpatch(*asked, "--out", tmp_path, *words)
    cost, run, *_ = lines(tmp_path)
    assert cost["cpu_seconds_per_step"] == 1.0
    assert run["steps"] == 3
    assert run["passes"] == pytest.approx(6 * run["steps"] / 9, abs=0.01)
    assert not any((tmp_path / "costs").iterdir())
    assert "| masked | 3.2 CPU-s |" in (tmp_path / "table.md").read_text()
    assert len(commands[0].ran) == 4


def test_a_step_is_priced_while_nothing_else_runs(asked, tmp_path, commands, monkeypatch):
    spec, busy, most = tmp_path / "more.toml", [], []
    spec.write_text(SPEC.replace("trained = false", ""))  # two methods to price

    def counted(self, words, log):
        busy.append(words)
        most.append(len(busy))
        time.sleep(0.1)
        busy.remove(words)
        raise MelpatchError("no luck")

    monkeypatch.setattr(Here, "melpatch", counted)
    out = tmp_path / "out"
    fails("compare", spec, *asked[2:], "--out", out, "--cpu-seconds", "1", "--jobs", "2")
    assert most == [1, 1]


def test_cpu_seconds_are_no_budget_on_a_gpu(asked, tmp_path, commands, monkeypatch):
    monkeypatch.setattr("melpatch.comparison.work._gpu", lambda folder: "a GPU")
    fails(*asked, "--out", tmp_path, "--cpu-seconds", "1", "--only", "masked", "--seeds", "0")
    told = (tmp_path / "table.md").read_text()
    assert "cpu_seconds: not measured on a GPU (a GPU); give --steps or --epochs" in told
    assert len(commands[0].ran) == 1
    assert not any((tmp_path / "costs").iterdir())


def test_epochs_stand_in_the_place_of_the_steps_of_the_spec(asked, tmp_path, capsys):
    melpatch(*asked, "--epochs", "0.5", "2", "--only", "masked", "--seeds", "0", "--dry-run")
    runs = [
        line
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("melpatch pretrain")
    ]
    assert [re.search(r" (--epochs \S+) --seed", run)[1] for run in runs] == [
        "--epochs 0.5",
        "--epochs 2",
    ]
    assert not any("--steps" in run.partition("--epochs")[2] for run in runs)


def test_a_folder_at_work_is_left_to_its_process(asked, tmp_path, commands, capsys):
    with locked(tmp_path):
        assert cli.main([str(word) for word in (*asked, "--out", tmp_path)]) == 2
    assert f"{tmp_path}: process {os.getpid()} is comparing there" in capsys.readouterr().err
    assert not commands


def test_what_fails_is_told_and_tried_again(here, asked, tmp_path, commands, monkeypatch, capsys):
    real = Here.melpatch

    def failing(self, words, log):
        if words[:2] == ["pretrain", "maskspec"] or "val" in words:
            self.ran.append(words)
            raise MelpatchError(f"no luck with {words[0]}")
        real(self, words, log)

    monkeypatch.setattr(Here, "melpatch", failing)
    fails(*asked, "--out", tmp_path, "--seeds", "0", "--protocol", "knn")
    told, errors = capsys.readouterr()
    assert errors.splitlines()[-1] == (
        f"melpatch compare: error: {tmp_path}: no result of random, nano, none, seed 0, on held by knn; "
        "masked, nano, 2 steps, seed 0; table.md there gives the reasons, the same command tries again"
    )
    assert re.search(
        r"\| random \| none \| 0 \| 0 \| 0 \| [01]\.\d+ \[.*\] balanced [01]\.\d+ \| failed \[1\] \|",
        told,
    )
    assert "| masked | 2 steps | - | - | - | failed [2] | failed [2] |" in told
    assert "- failed [1]: no luck with evaluate\n- failed [2]: no luck with pretrain\n" in told
    assert "there is no score of a trained network" not in told
    monkeypatch.setattr(Here, "melpatch", real)
    melpatch(*asked, "--out", tmp_path, "--seeds", "0", "--protocol", "knn")
    assert [words[0] for words in commands[1].ran] == [
        "evaluate",
        "pretrain",
        "evaluate",
        "evaluate",
    ]
    assert "failed" not in capsys.readouterr().out


def test_an_interruption_is_no_failure_and_the_rest_is_done_later(
    asked, tmp_path, commands, monkeypatch
):
    real = Here.melpatch

    def interrupted(self, words, log):
        if words[0] == "evaluate":
            raise subprocesses.RunStopped
        real(self, words, log)

    monkeypatch.setattr(Here, "melpatch", interrupted)
    few = ("--seeds", "0", "--protocol", "knn", "--only", "random")
    fails(*asked, "--out", tmp_path, *few)
    assert len(lines(tmp_path)) == 1
    monkeypatch.setattr(Here, "melpatch", real)
    melpatch(*asked, "--out", tmp_path, *few)
    assert [words[0] for words in commands[1].ran] == ["evaluate", "evaluate"]


def test_a_run_that_is_gone_is_trained_again_for_the_scores_it_lacks(
    asked, tmp_path, commands, capsys
):
    few = ("--out", tmp_path, "--seeds", "0", "--protocol")
    melpatch(*asked, *few, "knn")
    shutil.rmtree(tmp_path / "runs")
    melpatch(*asked, *few, "knn")
    assert not commands[1].ran, "nothing is missing"
    capsys.readouterr()
    melpatch(*asked, *few, "linear", "--only", "masked")
    assert [words[0] for words in commands[2].ran] == ["pretrain", "evaluate", "evaluate"]
    assert "is gone, and trained again for scores that it lacks" in capsys.readouterr().err


def test_nothing_is_lost_where_a_run_that_is_gone_cannot_be_trained_again(
    asked, tmp_path, commands, monkeypatch, capsys
):
    real, few = Here.melpatch, ("--out", tmp_path, "--seeds", "0", "--only", "masked")
    melpatch(*asked, *few, "--protocol", "knn")
    shutil.rmtree(tmp_path / "runs")

    def failing(self, words, log):
        # While it is trained, the table still has what is known.
        assert "| masked | 2 steps |" in (tmp_path / "table.md").read_text()
        raise MelpatchError(f"no luck with {words[0]}")

    monkeypatch.setattr(Here, "melpatch", failing)
    fails(*asked, *few, "--protocol", "knn", "linear")
    told = (tmp_path / "table.md").read_text()
    assert "is gone, and cannot be trained again: no luck with pretrain" in told
    assert not [line for line in lines(tmp_path) if "task" not in line and "error" in line]
    monkeypatch.setattr(Here, "melpatch", real)
    melpatch(*asked, *few, "--protocol", "knn")
    assert not commands[-1].ran
    assert len(rows(tmp_path)) == 2


def test_two_names_of_one_method_that_are_gone_are_trained_again(here, asked, tmp_path, commands):
    spec = tmp_path / "twice.toml"
    spec.write_text(
        SPEC.replace('name = "masked"\nrecipe = "maskspec"', 'name = "again"\ntrained = false')
    )
    words = (asked[0], spec, *asked[2:], "--out", tmp_path / "out", "--seeds", "0", "--protocol")
    melpatch(*words, "knn")
    shutil.rmtree(tmp_path / "out" / "runs")
    melpatch(*words, "linear")
    assert {row["method"] for row in rows(tmp_path / "out")} == {"random", "again"}


def test_a_dry_run_shows_commands_that_can_be_read(asked, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    melpatch(*asked, "--dry-run")
    shown = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [words[1] for words in shown] == ["pretrain", *["evaluate"] * 4] * 4
    for words in shown[:6]:
        assert words[0] == "melpatch"
        cli.parse(words[1], words[2:])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--only", "nobody"), "--only nobody; allowed: random, masked"),
        (("--budget", "huge"), "--budget huge; allowed: small"),
        (("--protocol", "knn l=3"), "set = 'l'; allowed: the settings of knn"),
        (("--protocol", "nearest"), "unknown protocol 'nearest'"),
        (("--recipe", "nope"), "unknown recipe or objective 'nope'"),
        (
            ("--steps", "2", "--cpu-seconds", "1"),
            "steps and cpu_seconds = [(2,), (1.0,)]; allowed: only one of these lists",
        ),
        (
            ("--steps", "2", "--epochs", "1"),
            "steps and epochs = [(2,), (1.0,)]; allowed: only one of these lists",
        ),
        (
            ("--exclude-splits", "val"),
            "is scored by three but pretrained on; keep its split (test) out with --exclude-splits",
        ),
        (("--jobs", "0"), "--jobs 0; allowed: 1 to "),
    ],
)
def test_what_cannot_be_compared_is_exit_code_2_before_anything_is_done(
    asked, tmp_path, capsys, words, message
):
    assert cli.main([str(word) for word in (*asked, "--out", tmp_path / "out", *words)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_flag_that_no_pretraining_has_is_refused_with_its_method(here, asked, tmp_path, capsys):
    spec = tmp_path / "bad.toml"
    spec.write_text(
        SPEC.replace('name = "masked"', 'name = "masked"\nflags = "--objective.nothing 3"')
    )
    assert cli.main(["compare", str(spec), *map(str, asked[2:])]) == 2
    assert "method 'masked': melpatch pretrain cannot read maskspec" in capsys.readouterr().err


def test_without_a_spec_the_shipped_ones_are_listed(capsys):
    melpatch("compare")
    told = capsys.readouterr().out
    assert all(name in told and spec.title in told for name, spec in shipped().items())


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_comparison_can_be_started(here, name, tmp_path, monkeypatch, capsys):
    """At each of its scales: its recipes, flags and protocols exist."""
    monkeypatch.chdir(tmp_path)
    corpus = here / "sounds" / "corpus.csv"
    for budget in shipped()[name].budgets:
        melpatch(
            "compare",
            name,
            "--budget",
            budget.name,
            "--data",
            corpus,
            "--task",
            f"three={corpus}",
            "--dry-run",
        )
        shown = capsys.readouterr().out
        assert all(size in shown for size in budget.sizes)


def test_every_shipped_comparison_has_the_scales_it_is_known_by():
    known = {
        "recipe-ablation",
        "corruption-share",
        "alignment",
        "mask-count",
        "pretext",
        "init",
        "size",
    }
    assert known <= shipped().keys()
    assert all(
        [one.name for one in shipped()[name].budgets] == ["small", "paper"] for name in known
    )
    assert len(shipped()["recipe-ablation"].methods) == 8
