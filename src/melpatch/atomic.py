"""Files and folders that are either complete or absent: written aside, synced, renamed."""

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PARTIAL = ".partial"
# Errors of syncing a folder that may not be listed, or on a system that never syncs folders.
_NO_SYNC = {errno.EACCES, errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ENOTSUP, errno.EPERM}
# The disk or a quota is full, or the file exceeds the size limit of the process.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the body succeeds.

    The body may write a file or a folder. It is synced to disk before it is renamed, so a crash
    leaves ``path`` as it was.
    """
    aside = _aside(path)
    _remove(aside)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
        move_into_place(aside, path)
    finally:
        _remove(aside)


def move_into_place(aside: Path, path: Path) -> None:
    """Sync a file or folder and rename it to ``path``; a crash leaves the old or the new one."""
    sync(aside)
    for written in aside.rglob("*"):
        sync(written)
    # A folder cannot be renamed over another one. A folder in the way of a file is an error.
    if path.is_dir() and aside.is_dir():
        old = _aside(path, "old")
        _remove(old)
        path.rename(old)
        aside.replace(path)
        _remove(old)
    else:
        aside.replace(path)
    sync(path.parent)


def clear_partial(folder: Path, name: str | None = None) -> None:
    """Remove what crashes have left half-written in a folder, of all files or of one name.

    No other process may be writing there.
    """
    own = re.compile(rf"\.{re.escape(name or '')}\.\d+(\.old)?{re.escape(_PARTIAL)}")
    for left in [*folder.iterdir()] if folder.is_dir() else []:
        if is_partial(left) if name is None else own.fullmatch(left.name):
            _remove(left)


def is_partial(path: Path) -> bool:
    """Return whether a file or folder is half-written, by its name."""
    return path.name.startswith(".") and path.name.endswith(_PARTIAL)


def discard(folder: Path) -> None:
    """Remove a folder; after a crash, all of it or nothing is left under its name."""
    aside = _aside(folder)
    _remove(aside)
    folder.rename(aside)
    _remove(aside)


def _aside(path: Path, kind: str = "") -> Path:
    """Return the name that this process gives to a half-written, or to a replaced (old), path."""
    ending = f".{kind}{_PARTIAL}" if kind else _PARTIAL
    return path.with_name(f".{path.name}.{os.getpid()}{ending}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file is written to disk, or a folder where the system can do that."""
    if path.is_dir():
        try:
            _sync(path, os.O_RDONLY)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
        return
    # Windows syncs only files that are open for writing.
    _sync(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lack_of_space(error: BaseException | None) -> OSError | None:
    """Return the out-of-space error that an error is or was caused by, or None."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        error = error.__cause__ or error.__context__  # torch.save hides the error of the file
    return None


def file_state(path: Path) -> tuple[int, int] | None:
    """Return the size and modification time of a file, or None; a change of it changes them."""
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return state.st_size, state.st_mtime_ns
