"""Commands in processes of their own: logged, their failure told in a line, and ended with the comparison."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from melpatch.comparison.subprocesses import RunStopped, Subprocesses
from melpatch.errors import MelpatchError


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a command of one's own, and return its name; processes find it as this one would."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(body):
        lines = ["import dataclasses, os, signal, sys, time", "from pathlib import Path"]
        lines += ["@dataclasses.dataclass(frozen=True)", "class Config: ...", "def run(config):"]
        lines += [f"    {line}" for line in body.split("\n")]
        name = f"own_{len([*tmp_path.glob('own_*.py')])}"
        lines += ["it = sys.modules[__name__]"]
        (tmp_path / f"{name}.py").write_text("\n".join(lines) + "\n")
        return f"{name}:it"

    return write


def test_a_command_is_run_and_logged(tmp_path):
    Subprocesses().melpatch(["--version"], tmp_path / "logs" / "a.log")
    assert (tmp_path / "logs" / "a.log").read_text().startswith("melpatch ")


def test_a_failure_is_the_last_line_of_the_log(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("an earlier try\n")
    with pytest.raises(MelpatchError, match=r"^melpatch nope: error: no command is called 'nope'"):
        Subprocesses().melpatch(["nope"], log)
    assert log.read_text().startswith("an earlier try\nmelpatch nope:")


def test_commands_see_what_is_typed_where(tmp_path, written, monkeypatch):
    command = written("print(Path.cwd(), sys.argv)")
    monkeypatch.chdir(tmp_path)
    Subprocesses().melpatch([command], tmp_path / "a.log")
    assert (tmp_path / "a.log").read_text() == f"{tmp_path} ['melpatch', '{command}']\n"


THREADS = """
import sys, os
from pathlib import Path
from melpatch.comparison import subprocesses
if __name__ == "__main__":
    before = dict(os.environ)
    subprocesses._IMPORTED_ONCE[:] = ["torch"]
    subprocesses.Subprocesses().melpatch([sys.argv[1]], Path(sys.argv[2]))
    assert os.environ == before
"""


@pytest.mark.parametrize("given", [None, "3"])
def test_one_thread_unless_told_otherwise(tmp_path, written, monkeypatch, given):
    # Of the process, before it imports anything of its own.
    command = written("print(os.environ['OMP_NUM_THREADS'])")
    (tmp_path / "start.py").write_text(THREADS)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    words = [sys.executable, tmp_path / "start.py", command, tmp_path / "a.log"]
    subprocess.run(words, check=True)
    assert (tmp_path / "a.log").read_text() == f"{given or 1}\n"


def test_an_end_by_a_signal_is_told(tmp_path, written):
    command = written("os.kill(os.getpid(), 9)")
    with pytest.raises(MelpatchError, match=r"ended by signal 9; see .*a\.log .*not enough memory"):
        Subprocesses().melpatch([command], tmp_path / "a.log")


# What is started in the background ignores SIGINT unless it says otherwise.
INTERRUPTED = "signal.signal(2, signal.{})\nos.kill(os.getpid(), 2)\ntime.sleep(60)"


@pytest.mark.parametrize("handler", ["default_int_handler", "SIG_DFL"], ids=["130", "signal"])
def test_an_interrupted_command_has_not_failed(tmp_path, written, handler):
    with pytest.raises(RunStopped):
        Subprocesses().melpatch([written(INTERRUPTED.format(handler))], tmp_path / "a.log")


def test_stopping_ends_what_runs_and_starts_nothing_more(tmp_path, written, capfd):
    command = written("print('started', flush=True)\ntime.sleep(60)")
    processes, log = Subprocesses(), tmp_path / "a.log"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(processes.melpatch, [command], log)
        while not (log.exists() and log.read_text()):
            time.sleep(0.01)
        assert not running.done()
        processes.stop()
        with pytest.raises(RunStopped):
            running.result()
    assert capfd.readouterr().err == "stopping 1 command; training is saved first\n"
    assert "started\n" in log.read_text()
    assert "stopped by SIGTERM" in log.read_text()
    with pytest.raises(RunStopped):
        processes.melpatch([command], tmp_path / "b.log")
    assert (tmp_path / "b.log").read_text() == ""


def test_exit_codes_of_many_at_once_are_told_apart(tmp_path, written):
    """Starting one asks the system after all others, which must not take the code that is waited for."""
    good, bad = written("pass"), written("os._exit(7)")
    processes = Subprocesses()

    def code(number):
        try:
            processes.melpatch([bad if number % 3 else good], tmp_path / f"{number}.log")
        except MelpatchError as error:
            return str(error).split(";")[0]
        return "0"

    with ThreadPoolExecutor(8) as pool:
        told = [*pool.map(code, range(40))]
    assert told == ["exit code 7" if number % 3 else "0" for number in range(40)]
