"""A full disk or no more open files: one line, and the same command again ends as if nothing was."""

import errno
from functools import cache
from pathlib import Path

import pytest
from contracts.commands_that_write import commands, write_inputs
from failing_disk import count_events, failing_from, watched

from melpatch import cli, only_writer
from melpatch.training import run as run_module

# The others train, score or write tables as one of these does.
TRIED = ("prepare", "embed", "evaluate", "pack", "pretrain", "show")
RESUMED = {"embed", "pretrain"}
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
