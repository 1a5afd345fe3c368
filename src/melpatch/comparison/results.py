"""Results of a comparison: one JSON line per cell, so that no work is repeated."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

from filelock import FileLock, Timeout

from melpatch.errors import MelpatchError
from melpatch.faults import let_pass
from melpatch.opening import (
    LOG_BYTES,
    SETTINGS_BYTES,
    open_binary,
    open_to_append,
    read_text,
    reading,
)
from melpatch.outputs import require_usable_name

Line = dict[str, Any]
RESULTS = "results.jsonl"
"""The file of results in the folder of a comparison."""
# Holds the process that compares, or was the last to do so.
_HOLDER = ".holder"


def is_comparison(folder: Path) -> bool:
    """Return whether a comparison was begun in a folder, or results of one were copied there."""
    return (folder / _HOLDER).exists() or _has_cells(folder / RESULTS)


def _has_cells(path: Path) -> bool:
    """Return whether a file begins with the result of a cell."""
    try:
        with open_binary(path) as file:
            first = json.loads(file.readline(SETTINGS_BYTES))
    except (OSError, RecursionError, ValueError) as error:
        let_pass(error)
        return False
    return isinstance(first, dict) and "key" in first


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder while the body runs, so that no other process computes the same cells.

    The operating system releases the lock when the process ends, even by a signal. The lock
    file stays.

    Raises:
        MelpatchError: another process holds the lock; the message names its process id.
    """
    require_usable_name(folder)
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / _HOLDER
    try:
        lock = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        process = holder.read_text(encoding="utf-8") if holder.exists() else "another"
        raise MelpatchError(
            f"{folder}: process {process} is comparing there; wait for its end, "
            "or give another --out"
        ) from None
    with lock:
        holder.write_text(f"{os.getpid()}", encoding="utf-8")
        yield


class Results:
    """The results file of a comparison; the last line of a cell counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        lines = []
        if path.exists():
            with self._reading():
                lines = read_text(path, LOG_BYTES).splitlines(keepends=True)
        # A crash may have left half a line, which the next result must not be appended to.
        if lines and not lines[-1].endswith("\n"):
            path.write_text("".join(lines[:-1]), encoding="utf-8")
            del lines[-1]
        with self._reading():
            self._lines = {tuple(line["key"]): line for line in map(json.loads, lines)}

    def _reading(self) -> AbstractContextManager[None]:
        """Return a context in which a damaged file of results is told in one line."""
        if not self.path.exists():
            return nullcontext()
        return reading(self.path, "take the damaged lines out, or give another --out", LOG_BYTES)

    def find(self, key: Sequence[str]) -> Line | None:
        """Return the result of a cell, its numbers or its ``error``; None if there is none yet."""
        return self._lines.get(tuple(key))

    def add(self, key: Sequence[str], about: Line) -> Line:
        """Append the result of a cell to the file, and return it."""
        line = {"key": [*key], **about}
        # Several threads add results; a line is written as a whole.
        with self._lock:
            self._lines[tuple(key)] = line
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open_to_append(self.path) as file:
                file.write(json.dumps(line) + "\n")
        return line
