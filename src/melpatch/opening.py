"""Open files that others may have made: regular files only, and none larger than expected.

A folder from elsewhere may hold a named pipe, which is never read to its end, a link to a device
that never ends, or a file that fills the memory. Such a file raises an OSError whose ``strerror``
says what it is, like a file that is missing or may not be read.
"""

import errno
import os
import stat
from pathlib import Path

SETTINGS_BYTES = 1 << 24
"""Largest file of settings or facts about a run: 16 MiB."""
LOG_BYTES = 1 << 30
"""Largest log of a run: 1 GiB, about ten million lines."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def require_regular(path: Path, most_bytes: int | None = None) -> int:
    """Return the size of a regular file, of which at most ``most_bytes`` are expected.

    Raises:
        OSError: it is missing, something other than a file, or larger.
    """
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        kind = next((name for fits, name in _KINDS if fits(state.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"is {kind}, not a file", str(path))
    if most_bytes is not None and state.st_size > most_bytes:
        too_large = f"has {state.st_size:,} bytes, more than the {most_bytes:,} expected"
        raise OSError(errno.EFBIG, too_large, str(path))
    return state.st_size


def read_bytes(path: Path, most_bytes: int = SETTINGS_BYTES) -> bytes:
    """Return the content of a regular file of a limited size.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger.
    """
    size = require_regular(path, most_bytes)
    # Without waiting, in case the file has become a pipe since.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        # No more than that is allocated; one byte more tells that the file has grown.
        content = file.read(size + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"has more than the {most_bytes:,} bytes expected", str(path))
    return content


def read_text(path: Path, most_bytes: int = SETTINGS_BYTES) -> str:
    """Return the content of a regular UTF-8 file of a limited size.

    Raises:
        OSError: as :func:`read_bytes`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, most_bytes).decode("utf-8")
