"""Files of JSON lines that survive a crash and a full disk without gaps."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from melpatch.atomic import lack_of_space, sync, written_aside


class JsonLines:
    """A file of JSON lines; lines that do not fit on a full disk wait in memory for the next write.

    Args:
        path: of the file, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: list[str] = []
        # The training thread adds lines while the saving thread flushes them.
        self._lock = Lock()

    def add(self, record: Mapping[str, Any]) -> None:
        """Append a line, now or once there is room again; numbers that are not finite become null."""
        with self._lock:
            self._held.append(
                json.dumps({name: _plain(value) for name, value in record.items()}) + "\n"
            )
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
        """Keep the complete lines up to a step; a crash may have left later ones, and half a line."""
        if not self.path.exists():
            return
        kept = [
            line for line in self.path.read_bytes().splitlines(keepends=True) if _up_to(line, step)
        ]
        with written_aside(self.path) as aside:
            aside.write_bytes(b"".join(kept))

    def _write(self) -> None:
        if not self._held:
            return
        before = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(self._held))
        except OSError:
            if self.path.exists():
                # Remove half a line, so that the next one does not follow it directly.
                os.truncate(self.path, before)
            raise
        self._held.clear()


def _up_to(line: bytes, step: int) -> bool:
    try:
        return line.endswith(b"\n") and bool(json.loads(line)["step"] <= step)
    except ValueError:  # a power cut may leave any bytes
        return False


def _plain(value: Any) -> Any:
    """Return null for a number that is not finite, which JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
