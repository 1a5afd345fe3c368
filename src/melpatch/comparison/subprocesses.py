"""Run melpatch commands in processes of their own; output and error messages go to a log file.

On Linux each process is forked from a server that has done nothing but import the package, since
the imports alone take longer than scoring some thousand clips whose features are kept.
"""

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Lock

from melpatch.counted import counted
from melpatch.errors import MelpatchError
from melpatch.progress import notice

_INTERRUPTED = (130, -signal.SIGINT)
_IMPORTED_ONCE = [
    "melpatch.commands.pretrain",
    "melpatch.commands.evaluate",
    "sklearn.linear_model",
]


class RunStopped(Exception):  # noqa: N818 - nothing went wrong
    """The comparison was interrupted; no further command is started."""


class Subprocesses:
    """The running commands; they are terminated when the comparison stops."""

    def __init__(self) -> None:
        # A fork of a process that uses frameworks of macOS may crash; Windows has none.
        if sys.platform == "linux":
            self._processes = multiprocessing.get_context("forkserver")
            self._processes.set_forkserver_preload(_IMPORTED_ONCE)
            with _one_thread():
                forkserver.ensure_running()
        else:
            self._processes = multiprocessing.get_context("spawn")
        self._running: set[BaseProcess] = set()
        self._lock = Lock()
        self._stopped = False

    def melpatch(self, words: Sequence[str], log: Path) -> None:
        """Run a melpatch command and wait for it; one thread, unless OMP_NUM_THREADS is set.

        Raises:
            MelpatchError: the command failed; the message is the last line of its log.
            RunStopped: the comparison was interrupted.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        # Checked under the lock, so that stop() sees every process that is started.
        with self._lock, _one_thread():
            if self._stopped:
                raise RunStopped
            process = self._processes.Process(
                target=_run, args=([*words], log, Path.cwd(), [*sys.path])
            )
            process.start()
            self._running.add(process)
        connection.wait([process.sentinel])
        with self._lock:
            # Under the lock too: start() asks after all processes, and an exit code is told once.
            process.join()
            code = process.exitcode
            self._running.discard(process)
            # Ctrl-C in a terminal reaches the command before this process.
            if self._stopped or code in _INTERRUPTED:
                raise RunStopped
        if code:
            raise MelpatchError(_reason(log, code))

    def stop(self) -> None:
        """Terminate the running commands, and refuse to start others."""
        with self._lock:
            self._stopped = True
            if self._running:
                notice(
                    f"stopping {counted(len(self._running), 'command')}; training is saved first"
                )
            for process in self._running:
                process.terminate()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have processes that are started in the body take one thread, unless the user says otherwise.

    Numerical libraries read the variable when they are loaded, before a command begins.
    """
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


def _run(words: list[str], log: Path, folder: Path, modules: list[str]) -> None:
    """Be the process of a command that is typed in a folder."""
    with log.open("ab") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    os.chdir(folder)
    sys.path[:] = modules
    sys.argv = ["melpatch", *words]
    runpy.run_module("melpatch", run_name="__main__")


def _reason(log: Path, code: int) -> str:
    """Return why a command failed: the last line of its log, or the signal that ended it."""
    if code < 0:
        return f"ended by signal {-code}; see {log} (9 may mean that there was not enough memory)"
    text = log.read_text(encoding="utf-8", errors="replace")
    for line in reversed(text.splitlines()):
        if line.strip():
            return line.strip()
    return f"exit code {code}; see {log}"
