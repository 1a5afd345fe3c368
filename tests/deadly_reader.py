"""Work for a process that some recordings end, as a crash or lack of memory would; it imports nothing slow."""

import os
import signal
from pathlib import Path


def read(path: Path) -> str:
    """Return the name of a file; one called killer takes the process with it."""
    kill_at(path)
    return path.name


def kill_at(path: Path) -> None:
    """End this process if the file is called killer."""
    if path.name.startswith("killer"):
        os.kill(os.getpid(), signal.SIGKILL)
