"""JSON-lines files that have no gaps after a crash or a full disk."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from melpatch.atomic import lack_of_space, sync, written_aside
from melpatch.opening import LOG_BYTES, open_to_append, read_bytes


class JsonLines:
    """A JSON-lines file; while the disk is full, lines wait in memory for the next write.

    Args:
        path: of the file, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: list[str] = []
        # The training thread adds lines while the saving thread flushes them.
        self._lock = Lock()

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a line, now or once there is room; numbers that are not finite become null."""
        plain = {name: _plain(value) for name, value in record.items()}
        with self._lock:
            self._held.append(json.dumps(plain) + "\n")
            try:
                self._write()
            except OSError as error:
                if lack_of_space(error) is None:
                    raise

    def flush(self) -> None:
        """Return once all lines are on the disk.

        Raises:
            OSError: there is no room for them.
        """
        with self._lock:
            self._write()
        if self.path.exists():
            sync(self.path)
            sync(self.path.parent)

    def cut(self, step: int) -> None:
        """Remove lines of later steps and incomplete lines, which a crash may have left."""
        if not self.path.exists():
            return
        lines = read_bytes(self.path, LOG_BYTES).splitlines(keepends=True)
        kept = [line for line in lines if _up_to(line, step)]
        with written_aside(self.path) as aside:
            aside.write_bytes(b"".join(kept))

    def _write(self) -> None:
        if not self._held:
            return
        before = 0
        if self.path.exists():
            before = self.path.stat().st_size
        try:
            with open_to_append(self.path) as file:
                file.write("".join(self._held))
        except OSError:
            if self.path.exists():
                # Remove a line that was only partly written, so that the next one is not joined to
                # it.
                os.truncate(self.path, before)
            raise
        self._held.clear()


def _up_to(line: bytes, step: int) -> bool:
    """Return whether a line is complete and of a step up to this one."""
    try:
        return line.endswith(b"\n") and bool(json.loads(line)["step"] <= step)
    except (ValueError, LookupError, TypeError, RecursionError):
        # A power cut may leave any bytes.
        return False


def _plain(value: Any) -> Any:
    """Return None for a number that is not finite, which JSON cannot hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
