"""Processes of tests, forked from one that has imported the package: two that speak to each other, and workers."""

import gc
import multiprocessing
import os
import socket
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from places import ROOT

# Processes are forked from one that has imported this, which takes longer than most of the tests.
multiprocessing.set_forkserver_preload(
    ["melpatch.data.packing", "melpatch.evaluation.evaluate", "melpatch.training.loop"]
)


def in_both(function, folder, monkeypatch):
    """Return ``function(rank, folder)`` of two processes, in the order of their ranks.

    Args:
        function: of a test file's own, since the processes import it by name; it returns tensors and numbers.
        folder: an empty folder, where the processes meet.
        monkeypatch: pytest's.
    """
    for path in (ROOT, ROOT / "tests"):
        monkeypatch.syspath_prepend(path)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    # As torchrun does: a fixed port may be taken, by another session of tests for example.
    monkeypatch.setenv("MASTER_PORT", str(_free_port()))
    torch.multiprocessing.start_processes(
        _be_one, (function, folder, dict(os.environ)), nprocs=2, start_method="forkserver"
    )
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def fabric_of(precision, **strategy):
    """Return Fabric as one of the two processes has it."""
    ddp = DDPStrategy(process_group_backend="gloo", **strategy)
    fabric = Fabric(accelerator="cpu", devices=2, strategy=ddp, precision=precision)
    fabric.launch()
    return fabric


def fork_workers(module, monkeypatch):
    """Fork the worker processes that a module spawns; each spawned one would import the package."""
    monkeypatch.setattr(module, "get_context", lambda _: multiprocessing.get_context("forkserver"))


def _be_one(rank, function, folder, environment):
    os.environ.clear()  # of the test when the first pair was started
    os.environ.update(environment)
    # Otherwise Fabric would start the whole test session again, as a process to train with.
    os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    place = f"file://{folder}/meeting"
    torch.distributed.init_process_group(
        "gloo", place, timedelta(minutes=2), rank=rank, world_size=2
    )
    torch.save(function(rank, folder), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()
    gc.collect()  # ends gloo's threads, which could abort an interpreter that is exiting
