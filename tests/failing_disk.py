"""Faults of a disk at chosen moments: every change of a file below a folder can fail, or be the last.

Python announces each file that it opens, renames or removes to an audit hook before it does so. A
hook cannot be removed again, so there is one, which does nothing outside of :func:`watched`.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_watch: list[tuple[str, Callable[[str, str], None]]] = []
_installed: list[bool] = []


@contextmanager
def watched(folder: Path, on_event: Callable[[str, str], None]) -> Iterator[None]:
    """Call a function before each change of a file below a folder, and before it is opened to read.

    Args:
        folder: the folder.
        on_event: gets what is about to happen (``read``, ``write`` or the name of a change) and
            the path.
    """
    if not _installed:
        sys.addaudithook(_hook)
        _installed.append(True)
    _watch.append((str(folder), on_event))
    try:
        yield
    finally:
        _watch.clear()


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _watch or (event != "open" and event not in _CHANGES):
        return
    folder, on_event = _watch[0]
    path = arguments[0]
    # Folders are emptied with names relative to an open folder.
    relative = event in {"os.remove", "os.rmdir"} and arguments[-1] != -1
    if not relative and not (isinstance(path, str | Path) and str(path).startswith(folder)):
        return
    if event == "open":
        event = "write" if isinstance(arguments[2], int) and arguments[2] & _WRITING else "read"
    on_event(event, str(path))


def count_events(folder: Path, kinds: set[str], action: Callable[[], object]) -> int:
    """Return how many events of some kinds an action brings about."""
    seen: list[str] = []
    with watched(folder, lambda event, _: seen.append(event) if event in kinds else None):
        action()
    return len(seen)


def failing_from(number: int, kinds: set[str], error: int) -> Callable[[str, str], None]:
    """Return what lets all events of some kinds fail with an error, from one on; from 0."""
    left = [number]

    def on_event(event: str, path: str) -> None:
        if event not in kinds:
            return
        left[0] -= 1
        if left[0] < 0:
            raise OSError(error, os.strerror(error), path)

    return on_event


class Killed(BaseException):
    """The process is dead."""


def killed_at(folder: Path, number: int, action: Callable[[], object]) -> bool:
    """Run an action that is killed before a change of a file; return whether it was.

    From then on every change of a file fails, so nothing is cleaned up, as after a real kill.

    Args:
        folder: changes below it count.
        number: the change, from 0.
        action: what to run.
    """
    left = [number]

    def on_event(event: str, path: str) -> None:
        if event == "read":
            return
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    try:
        with watched(folder, on_event):
            action()
    except Killed:
        return True
    return False
