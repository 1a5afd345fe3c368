"""What differs between operating systems, simulated."""

import os
import resource
import signal
import sys
from types import SimpleNamespace

from melpatch import machine


def test_a_system_without_some_signals_has_the_others(monkeypatch):
    for name in ("SIGUSR1", "SIGHUP"):
        monkeypatch.delattr(signal, name)
    assert machine.stop_signals() == (signal.SIGTERM, signal.SIGINT)


def test_processors_are_counted_where_affinity_is_not_known(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert machine.usable_cpus() == os.cpu_count()


def test_windows_has_no_resource_and_no_sysconf(monkeypatch):
    monkeypatch.setattr(machine, "resource", None)
    monkeypatch.delattr(os, "sysconf")
    assert machine.cpu_seconds() > 0
    assert machine.peak_memory_gib() != machine.peak_memory_gib()  # NaN: not known
    assert machine.memory_bytes() is None


def test_memory_is_measured_in_the_units_of_the_system(monkeypatch):
    kib = machine.peak_memory_gib()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert 0 < machine.peak_memory_gib() <= 1.1 * kib / 1024


def test_cpu_time_is_that_of_the_process_and_of_its_ended_children(monkeypatch):
    usage = {
        resource.RUSAGE_SELF: SimpleNamespace(ru_utime=1.0, ru_stime=20.0),
        resource.RUSAGE_CHILDREN: SimpleNamespace(ru_utime=300.0, ru_stime=4000.0),
    }
    monkeypatch.setattr(machine.resource, "getrusage", usage.__getitem__)
    assert machine.cpu_seconds() == 4321.0
