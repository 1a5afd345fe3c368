"""Faults of the machine: told apart from defects, with what to do, in one line."""

import errno
import os

import pytest

from melpatch.faults import machine_fault


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EFBIG, "raise the limit"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "ulimit -n"),
        (errno.ENOMEM, "smaller --batch-size"),
        (errno.EIO, "look at the disk"),
    ],
)
@pytest.mark.parametrize("place", [None, "/data/x"])
def test_an_error_of_the_system_has_a_remedy(number, remedy, place):
    error = (
        OSError(number, os.strerror(number), place)
        if place
        else OSError(number, os.strerror(number))
    )
    fault = machine_fault(error)
    assert fault.startswith(f"{place}: {os.strerror(number)}; " if place else os.strerror(number))
    assert remedy in fault
    assert "again" in fault
    assert "\n" not in fault


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (MemoryError(), "not enough memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            "not enough memory",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "not enough memory"),
        (RuntimeError("received 0 items of ancdata"), "too many files are open"),
        (ValueError("I/O error: No space left on device (os error 28)"), "no room on the disk"),
        (RuntimeError("can't start new thread"), "too many processes or threads"),
    ],
)
def test_libraries_that_report_faults_in_words_are_understood(error, fault):
    assert fault in machine_fault(error)


def test_the_cause_of_an_error_counts():
    error = RuntimeError("unexpected pos 64 vs 0")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device", "runs/a")
    assert machine_fault(error).startswith("runs/a: No space left on device; ")


@pytest.mark.parametrize(
    "error", [KeyError("x"), ValueError("bad"), FileNotFoundError(2, "No", "x")]
)
def test_a_defect_stays_a_defect(error):
    assert machine_fault(error) is None
