"""A lock on an output, so that two processes do not write it at the same time."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from melpatch import distributed
from melpatch.atomic import clear_partial
from melpatch.errors import ConfigError, DataError
from melpatch.faults import remedy
from melpatch.outputs import lock_of, require_usable_name
from melpatch.progress import notice

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
"""Errors of file systems that have no locks."""
# Seconds to wait before an output is refused. The decoding processes of a killed command inherit
# its lock, and exit up to 5 s later.
_PATIENCE = 15.0
# Seconds between words about what is waited for.
_REPORT_SECONDS = 30.0


@contextmanager
def only_writer(out: Path, lock: Path | None = None) -> Iterator[None]:
    """Hold the lock of an output file or folder in the body, once what a crash left of it is gone.

    Of several ranks, rank 0 holds it for all. The lock is released when the process ends, even if
    it is killed.

    Args:
        out: the output.
        lock: the file to lock; by default a hidden one beside the output.

    Raises:
        ConfigError: another process writes the output.
        DataError: the folder around it cannot be written.
    """
    with _held(out, lock or lock_of(out), give_up=True):
        yield


@contextmanager
def next_writer(out: Path) -> Iterator[None]:
    """Hold the lock of a file or folder that several processes may want; wait until it is free."""
    with _held(out, lock_of(out), give_up=False):
        yield


@contextmanager
def _held(out: Path, path: Path, *, give_up: bool) -> Iterator[None]:
    lock = FileLock(path)
    # A collective call: a refusal ends all ranks.
    distributed.on_rank_zero(lambda: _acquire(lock, out, give_up=give_up))
    try:
        yield
    finally:
        if lock.is_locked:
            # Removed while it is held, so that no other process takes a lock that is about to go.
            # Windows cannot remove an open file, so there it stays.
            with suppress(OSError):
                Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()


def _acquire(lock: BaseFileLock, out: Path, *, give_up: bool) -> None:
    """Acquire a lock, and remove what a crash has left half-written of its output."""
    require_usable_name(out)
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        _wait_for(lock, out, give_up=give_up)
        clear_partial(out.parent, out.name)
    except Timeout:
        raise ConfigError(
            f"{out}: another process writes it; wait until it ends, or give another --out"
        ) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            lock.release()
            raise DataError(
                f"{out}: cannot be written ({error.strerror}); {remedy(error)}"
            ) from error
        notice(f"{out}: its file system has no locks; let no other process write it")


def _wait_for(lock: BaseFileLock, out: Path, *, give_up: bool) -> None:
    patience = 0.0
    while True:
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            if give_up and patience == _PATIENCE:
                raise
            patience = _PATIENCE if give_up else _REPORT_SECONDS
            up_to = f" for up to {patience:g} s" if give_up else ""
            notice(f"{out}: another process writes it; waiting{up_to}")
            continue
        if os.path.lexists(lock.lock_file):
            return
        # Its last holder removed the file after this process had opened it.
        lock.release()
