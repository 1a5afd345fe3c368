"""Open files that others may have made: regular files only, and none larger than expected.

A folder from elsewhere may hold a named pipe, which is never read to its end, a link to a device
that never ends, or a file that fills the memory. Such a file raises an OSError whose ``strerror``
says what it is, like a file that is missing or may not be read.
"""

import csv
import errno
import io
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from melpatch.errors import CheckpointError, shortened
from melpatch.faults import let_pass

SETTINGS_BYTES = 1 << 24
"""Largest file of settings or facts about a run: 16 MiB."""
LOG_BYTES = 1 << 30
"""Largest log of a run: 1 GiB, about ten million lines."""

# A zip archive may hold so much, however well it is compressed: 256 MiB, or 50 times its own size.
_SMALL_ARCHIVE = 1 << 28
_COMPRESSION = 50

# What the readers of text, JSON, CSV, NPY and NPZ raise for content that they did not write.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
)

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


def open_binary(path: Path) -> io.BufferedReader:
    """Open a regular file to be read, without waiting if it has become a pipe since.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    require_regular(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags), "rb")


def open_text(path: Path) -> io.TextIOWrapper:
    """Open a regular UTF-8 file to be read, with its line ends as they are; see :func:`open_binary`."""
    return io.TextIOWrapper(open_binary(path), encoding="utf-8", newline="")


def open_to_append(path: Path) -> io.TextIOWrapper:
    """Open a regular UTF-8 file to append to it, or create it.

    In a folder of others, a name may be a link to a file of the user's, which stays as it is.

    Raises:
        OSError: it is a link, or no regular file, or cannot be written.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a link, which is not written through; remove it", str(path))
    if path.exists():
        require_regular(path)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return io.TextIOWrapper(os.fdopen(os.open(path, flags, 0o666), "ab"), encoding="utf-8")


def require_inside(folder: Path, path: Path, fix: str) -> None:
    """Raise CheckpointError if a folder below another one lies elsewhere, by a link.

    In a folder of others, nothing is written or removed through such a link.

    Args:
        folder: the folder.
        path: the folder below it, which need not exist.
        fix: what to do.
    """
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()):
        raise CheckpointError(
            f"{path}: leads to {real} by a link, through which nothing is written; {fix}"
        )


def require_no_linked_folders(folder: Path) -> None:
    """Raise CheckpointError if a folder directly in another one lies elsewhere, by a link."""
    for path in folder.iterdir():
        if path.is_symlink() and path.is_dir():
            require_inside(folder, path, "put the folder itself there, or remove the link")


def require_no_bomb(path: Path) -> None:
    """Raise ValueError if what a zip archive holds is much larger than the file itself.

    A few MiB of it can be made to fill any memory. Arrays compress hardly; text does by ten.

    Raises:
        OSError: it is no regular file.
        zipfile.BadZipFile: it is no archive, or damaged.
    """
    size = require_regular(path)
    with zipfile.ZipFile(path) as archive:
        content = sum(member.file_size for member in archive.infolist())
    most = max(_SMALL_ARCHIVE, _COMPRESSION * size)
    if content > most:
        raise ValueError(
            f"{size:,} bytes would become {content:,}, more than the {most:,} expected"
        )


def read_bytes(path: Path, most_bytes: int = SETTINGS_BYTES) -> bytes:
    """Return the content of a regular file of a limited size.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger.
    """
    size = require_regular(path, most_bytes)
    with open_binary(path) as file:
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


@contextmanager
def reading(path: Path, fix: str, most_bytes: int | None = SETTINGS_BYTES) -> Iterator[None]:
    """Turn whatever is wrong with a file that melpatch wrote into an error of one line.

    The body reads the file and takes what it needs from it.

    Args:
        path: the file.
        fix: what to do if it is damaged.
        most_bytes: its largest size; None for any.

    Raises:
        CheckpointError: the file is missing or no regular file, or the body finds it damaged.
    """
    try:
        require_regular(path, most_bytes)
        yield
    except OSError as error:
        let_pass(error)
        reason = error.strerror or shortened(error, typed=True)
        raise CheckpointError(f"{path}: cannot be read ({reason}); {fix}") from error
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {shortened(error, typed=True)}"
        raise CheckpointError(f"{path}: damaged ({' '.join(reason.split())}); {fix}") from error


def read_json(path: Path, most_bytes: int = SETTINGS_BYTES) -> dict[str, Any]:
    """Return the JSON object in a file; within :func:`reading`, a damaged file is told in one line.

    Raises:
        OSError: as :func:`read_bytes`.
        ValueError: it is no JSON, or another value than an object.
    """
    content = json.loads(read_text(path, most_bytes))
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} instead of an object")
    return content


def read_json_lines(path: Path, most_bytes: int = LOG_BYTES) -> list[dict[str, Any]]:
    """Return the JSON objects in the lines of a file; see :func:`read_json`."""
    records = []
    for number, line in enumerate(read_text(path, most_bytes).splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"line {number}: a {type(record).__name__} instead of an object")
        records.append(record)
    return records
