"""A lock beside an output file, so that two processes do not write it at the same time."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from melpatch import distributed
from melpatch.errors import ConfigError, DataError
from melpatch.progress import notice


@contextmanager
def only_writer(out: Path) -> Iterator[None]:
    """Hold the lock of an output in the body; of several ranks, rank 0 holds it for all.

    The lock is released when the process ends, even if it is killed.

    Raises:
        ConfigError: another process writes the output.
        DataError: its folder cannot be written.
    """
    if not distributed.is_rank_zero():
        yield
        return
    lock = FileLock(out.with_name(f".{out.name}.lock"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{out}: another process writes it; wait until it ends, or give another --out"
        ) from None
    except NotImplementedError:
        notice(f"{out}: its file system has no locks; let no other process write it")
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror}); choose another --out"
        ) from error
    try:
        yield
    finally:
        # Removed while it is held, so that no other process takes a lock that is about to go.
        # Windows cannot remove an open file, so there it stays.
        with suppress(PermissionError):
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
