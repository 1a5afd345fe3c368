"""Batches to the device, each while the one before it is worked on."""

from collections.abc import Generator, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from melpatch.data.loader import LoadedBatch


def on_device(
    batches: Iterator[LoadedBatch], device: torch.device
) -> Generator[LoadedBatch, None, None]:
    """Yield the batches on a device, in their order.

    To a GPU the next batch is copied, from pinned memory and on a stream of its own, before the one before it is
    handed out: two lie there at a time, and the GPU waits for no copy. Elsewhere there is nothing to copy.
    """
    if device.type != "cuda":
        yield from (_moved(loaded, device) for loaded in batches)
        return
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: tuple[LoadedBatch, torch.cuda.Event] | None = None
    for loaded in batches:
        with torch.cuda.stream(side):
            copied = _moved(loaded, device), side.record_event()
        if ahead is not None:
            yield _handed_over(*ahead)
        ahead = copied
    if ahead is not None:
        yield _handed_over(*ahead)


def _moved(loaded: LoadedBatch, device: torch.device) -> LoadedBatch:
    return loaded if loaded.batch is None else replace(loaded, batch=loaded.batch.to(device))


def _handed_over(loaded: LoadedBatch, copied: torch.cuda.Event) -> LoadedBatch:
    """Have the computing stream wait for the copy, whose memory is not to be used anew before that stream is done."""
    computing = torch.cuda.current_stream()
    computing.wait_event(copied)
    if loaded.batch is not None:
        for value in vars(loaded.batch).values():
            if isinstance(value, Tensor) and value.is_cuda:
                value.record_stream(computing)
    return loaded
