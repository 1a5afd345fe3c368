"""The batches of each step, copied to the device while the previous step runs."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from melpatch import distributed
from melpatch.data.clip import Batch
from melpatch.data.corpus import Corpus, Rejected
from melpatch.data.loader import LoadedBatch, training_batches
from melpatch.training.trainer import Trainer


@dataclass(frozen=True)
class StepBatches:
    """The data of one step on one process.

    Attributes:
        batches: one per accumulation, on the device. With several processes every rank has all of
            them, some perhaps without clips.
        rejected: clips that this process could not read.
    """

    batches: list[Batch]
    rejected: list[Rejected]


def step_batches(
    trainer: Trainer, corpus: Corpus, first_step: int
) -> Generator[StepBatches, None, None]:
    """Yield the batches of this process for each step, starting at ``first_step``."""
    config = trainer.config
    loaded = training_batches(
        corpus,
        config.loader,
        trainer.objective.wave_rate,
        seed=config.seed,
        first_step=first_step,
        accumulate=config.train.accumulate,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        with_labels=trainer.objective.needs_labels,
    )
    placeholder = _batch_without_clips(trainer)
    with closing(on_device(loaded, trainer.fabric.device)) as moved:
        while parts := list(islice(moved, config.train.accumulate)):
            batches = [part.batch for part in parts if part.batch is not None]
            if distributed.world_size() > 1:
                # Collective calls need every rank: one that can read none of its clips takes part
                # with an empty batch.
                batches = [placeholder if part.batch is None else part.batch for part in parts]
            yield StepBatches(batches, [clip for part in parts for clip in part.rejected])


def _batch_without_clips(trainer: Trainer) -> Batch:
    """Return an empty batch, for a rank that can read none of its clips in a step."""
    objective = trainer.objective
    samples = round(trainer.config.loader.seconds * objective.wave_rate)
    classes = None
    if objective.needs_labels:
        classes = len(trainer.config.labels)
    return Batch.empty(samples, classes).to(trainer.fabric.device)


def on_device(
    batches: Iterator[LoadedBatch], device: torch.device
) -> Generator[LoadedBatch, None, None]:
    """Yield the batches on a device, in order.

    On a GPU the next batch is copied from pinned memory on a separate stream while the current one
    is used. Two batches are on the GPU at a time, and it does not wait for the copy. On other
    devices there is nothing to overlap.
    """
    if device.type != "cuda":
        yield from (_moved(loaded, device) for loaded in batches)
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: tuple[LoadedBatch, torch.cuda.Event] | None = None
    for loaded in batches:
        # The copy of this batch starts before the previous batch is yielded.
        with torch.cuda.stream(copying):
            copied = _moved(loaded, device), copying.record_event()
        if ahead is not None:
            yield _for_computing(*ahead)
        ahead = copied
    if ahead is not None:
        yield _for_computing(*ahead)


def _moved(loaded: LoadedBatch, device: torch.device) -> LoadedBatch:
    if loaded.batch is None:
        return loaded
    return replace(loaded, batch=loaded.batch.to(device))


def _for_computing(loaded: LoadedBatch, copied: torch.cuda.Event) -> LoadedBatch:
    """Make the computing stream wait for the copy of a batch, and return the batch."""
    computing = torch.cuda.current_stream()
    computing.wait_event(copied)
    # Otherwise the allocator could reuse the memory for the next copy while this stream still
    # reads it.
    if loaded.batch is not None:
        for value in vars(loaded.batch).values():
            if isinstance(value, Tensor) and value.is_cuda:
                value.record_stream(computing)
    return loaded
