"""Commands in processes of their own: logged, their failure told in a line, and ended with the comparison."""

import stat
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from melpatch.comparison.subprocesses import RunStopped, Subprocesses
from melpatch.errors import MelpatchError


def test_a_command_is_run_and_logged(tmp_path):
    Subprocesses().melpatch(["--version"], tmp_path / "logs" / "a.log")
    assert (tmp_path / "logs" / "a.log").read_text().startswith("melpatch ")


def test_a_failure_is_the_last_line_of_the_log(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("an earlier try\n")
    with pytest.raises(MelpatchError, match=r"^melpatch nope: error: no command is called 'nope'"):
        Subprocesses().melpatch(["nope"], log)
    assert log.read_text().startswith("an earlier try\nmelpatch nope:")


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """Put a shell script in the place of Python."""

    def write(text):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(path))

    return write


def test_one_thread_unless_told_otherwise(tmp_path, scripted, monkeypatch):
    scripted('echo "$OMP_NUM_THREADS $*"')
    for number, given in enumerate((None, "3")):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        Subprocesses().melpatch(["show", "x"], tmp_path / f"{number}.log")
        assert (tmp_path / f"{number}.log").read_text() == f"{given or 1} -m melpatch show x\n"


def test_an_end_by_a_signal_is_told(tmp_path, scripted):
    scripted("kill -9 $$")
    with pytest.raises(MelpatchError, match=r"ended by signal 9; see .*a\.log .*not enough memory"):
        Subprocesses().melpatch([], tmp_path / "a.log")


# A shell that was started in the background ignores SIGINT, and so do its children unless they say otherwise.
INTERRUPTED = f'exec {sys.executable} -c "import os, signal; signal.signal(2, signal.SIG_DFL); os.kill(os.getpid(), 2)"'


@pytest.mark.parametrize("text", ["exit 130", INTERRUPTED], ids=["130", "signal"])
def test_an_interrupted_command_has_not_failed(tmp_path, scripted, text):
    scripted(text)
    with pytest.raises(RunStopped):
        Subprocesses().melpatch([], tmp_path / "a.log")


def test_stopping_ends_what_runs_and_starts_nothing_more(tmp_path, scripted):
    scripted("trap 'echo ended; kill $!; exit 1' TERM; sleep 60 & echo started; wait")
    processes, log = Subprocesses(), tmp_path / "a.log"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(processes.melpatch, [], log)
        while not (log.exists() and log.read_text()):
            time.sleep(0.01)
        assert not running.done()
        processes.stop()
        with pytest.raises(RunStopped):
            running.result()
    assert log.read_text() == "started\nended\n"
    with pytest.raises(RunStopped):
        processes.melpatch([], tmp_path / "b.log")
    assert (tmp_path / "b.log").read_text() == ""
