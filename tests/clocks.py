"""Clocks whose readings a test knows, so that no test depends on the speed of a machine."""

from itertools import count
from types import SimpleNamespace


def tick(monkeypatch, module):
    """Let each reading of a module's wall clock and CPU clock be one second later than the last.

    Args:
        monkeypatch: pytest's.
        module: a module that imports ``time``.
    """
    wall = count(0.0)
    cpu = count(0.0)
    clock = SimpleNamespace(monotonic=lambda: next(wall), process_time=lambda: next(cpu))
    monkeypatch.setattr(module, "time", clock)
