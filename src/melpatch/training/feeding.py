"""The batches of each step, copied to the device while the step before is computed."""

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
    """What a process learns from in one step.

    Attributes:
        batches: on the device, one per accumulation; of several processes each has them all, some without clips.
        rejected: clips that this process could not read.
    """

    batches: list[Batch]
    rejected: list[Rejected]


def step_batches(
    trainer: Trainer, corpus: Corpus, first_step: int
) -> Generator[StepBatches, None, None]:
    """Yield the batches of this process, step by step from ``first_step`` on."""
    config = trainer.config
    loaded = training_batches(
        corpus,
        config.loader,
        trainer.objective.front_end.sample_rate,
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
            batches = [placeholder if part.batch is None else part.batch for part in parts]
            if distributed.world_size() == 1:
                batches = [part.batch for part in parts if part.batch is not None]
            yield StepBatches(batches, [clip for part in parts for clip in part.rejected])


def _batch_without_clips(trainer: Trainer) -> Batch:
    """Return the batch of a process that can read none of its clips, since every rank must take part in a step."""
    objective = trainer.objective
    samples = round(trainer.config.loader.seconds * objective.front_end.sample_rate)
    classes = len(trainer.config.labels) if objective.needs_labels else None
    return Batch.empty(samples, classes).to(trainer.fabric.device)


def on_device(
    batches: Iterator[LoadedBatch], device: torch.device
) -> Generator[LoadedBatch, None, None]:
    """Yield the batches on a device, in their order.

    To a GPU, the next batch is copied from pinned memory on a stream of its own while the current one is used: two
    batches are there at a time, and the GPU does not wait for the copy. Elsewhere there is nothing to overlap.
    """
    if device.type != "cuda":
        yield from (_moved(loaded, device) for loaded in batches)
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: tuple[LoadedBatch, torch.cuda.Event] | None = None
    for loaded in batches:
        # The copy of this batch is started before the batch before it is handed out.
        with torch.cuda.stream(copying):
            copied = _moved(loaded, device), copying.record_event()
        if ahead is not None:
            yield _handed_over(*ahead)
        ahead = copied
    if ahead is not None:
        yield _handed_over(*ahead)


def _moved(loaded: LoadedBatch, device: torch.device) -> LoadedBatch:
    if loaded.batch is None:
        return loaded
    return replace(loaded, batch=loaded.batch.to(device))


def _handed_over(loaded: LoadedBatch, copied: torch.cuda.Event) -> LoadedBatch:
    """Return a batch for the computing stream, once that stream has been told to wait for the copy."""
    computing = torch.cuda.current_stream()
    computing.wait_event(copied)
    # Otherwise the allocator could reuse the memory for the next copy while this stream still reads it.
    if loaded.batch is not None:
        for value in vars(loaded.batch).values():
            if isinstance(value, Tensor) and value.is_cuda:
                value.record_stream(computing)
    return loaded
