"""A full disk or no more open files: one line, and the same command again ends as if nothing was."""

import errno
from functools import cache
from pathlib import Path

import pytest
from contracts.commands_that_write import InThisProcess, Writing, commands, write_inputs
from failing_disk import count_events, failing_from, watched

from melpatch import cli, only_writer
from melpatch.training import run as run_module

# The others train, score or write tables as one of these does.
TRIED = ("prepare", "embed", "index", "evaluate", "pack", "pretrain", "finetune", "show")
RESUMED = {"embed", "index", "pretrain", "finetune"}
# Files that name the machine, the process or the time.
VARYING = {
    *("environment.json", "speed.jsonl", "command.toml", "scores.json", "test-0.npz"),
    *("lock", "curve.png"),
}
FULL = frozenset({"write", "os.mkdir", "os.rename"})
FAULTS = {
    "full disk": (errno.ENOSPC, FULL, 0.5),
    "full disk at the end": (errno.EDQUOT, FULL, 0.7),
    "no more open files": (errno.EMFILE, frozenset({"write", "read"}), 0.4),
}
# Commands that carry out others, which end as those above: a fault in the first and in the last of these.
OF_SEVERAL = {
    "compare, full disk": ("compare", errno.ENOSPC, FULL, 0.3),
    "compare, too large a file": ("compare", errno.EFBIG, FULL, 0.8),
    "demo, full disk": ("demo", errno.ENOSPC, FULL, 0.5),
    "demo, no more open files": ("demo", errno.EMFILE, frozenset({"write", "read"}), 0.8),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Inputs, and what a command makes of them with the number of events on the way."""
    inputs = write_inputs(tmp_path_factory.mktemp("inputs"))

    @cache
    def outcome(name, kinds):
        folder = tmp_path_factory.mktemp(name)
        words = commands(inputs)[name].at(folder)
        return count_events(folder, kinds, lambda: cli.main(words)), content(folder)

    return inputs, outcome


def content(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder by their names; those that vary are empty."""
    return {
        path.relative_to(folder).as_posix(): b"" if path.name in VARYING else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", TRIED)
def test_a_fault_is_one_line_and_the_command_can_be_run_again(
    name, fault, undisturbed, tmp_path, monkeypatch, capsys
):
    for module in (only_writer, run_module):
        monkeypatch.setattr(module, "_PATIENCE", 0.0)
    inputs, outcome = undisturbed
    number, kinds, place = FAULTS[fault]
    count, whole = outcome(name, kinds)
    words = commands(inputs)[name].at(tmp_path)
    capsys.readouterr()
    with watched(tmp_path, failing_from(int(place * count), kinds, number)):
        assert cli.main(words) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"melpatch {name}: error: ")
    assert "defect" not in last
    assert cli.main([*words, *(["--resume"] if name in RESUMED else [])]) == 0
    assert content(tmp_path) == whole


@pytest.fixture(scope="module")
def of_several(undisturbed):
    """The words of commands that carry out others, up to the flag and name of their output."""
    inputs, _ = undisturbed
    clips = (inputs / "sounds" / "corpus.csv").read_text(encoding="utf-8").splitlines()
    paths = "\n".join(line.split(",")[0] for line in clips)
    (inputs / "sounds" / "unlabelled.csv").write_text(f"{paths}\n", encoding="utf-8")
    data = str(inputs / "sounds" / "unlabelled.csv")
    demo = ("demo", "--data", data, "--size", "nano", "--pretrain-steps", "2")
    return {"compare": commands(inputs)["compare"], "demo": Writing(demo, "--out", "demo")}


@pytest.mark.parametrize(("name", "number", "kinds", "place"), OF_SEVERAL.values(), ids=OF_SEVERAL)
def test_a_fault_in_one_of_several_commands_costs_that_one(
    name, number, kinds, place, of_several, tmp_path, monkeypatch, capsys
):
    for module in (only_writer, run_module):
        monkeypatch.setattr(module, "_PATIENCE", 0.0)
    monkeypatch.setattr("melpatch.comparison.work.Subprocesses", InThisProcess)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    count = count_events(whole, kinds, lambda: cli.main(of_several[name].at(whole)))
    words = of_several[name].at(cut)
    capsys.readouterr()
    with watched(cut, failing_from(int(place * count), kinds, number)):
        assert cli.main(words) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"melpatch {name}: error: ")
    assert "defect" not in last
    assert cli.main(words) == 0
    assert weights(cut) == weights(whole) != {}
    assert {*content(cut)} == {*content(whole)}


def weights(folder: Path) -> dict[str, bytes]:
    """Return the weights that training has left."""
    return {name: data for name, data in content(folder).items() if name.endswith(".safetensors")}
