"""Being asked to end: SIGTERM, as schedulers send it to what they preempt, SIGUSR1, as SLURM's ``--signal=USR1@120``
does, and Ctrl-C. A training ends after its current step, saved; a second Ctrl-C ends it at once.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_asked = [0]  # the signal that came first; all that a handler may safely do is to note it


@contextmanager
def heeded() -> Iterator[None]:
    """Note the signals that ask for an end while the body runs; without, or in another thread than the main one, they
    do what they did before. What was asked is forgotten when the body ends, who is to have looked before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _note) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked[0] = 0


def requested() -> int:
    """Return the number of the signal that asked for an end while it is heeded; 0 if none did."""
    return _asked[0]


def _note(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT == _asked[0]:
        raise KeyboardInterrupt
    _asked[0] = _asked[0] or number
