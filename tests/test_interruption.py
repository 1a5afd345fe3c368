"""Signals reach the command, wherever they come."""

import io
import signal
import threading
import time

import numpy as np
import pytest
import soundfile

from melpatch.errors import Interrupted
from melpatch.interruption import signals_raised

SIGNALS = [
    (signal.SIGTERM, Interrupted),
    (signal.SIGHUP, Interrupted),
    (signal.SIGINT, KeyboardInterrupt),
]


@pytest.fixture(autouse=True)
def _handlers():
    """Handlers as in a terminal, whatever started the tests, and put back afterwards."""
    before = {number: signal.getsignal(number) for number, _ in SIGNALS}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Signalling(io.BytesIO):
    """A file at whose first byte of sound a signal comes."""

    number = None

    def readinto(self, buffer):
        if self.number is not None:
            number, self.number = self.number, None
            signal.raise_signal(number)
        return super().readinto(buffer)


@pytest.mark.parametrize(("number", "error"), SIGNALS)
def test_a_signal_while_libsndfile_reads_is_raised_behind_it(number, error, capfd):
    sound = np.arange(-100, 100) / 128
    file = Signalling()
    soundfile.write(file, sound, 8000, format="WAV", subtype="PCM_16")
    file.seek(0)
    read = []

    def work():
        with soundfile.SoundFile(file) as opened:
            file.number = number
            read.append(opened.read())
        time.sleep(10)

    with pytest.raises(error), signals_raised():
        work()
    assert np.array_equal(read[0], sound)
    assert capfd.readouterr().err == ""  # where cffi tells what it has lost


@pytest.mark.parametrize(("number", "error"), SIGNALS)
def test_a_signal_while_an_object_is_finalised_is_raised_behind_it(number, error):
    class Finalised:
        def __del__(self):
            signal.raise_signal(number)
            finalised.append(True)

    def work():
        Finalised()
        time.sleep(10)

    finalised = []
    with pytest.raises(error), signals_raised():
        work()
    assert finalised == [True]


@pytest.mark.parametrize(("number", "error"), SIGNALS)
def test_handlers_are_as_before_afterwards(number, error):
    before = signal.getsignal(number)

    def work():
        assert signal.getsignal(number) != before
        signal.raise_signal(number)

    with pytest.raises(error), signals_raised():
        work()
    assert signal.getsignal(number) == before


def test_what_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with signals_raised():
        signal.raise_signal(signal.SIGHUP)


def test_other_threads_change_no_handler():
    done = []

    def be_other():
        with signals_raised():
            done.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=be_other)
    thread.start()
    thread.join()
    assert done == [signal.SIG_DFL]
