"""Run melpatch commands as subprocesses; output and error messages go to a log file."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from melpatch.errors import MelpatchError

_INTERRUPTED = (130, -signal.SIGINT)


class RunStopped(Exception):  # noqa: N818 - nothing went wrong
    """The comparison was interrupted; no further command is started."""


class Subprocesses:
    """The running commands; they are terminated when the comparison stops."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = Lock()
        self._stopped = False

    def melpatch(self, words: Sequence[str], log: Path) -> None:
        """Run a melpatch command and wait for it; one thread, unless OMP_NUM_THREADS is set.

        Raises:
            MelpatchError: the command failed; the message is the last line of its log.
            RunStopped: the comparison was interrupted.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            # Checked under the lock, so that stop() sees every process that is started.
            with self._lock:
                if self._stopped:
                    raise RunStopped
                process = subprocess.Popen(
                    [sys.executable, "-m", "melpatch", *words],
                    env={"OMP_NUM_THREADS": "1", **os.environ},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
                self._running.add(process)
            code = process.wait()
        with self._lock:
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
            for process in self._running:
                process.terminate()


def _reason(log: Path, code: int) -> str:
    """Return why a command failed: the last line of its log, or the signal that ended it."""
    if code < 0:
        return f"ended by signal {-code}; see {log} (9 may mean that there was not enough memory)"
    text = log.read_text(encoding="utf-8", errors="replace")
    for line in reversed(text.splitlines()):
        if line.strip():
            return line.strip()
    return f"exit code {code}; see {log}"
