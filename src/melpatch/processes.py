"""Several processes that do one thing together, as ``torchrun`` starts them: which one this is, and what they tell each
other. Alone, every function here does the obvious thing at once.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from melpatch.errors import ConfigError, DataError, MelpatchError

T = TypeVar("T")
_board: list[Store] = []  # on which all can write, while they are together
_MEETING = timedelta(minutes=30)  # within which all have to come
_PATIENCE = timedelta(
    hours=12
)  # of one for another, which may fit a large probe; a failure ends the waiting at once


def started() -> bool:
    """Return whether torchrun (or what speaks as it does) started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def world_size() -> int:
    """Return how many processes there are."""
    return distributed.get_world_size() if _together() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if _together() else 0


def on_this_machine() -> int:
    """Return how many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if _together() else 1


def is_first() -> bool:
    """Return whether this is the process that writes what all have made."""
    return rank() == 0


@contextmanager
def together() -> Iterator[None]:
    """Meet the others for the body of a ``with``, where there are others; a GPU each, where there are GPUs.

    A body that raises ends this process without waiting for the others, which torchrun then stops; that it was the
    first to, if it was, :func:`first_to_fail` knows.

    Raises:
        ConfigError: there are more processes on this machine than GPUs.
        MelpatchError: another process was ended while this one waited for it.
    """
    if not started() or _together():
        yield
        return
    backend, here, own = (
        "gloo",
        *(int(os.environ.get(name, "0")) for name in ("LOCAL_WORLD_SIZE", "LOCAL_RANK")),
    )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus:
        torch.cuda.set_device(min(own, gpus - 1))
        backend = "cpu:gloo,cuda:nccl"
    store, number, count = next(rendezvous("env://", timeout=_MEETING))
    store = PrefixStore(
        f"attempt {_restarts()}", store
    )  # torchrun may keep what those before wrote
    distributed.init_process_group(
        backend, store=store, rank=number, world_size=count, timeout=_PATIENCE
    )
    _board[:] = [PrefixStore("melpatch", store)]
    if 0 < gpus < here:  # told now that they have met, so that one alone tells it
        raise ConfigError(
            f"--nproc-per-node = {here}; allowed: at most {gpus}, the GPUs of this machine, one for each"
        )
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise MelpatchError(
                "another process has gone without a word, perhaps killed for lack of memory (torchrun tells its exit "
                "code); go on with --resume"
            ) from error
        raise
    distributed.destroy_process_group()
    _board.clear()


def first_to_fail() -> bool:
    """Return whether no other process has said so before: what then ended this one is what all of them end of."""
    if not _board:
        return True
    name = str(rank())
    try:
        return bool(_board[0].compare_set("failed", "", name) == name.encode())
    except RuntimeError:  # torchrun, which keeps the board, has gone
        return False


def restarted() -> bool:
    """Return whether torchrun started this process in the place of one that had failed."""
    return _restarts() > 0


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


def agree(value: object, what: str) -> None:
    """Make sure that all processes have the same; all must call it.

    Args:
        value: of which equal ones are written alike.
        what: in words, as "the clips of birds".

    Raises:
        DataError: a process has something else than the first one.
    """
    if world_size() == 1:
        return
    found = everyones(hashlib.sha256(repr(value).encode()).digest())
    others = [str(number) for number, each in enumerate(found) if each != found[0]]
    if others:
        raise DataError(
            f"{what} are not the same in process {', '.join(others)} as in process 0; give all machines the same "
            "files and lists, by a folder that all see or by whole copies"
        )


def from_first(value: T) -> T:
    """Return what the first process gave; all must call it."""
    held = [value]
    if _together():
        distributed.broadcast_object_list(held, src=0)
    return held[0]


def by_first(make: Callable[[], T]) -> T:
    """Return what the first process makes, while the others wait; all must call it.

    Raises:
        Exception: what the first process raised, in all of them.
    """
    made: T | Exception | None = None
    if is_first():
        try:
            made = make()
        except Exception as error:
            if world_size() == 1:
                raise
            made = error
    found: Any = from_first(made)
    if isinstance(found, Exception):
        raise found
    return found  # type: ignore[no-any-return]


def gathered(rows: Tensor) -> list[Tensor]:
    """Return the rows that each process gave, of which each may have another number; all must call it."""
    if not _together():
        return [rows]
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(world_size())]
    distributed.all_gather(counts, count)
    sizes = torch.cat(counts).tolist()
    padded = torch.cat(
        [rows, rows.new_zeros(max(sizes) - len(rows), *rows.shape[1:])]
    )  # one size for all
    parts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(parts, padded)
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]


def summed(values: Tensor) -> Tensor:
    """Return the sum of the tensors that the processes gave, which are of one shape; all must call it."""
    if _together():
        values = values.clone()
        distributed.all_reduce(values)
    return values


def wait() -> None:
    """Return once all processes have come here."""
    if _together():
        distributed.barrier()


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()
