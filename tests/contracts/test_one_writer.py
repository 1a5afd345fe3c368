"""Of two processes on one output the second is refused by name, whatever the command."""

from pathlib import Path

import pytest
from contracts.commands_that_write import INTO_A_RUN, READ_ONLY, SERVERS, commands, write_inputs
from filelock import FileLock

from melpatch import cli, only_writer, registry
from melpatch.training import run as run_module

COMMANDS = commands(Path())
LOCKING = [name for name, command in COMMANDS.items() if command.lock]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def test_no_command_is_left_out():
    known = {name.replace("_", "-") for name in registry.all_names("commands")}
    assert {*COMMANDS} | READ_ONLY | INTO_A_RUN | SERVERS == known


@pytest.mark.parametrize("name", LOCKING)
def test_the_second_of_two_is_refused_by_name(name, inputs, tmp_path, monkeypatch, capsys):
    for module in (only_writer, run_module):
        monkeypatch.setattr(module, "_PATIENCE", 0.0)
    command = commands(inputs)[name]
    lock = tmp_path / command.lock
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        before = sorted(tmp_path.rglob("*"))
        assert cli.main(command.at(tmp_path)) == 2
        assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == []
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"melpatch {name}: error: ")
    assert str(tmp_path / command.out) in last
    assert "process" in last
