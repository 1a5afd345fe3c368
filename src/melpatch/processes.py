"""Several processes that do one thing together, as ``torchrun`` starts them: which one this is, and what they tell each
other. Alone, every function here does the obvious thing at once.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")
_PATIENCE = timedelta(minutes=30)  # how long one process waits for another, which may be measuring or saving


def started() -> bool:
    """Return whether torchrun (or what speaks as it does) started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def world_size() -> int:
    """Return how many processes there are."""
    return distributed.get_world_size() if _together() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if _together() else 0


def is_first() -> bool:
    """Return whether this is the process that writes what all have made."""
    return rank() == 0


@contextmanager
def together() -> Iterator[None]:
    """Meet the others for the body of a ``with``, where there are others; a GPU each, where there are GPUs.

    A body that raises ends this process without waiting for the others, which torchrun then stops.
    """
    if not started() or _together():
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    yield
    distributed.destroy_process_group()


def mine(items: Sequence[T]) -> Sequence[T]:
    """Return every so-manieth item: this process's share of them."""
    return items[rank() :: world_size()]


def everyones(value: T) -> list[T]:
    """Return what each process gave, in the order of their numbers; all must call it."""
    if not _together():
        return [value]
    found: list[Any] = [None] * world_size()
    distributed.all_gather_object(found, value)
    return found


def from_first(value: T) -> T:
    """Return what the first process gave; all must call it."""
    held = [value]
    if _together():
        distributed.broadcast_object_list(held, src=0)
    return held[0]


def wait() -> None:
    """Return once all processes have come here."""
    if _together():
        distributed.barrier()


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
