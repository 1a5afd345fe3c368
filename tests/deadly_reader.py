"""Work for a process that some recordings end, as a crash or lack of memory would; it imports nothing slow."""

import os
import signal
import time
from pathlib import Path
from typing import Any


def read(path: Path) -> str:
    """Return the name of a file; one called killer takes the process with it."""
    kill_at(path)
    return path.name


def kill_at(path: Path) -> None:
    """End this process if the file is called killer."""
    if path.name.startswith("killer"):
        os.kill(os.getpid(), signal.SIGKILL)


def end() -> None:
    """End this process, as if the system had killed it."""
    os.kill(os.getpid(), signal.SIGKILL)


def stay(is_ready: Any) -> None:
    """Be a process that does not end when it is told to, as one that nobody tells.

    Args:
        is_ready: an event that is set when that is so.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    is_ready.set()
    time.sleep(600)
