"""Signals that request a stop: SIGTERM, SIGUSR1, SIGHUP and Ctrl-C, where the system has them.

Schedulers send SIGTERM to preempt a job; SLURM's ``--signal=USR1@120`` sends SIGUSR1 before a job's
time is up. A terminal that closes sends SIGHUP, unless nohup has it ignored. Training stops after
the current step and saves; a second Ctrl-C stops it at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from melpatch.machine import stop_signals

# The first signal that was caught, or 0. A signal handler can do little more than note it safely.
_first = [0]


@contextmanager
def caught() -> Iterator[None]:
    """Catch the signals that request a stop while the body runs.

    The pending request is cleared on exit; check :func:`requested` inside the body. Outside the
    main thread this does nothing.
    """
    # Python allows signal handlers to be set in the main thread only.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # What nohup ignores stays ignored.
    heeded = [
        number
        for number in stop_signals()
        if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, _note) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _first[0] = 0


def requested() -> int:
    """Return the signal that requested a stop, while signals are caught; 0 if none did."""
    return _first[0]


def _note(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT == _first[0]:
        raise KeyboardInterrupt
    _first[0] = _first[0] or number
