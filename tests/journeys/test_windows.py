"""Every command that writes, on a simulated Windows, and workers that are spawned as there and on macOS."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from contracts.commands_that_write import InThisProcess, commands, write_inputs
from tiny_runs import noises

from melpatch import cli
from melpatch.data import loader
from melpatch.data.manifest import load_corpus

COMMANDS = ("prepare", "pack", "pretrain", "finetune", "embed", "predict", "evaluate", "compare")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def windows(monkeypatch):
    """A system without some signals, processor affinity and folders that can be opened."""
    real = os.open

    def opened(path, *arguments, **named):
        if Path(os.fsdecode(path)).is_dir():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr("shutil._use_fd_functions", False)
    # Not for libraries, which would look for what Python itself lacks here.
    for module in ("atomic", "outputs"):
        monkeypatch.setattr(f"melpatch.{module}.sys", SimpleNamespace(platform="win32"))
    for name in ("SIGUSR1", "SIGHUP"):
        monkeypatch.delattr(signal, name)
    for name in ("sched_getaffinity", "sysconf"):
        monkeypatch.delattr(os, name)
    monkeypatch.setattr("melpatch.machine.resource", None)
    monkeypatch.setattr("melpatch.comparison.work.Subprocesses", InThisProcess)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_does_without_what_windows_lacks(name, inputs, windows, tmp_path):
    command = commands(inputs)[name]
    assert cli.main(command.at(tmp_path)) == 0
    assert (tmp_path / command.out).exists()


def test_clips_are_read_and_packed_by_processes_that_are_spawned(tmp_path):
    corpus = noises(tmp_path / "noise", (0.2, 0.3))
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        (spawned,) = loader.evaluation_batches(corpus.clips, 8000, batch_size=2, workers=1)
    finally:
        multiprocessing.set_start_method(before, force=True)
    (own,) = loader.evaluation_batches(corpus.clips, 8000, batch_size=2, workers=0)
    assert torch.equal(spawned.batch.wave, own.batch.wave)
    # Decoding processes are spawned on every system.
    words = ["pack", str(tmp_path / "noise"), "--workers", "1", "--out", str(tmp_path / "shards")]
    assert cli.main(words) == 0
    assert len(load_corpus([tmp_path / "shards"]).clips) == 2
