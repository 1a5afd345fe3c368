"""Collectives over the processes that ``torchrun`` starts; every function is a plain no-op in one process."""

import gc
import hashlib
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from melpatch.errors import ConfigError, DataError, Interrupted, MelpatchError

T = TypeVar("T")

# The key-value store that all processes share while a process group is open; empty otherwise.
_store: list[Store] = []
_RENDEZVOUS_TIMEOUT = timedelta(minutes=30)
# A rank may wait this long for another, which may be fitting a large probe. A failure ends the wait
# at once.
_COLLECTIVE_TIMEOUT = timedelta(hours=12)


def launched_by_torchrun() -> bool:
    """Return whether torchrun (or a compatible launcher) started this process together with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if _is_initialized() else 0


def local_world_size() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if _is_initialized() else 1


def is_rank_zero() -> bool:
    """Return whether this is rank 0, the only process that writes files and prints."""
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """Open the process group for the body of a ``with``; a no-op without torchrun.

    Each process gets a GPU of its own where there are GPUs. A body that raises ends this process
    without waiting for the others, which torchrun then stops; :func:`first_to_fail` says whether it
    was the first one to raise.

    Raises:
        ConfigError: there are more processes on this machine than GPUs.
        MelpatchError: another process died while this one waited for it.
    """
    if not launched_by_torchrun() or _is_initialized():
        yield
        return
    backend = "gloo"
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus:
        torch.cuda.set_device(min(local_rank, gpus - 1))
        backend = "cpu:gloo,cuda:nccl"

    # torchrun may keep the store of an earlier attempt, so each attempt has its own keys.
    store, number, count = next(rendezvous("env://", timeout=_RENDEZVOUS_TIMEOUT))
    store = PrefixStore(f"attempt {_restarts()}", store)
    dist.init_process_group(
        backend, store=store, rank=number, world_size=count, timeout=_COLLECTIVE_TIMEOUT
    )
    _store[:] = [PrefixStore("melpatch", store)]

    # Checked only now: once the store is shared, a single process can report the error.
    if 0 < gpus < local_processes:
        raise ConfigError(
            f"--nproc-per-node = {local_processes}; allowed: at most {gpus}, "
            "one process per GPU of this machine"
        )
    try:
        yield
    except Interrupted as interruption:  # all processes stop together and have saved
        traceback.clear_frames(interruption.__traceback__)
        _close()
        raise
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise MelpatchError(
                "another process exited without a message, perhaps killed for lack of memory "
                "(torchrun prints its exit code); continue with --resume"
            ) from error
        raise
    _close()
    _store.clear()


def first_to_fail() -> bool:
    """Return whether this is the first process to report a failure; the others fail as a consequence."""
    if not _store:
        return True
    name = str(rank())
    try:
        return bool(_store[0].compare_set("failed", "", name) == name.encode())
    except RuntimeError:  # the store lives in torchrun's agent, which has exited
        return False


def restarted() -> bool:
    """Return whether torchrun restarted this process after a failure."""
    return _restarts() > 0


def shard_of_rank(items: Sequence[T]) -> Sequence[T]:
    """Return this process's share: every world_size-th item."""
    return items[rank() :: world_size()]


def all_gather_objects(value: T) -> list[T]:
    """Return the values of all processes in the order of their ranks; a collective call."""
    if not _is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def require_same_on_all_ranks(value: object, what: str) -> None:
    """Raise unless every process has the same value; a collective call.

    Args:
        value: compared by its ``repr``.
        what: a plural noun phrase for the message, such as "the clips of birds".

    Raises:
        DataError: the value of some rank differs from that of rank 0.
    """
    if world_size() == 1:
        return
    digests = all_gather_objects(hashlib.sha256(repr(value).encode()).digest())
    different = [str(number) for number, digest in enumerate(digests) if digest != digests[0]]
    if different:
        raise DataError(
            f"{what} are not the same on rank {', '.join(different)} as on rank 0; give all machines "
            "the same files and lists, in a shared folder or as complete copies"
        )


def broadcast_from_rank_zero(value: T) -> T:
    """Return the value of rank 0; a collective call."""
    box = [value]
    if _is_initialized():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def on_rank_zero(make: Callable[[], T]) -> T:
    """Call a function on rank 0 while the others wait, and return its result everywhere; a collective call.

    Raises:
        Exception: whatever the function raised on rank 0, on every rank.
    """
    result: T | Exception | None = None
    if is_rank_zero():
        try:
            result = make()
        except Exception as error:
            if world_size() == 1:
                raise
            result = error
    shared: Any = broadcast_from_rank_zero(result)
    if isinstance(shared, Exception):
        raise shared
    return shared  # type: ignore[no-any-return]


def all_gather_rows(rows: Tensor) -> list[Tensor]:
    """Return the rows of each process, whose numbers of rows may differ; a collective call."""
    if not _is_initialized():
        return [rows]
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(world_size())]
    dist.all_gather(counts, count)
    sizes = torch.cat(counts).tolist()

    # all_gather wants equal shapes, so every process pads to the largest share.
    padding = rows.new_zeros(max(sizes) - len(rows), *rows.shape[1:])
    padded = torch.cat([rows, padding])
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]


def all_reduce_sum(values: Tensor) -> Tensor:
    """Return the sum over all processes of a tensor of one shape; a collective call."""
    if _is_initialized():
        values = values.clone()
        dist.all_reduce(values)
    return values


def on_any_rank(value: bool) -> bool:
    """Return whether a value is true on any process; a collective call."""
    if not _is_initialized():
        return value
    flag = torch.tensor(float(value))
    dist.all_reduce(flag)
    return bool(flag)


def barrier() -> None:
    """Return once all processes have reached this call."""
    if _is_initialized():
        dist.barrier()


def _close() -> None:
    """Close the process group and end its threads."""
    dist.destroy_process_group()
    # A network wrapped for several processes is part of reference cycles, which keep the threads of
    # the group alive. A thread that drops a tensor while the interpreter exits aborts the process.
    gc.collect()


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()
