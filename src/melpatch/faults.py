"""Faults of the machine, told apart from defects: no room, no memory, no more open files."""

import errno
import re
from collections.abc import Iterator

_RESUME = "then run the command again (with --resume where it has that flag)"
_ROOM = f"free some space or raise the limit, {_RESUME}"
_FILES = f"close other programs, give fewer --workers or raise 'ulimit -n', {_RESUME}"
_MEMORY = f"give a smaller --batch-size or fewer --workers, {_RESUME}"
_DISK = f"look at the disk and its connection, {_RESUME}"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: f"too many processes or threads; give fewer --workers, {_RESUME}",
    errno.EIO: _DISK,
    errno.ESTALE: _DISK,
    errno.ENOTCONN: _DISK,
    errno.ETIMEDOUT: _DISK,
    errno.EHOSTDOWN: _DISK,
    errno.EHOSTUNREACH: _DISK,
    errno.ENETDOWN: _DISK,
    errno.ENETUNREACH: _DISK,
    errno.EROFS: "choose another place",
    errno.EACCES: "make it readable and writable, or choose another place",
    errno.EPERM: "make it readable and writable, or choose another place",
}
# Errors of a place where nothing can be written.
_ELSEWHERE = {
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ENOENT, errno.ELOOP),
    errno.EINVAL,
}
# Errors that have nothing to do with the file that was opened, and pass.
_PASSING = {
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ESTALE, errno.ENOTCONN),
    *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
}
# Libraries report some of these faults in words only.
_IN_WORDS = (
    (r"No space left on device|StorageFull|os error 28", "there is no room on the disk", _ROOM),
    (r"File too large|os error 27", "a file would be larger than allowed", _ROOM),
    (r"Too many open files|of ancdata|os error 24", "too many files are open", _FILES),
    (
        r"out of memory|[Cc]an't allocate memory|Cannot allocate memory",
        "not enough memory",
        _MEMORY,
    ),
    (r"can't start new thread", "too many processes or threads", _MEMORY),
    (r"unable to mmap|unable to open shared memory", "no shared memory is left", _MEMORY),
)


def machine_fault(error: BaseException) -> str | None:
    """Return what is wrong with the machine and what to do, in one line; None for other errors.

    The fault may be the cause of the error, or of its cause.
    """
    for cause in _causes(error):
        if isinstance(cause, MemoryError):
            return f"not enough memory; {_MEMORY}"
        if isinstance(cause, OSError) and cause.errno in _REMEDIES:
            place = f"{cause.filename}: " if cause.filename is not None else ""
            return f"{place}{cause.strerror}; {_REMEDIES[cause.errno]}"
        for pattern, fault, remedy in _IN_WORDS:
            if re.search(pattern, str(cause)):
                return f"{fault}; {remedy}"
    return None


def is_passing(error: BaseException) -> bool:
    """Return whether a file could not be opened for a reason that passes and is not its own.

    There are no more open files or no memory, or a network file system is away.
    """
    return (isinstance(error, OSError) and error.errno in _PASSING) or bool(
        # As libraries written in Rust and C++ report it.
        re.search(r"Too many open files|\(os error 2[34]\)", str(error))
    )


def let_pass(error: Exception) -> None:
    """Raise an error again if it passes, so that nobody takes the file that was opened for damaged."""
    if is_passing(error):
        raise error


def remedy(error: OSError) -> str:
    """Return what to do about an error of the system."""
    if error.errno in _ELSEWHERE:
        return "choose another place"
    return _REMEDIES.get(error.errno or 0, _DISK)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and not any(cause is earlier for earlier in seen):
        yield cause
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
