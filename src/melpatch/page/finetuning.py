"""Training the encoder on the answers: the command that the page shows, run in a process of its own."""

import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from melpatch.errors import ConfigError, one_line
from melpatch.search.index import Index

LOG = "finetune.log"
"""What the latest training printed, in the folder of the index."""
_TAIL_BYTES = 4096
_PATIENCE = 30.0  # seconds in which a training that is told to stop saves and ends


class Finetuning:
    """One training at a time, which outlives the page in the browser but not the server.

    Args:
        index: where the run and the log are written.
        labels: the file of answers.
        run: the run to start from; None: the one that made the index.
        trust_code: whether the run may name code outside melpatch.
    """

    def __init__(
        self, index: Index, labels: Path, run: Path | None = None, trust_code: bool = False
    ) -> None:
        self._folder = index.folder
        self._labels = labels
        self._run = index.identity.run if run is None else str(run)
        self._trust_code = trust_code
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._words = self._command()

    def _command(self) -> list[str]:
        """Return the command, with a folder that does not exist yet."""
        number = 1
        out = self._folder / "finetuned"
        while out.exists():
            number += 1
            out = self._folder / f"finetuned-{number}"
        words = ["finetune", "--init", self._run, "--data", str(self._labels), "--out", str(out)]
        return [*words, "--trust-code"] if self._trust_code else words

    def state(self) -> dict[str, Any]:
        """Return the command, how far it is, and the last line that it printed."""
        with self._lock:
            return self._state()

    def _state(self) -> dict[str, Any]:
        state = "idle"
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                state = "running"
            elif self._stopped:
                state = "stopped"
            else:
                state = "failed" if code else "done"
        if state == "idle":
            self._words = self._command()
        return {
            "state": state,
            "command": shlex.join(["melpatch", *self._words]),
            "line": "" if state == "idle" else self._last_line(),
        }

    def _last_line(self) -> str:
        with (self._folder / LOG).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").split("\n")
        return one_line(next((line for line in reversed(lines) if line.strip()), "it starts"))

    def start(self) -> dict[str, Any]:
        """Start the training.

        Raises:
            ConfigError: one is running.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                raise ConfigError("a training is running; wait until it ends, or stop it")
            self._words = self._command()
            self._stopped = False
            with (self._folder / LOG).open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "melpatch", *self._words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            return self._state()

    def stop(self) -> dict[str, Any]:
        """Tell the training to stop; it saves after its step, so that ``--resume`` goes on."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._stopped = True
                self._process.terminate()
            return self._state()

    def end(self) -> None:
        """Stop the training and wait until it has ended, as the server does."""
        self.stop()
        process = self._process
        if process is None:
            return
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
