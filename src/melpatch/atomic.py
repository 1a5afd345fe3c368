"""Files and folders that are either complete or not there: written aside, synced, renamed."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PARTIAL = ".partial"
_NO_SYNC = {
    errno.EACCES,
    errno.EINVAL,
    errno.ENOTSUP,
}  # of folders that may not be listed, or are never synced
_FULL = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
}  # the disk, a quota, the largest file that this process may write


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a path to write a file or folder to, which takes the place of ``path`` when the body ends well.

    A crash leaves ``path`` as it was. What was written is on the disk before it takes its name.
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
    """Move a file or folder to its place once it is on the disk, so that a crash leaves there what was before, or all
    of it."""
    for written in [aside, *aside.rglob("*")] if aside.is_dir() else [aside]:
        sync(written)
    if path.is_dir() and aside.is_dir():
        _remove(
            path
        )  # a folder cannot be renamed over another; over a file's name it is not ours to remove
    aside.replace(path)
    try:
        sync(path.parent)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def clear_partial(folder: Path) -> None:
    """Remove what a crash left half-written in a folder; nobody else may be writing there."""
    for left in folder.glob(f".*{_PARTIAL}"):
        _remove(left)


def discard(folder: Path) -> None:
    """Remove a folder such that a crash leaves all of it or, under its name, nothing."""
    aside = _aside(folder)
    _remove(aside)
    folder.rename(aside)
    _remove(aside)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lack_of_space(error: BaseException | None) -> OSError | None:
    """Return the error that says that there is no room left, which may be the cause of the given one; None if none
    does."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        error = error.__cause__ or error.__context__  # torch.save covers up what the file said
    return None


def file_state(path: Path) -> tuple[int, int] | None:
    """Return the size and the time of a file, which tell that it was changed; None where there is none."""
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return state.st_size, state.st_mtime_ns
