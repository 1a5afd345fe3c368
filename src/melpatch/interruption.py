"""Signals that end a command, as exceptions that reach it.

libsndfile reads files through Python, and what is raised while it does so is printed and lost; the
file is then taken for a damaged one, and the command goes on. Finalisers lose exceptions likewise.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from melpatch.errors import Interrupted
from melpatch.machine import stop_signals

# Seconds after which a signal that came at such a moment is sent once more.
_LATER = 0.01


@contextmanager
def signals_raised() -> Iterator[None]:
    """Raise Interrupted in the body on SIGTERM or SIGHUP, KeyboardInterrupt on Ctrl-C.

    A second SIGTERM or SIGHUP ends the process at once. Training replaces these handlers by its
    own. Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    defaults = {signal.SIGINT: signal.default_int_handler}
    heeded = [number for number in stop_signals() if number.name != "SIGUSR1"]
    before = {number: signal.getsignal(number) for number in heeded}
    # What nohup ignores stays ignored; what a caller of main() handles is the caller's.
    replaced = {
        number: default
        for number in heeded
        if before[number] == (default := defaults.get(number, signal.SIG_DFL))
    }

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _loses_exceptions(frame):
            # As a process sends it to itself, on Windows too; Python handles it in the main thread.
            threading.Timer(_LATER, signal.raise_signal, (number,)).start()
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        for each, default in replaced.items():
            signal.signal(each, default)
        name = signal.Signals(number).name
        raise Interrupted(f"stopped by {name}; what is finished is kept", number)

    for number in replaced:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, default in replaced.items():
            signal.signal(number, default)


def _loses_exceptions(frame: FrameType | None) -> bool:
    """Return whether what is raised in a frame is lost before it reaches the command."""
    while frame is not None:
        code = frame.f_code
        of_soundfile = code.co_name.startswith("vio_") and "soundfile" in code.co_filename
        if of_soundfile or code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False
