"""Commands in processes of their own, forked from one that has imported the package, which takes seconds."""

import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path

import torch
import two_processes  # noqa: F401 - what its forkserver imports
from places import ROOT

from melpatch.cli import main


class Forked:
    """``python -m melpatch`` with these words, to be waited for and killed like a ``subprocess.Popen``."""

    def __init__(self, words, *, environment=None, prepare=None, session=False):
        """Start it.

        Args:
            words: of the command.
            environment: variables to set.
            prepare: a function that the tests and the process import by name, called before the command.
            session: whether the process leads a session, and so a group, of its own.
        """
        descriptor, path = tempfile.mkstemp()
        os.close(descriptor)
        self._told = Path(path)
        about = ([*map(str, words)], str(Path.cwd()), path, environment or {}, prepare, session)
        if str(ROOT) not in sys.path:  # by which the process finds what prepares it
            sys.path.append(str(ROOT))
        self._process = multiprocessing.get_context("forkserver").Process(target=_be, args=about)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        """As of subprocess: None while it runs, minus the signal that ended it."""
        return self._process.exitcode

    def poll(self):
        """Return the returncode so far."""
        return self.returncode

    def wait(self):
        """Return the returncode once it has ended."""
        self._process.join(120)
        assert self.returncode is not None, "it does not end"
        return self.returncode

    def kill(self):
        """Send SIGKILL."""
        self._process.kill()

    def written(self):
        """Return what it has written to standard error so far."""
        return self._told.read_text(encoding="utf-8")

    def communicate(self):
        """Wait for its end; return nothing and what it wrote to standard error."""
        self.wait()
        told = self.written()
        self._told.unlink()
        return None, told


def _be(words, place, told, environment, prepare, session):
    if session:
        os.setsid()
    # Of an interpreter that has just been started.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    os.chdir(place)
    torch.set_num_threads(1)
    with Path(told).open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
    sys.argv = ["melpatch", *words]
    if prepare is not None:
        prepare()
    sys.exit(main(words))
