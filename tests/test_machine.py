"""What differs between operating systems, simulated."""

import os
import pickle
import resource
import signal
import sys
from types import SimpleNamespace

import pytest
from tiny_runs import noises

from melpatch import machine
from melpatch.data import loader
from melpatch.inference import windows


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


@pytest.mark.parametrize("module", [loader, windows])
def test_workers_can_be_spawned_where_there_is_no_fork(tmp_path, monkeypatch, module):
    """On Windows and macOS, what a worker gets is pickled."""
    corpus = noises(tmp_path, (0.2, 0.3))
    sent = []

    def note(dataset, **settings):
        names = ("collate_fn", "worker_init_fn")
        sent.append([dataset, *(settings.get(name) for name in names)])

    monkeypatch.setattr(module, "DataLoader", note)
    monkeypatch.setattr(module, "start_workers", lambda _: iter(()))
    if module is loader:
        list(loader.evaluation_batches(corpus.clips, 8000, batch_size=2, workers=1))
    else:
        spec = windows.WindowSpec(0.1, 0.1, 8000)
        windows.read_windows([*enumerate(corpus.clips)], spec, 1)
    assert sent
    for parts in sent:
        copies = pickle.loads(pickle.dumps(parts))
        assert [type(part) for part in copies] == [type(part) for part in parts]
