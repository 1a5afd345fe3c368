"""What differs between operating systems: processors, signals that request a stop, measurements."""

import math
import os
import signal
import sys
import time
from types import ModuleType

resource: ModuleType | None
try:
    import resource
except ImportError:  # Windows
    resource = None

# Windows lacks SIGHUP and SIGUSR1 and has SIGBREAK; Linux and macOS the other way round.
_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP", "SIGBREAK")


def stop_signals() -> tuple[signal.Signals, ...]:
    """Return the signals of this system by which a user, terminal or scheduler requests a stop."""
    return tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))


def usable_cpus() -> int:
    """Return the number of processors that this process may use."""
    # macOS and Windows cannot tell which of their processors those are.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def most_workers() -> int:
    """Return the largest number of processes that makes sense: each takes memory of its own."""
    return max(32, 8 * usable_cpus())


def memory_bytes() -> int | None:
    """Return the size of this machine's memory; None where it is not known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended.

    On Windows the children do not count.
    """
    if resource is None:
        return time.process_time()
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return float(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime)


def peak_memory_gib() -> float:
    """Return the peak resident memory of this process; NaN on Windows, where it is not known."""
    if resource is None:
        return math.nan
    # macOS counts the resident memory in bytes, Linux in KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30)
