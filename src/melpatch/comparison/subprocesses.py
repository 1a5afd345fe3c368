"""Commands in processes of their own: their output goes to a log, and what they failed of is read there."""

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
    """The running commands, which end when the comparison does."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock, self._stopped = Lock(), False

    def melpatch(self, words: Sequence[str], log: Path) -> None:
        """Run a melpatch command to its end, on one thread unless OMP_NUM_THREADS says otherwise.

        Raises:
            MelpatchError: it failed; the message is its last line.
            RunStopped: the comparison was interrupted.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
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
            if (
                self._stopped or code in _INTERRUPTED
            ):  # a terminal's Ctrl-C reaches the command before it reaches us
                raise RunStopped
        if code:
            raise MelpatchError(_reason(log, code))

    def stop(self) -> None:
        """End what is running, and start nothing more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()


def _reason(log: Path, code: int) -> str:
    """Return what a command failed of: the last line of its log."""
    if code < 0:
        return f"ended by signal {-code}; see {log} (9 may mean that there was not enough memory)"
    lines = [
        line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    return next((line for line in reversed(lines) if line), f"exit code {code}; see {log}")
