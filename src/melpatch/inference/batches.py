"""Batches of windows of many recordings through a network; outputs in the order of the windows.

Windows of similar length share a batch, so that little is padded. For this a bounded number of
windows, a bucket, is collected and sorted; the next bucket is decoded while the network computes
the current one.
"""

from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.utils.rnn import pad_sequence

from melpatch.data.clip import Batch
from melpatch.errors import AudioError
from melpatch.inference.windows import RecordingEnd, Span, Window

T = TypeVar("T")

BatchFunction = Callable[[Batch], list[np.ndarray]]
"""Maps a batch of windows to one array per window."""


NOT_FINITE = "has an output that is no finite number"
"""Why a readable recording has no answer: its samples or the weights are out of range."""


class Output(NamedTuple):
    """The network's output for a window."""

    span: Span
    values: Float[np.ndarray, "*_"]


class IndexedBatch(NamedTuple):
    """A batch of windows that remembers where each of them belongs."""

    positions: list[int]
    """Position of each window in the order of its bucket."""
    batch: Batch


class Bucket(NamedTuple):
    """Windows that were sorted by length and batched together."""

    order: list[Span | RecordingEnd]
    """Windows and ends as they came."""
    batches: list[IndexedBatch]


def run_buckets(
    buckets: Iterator[Bucket], function: BatchFunction
) -> Iterator[Output | RecordingEnd]:
    """Yield the output for each window and the ends of recordings, in the order of the windows.

    An output that is not finite is not yielded; its recording ends with an error.

    Args:
        buckets: what :func:`make_buckets` yields.
        function: a batch to one array per window.
    """
    broken: set[int] = set()
    for bucket in buckets:
        # Batches come sorted by length; outputs are kept until they can be put back in order.
        values: dict[int, np.ndarray] = {}
        for positions, batch in bucket.batches:
            values.update(zip(positions, function(batch), strict=True))
        for position, item in enumerate(bucket.order):
            if isinstance(item, Span):
                if np.isfinite(values[position]).all():
                    yield Output(item, values[position])
                else:
                    broken.add(item.recording)
            elif item.recording in broken and item.error is None:
                yield item._replace(error=_not_finite())
            else:
                yield item


def _not_finite() -> AudioError:
    fix = "look at its samples, and at the run's weights"
    return AudioError("the recording", NOT_FINITE, fix)


def report_seconds(
    outputs: Iterator[Output | RecordingEnd], report: Callable[[float], None]
) -> Iterator[Output | RecordingEnd]:
    """Yield the items, and report the seconds of new audio in each window; overlaps count once."""
    end = 0.0
    for item in outputs:
        if isinstance(item, Output):
            report(item.span.end - end)
            end = item.span.end
        else:
            end = 0.0
        yield item


def make_buckets(
    items: Iterator[Window | RecordingEnd],
    batch_size: int,
    *,
    batches: int = 4,
    equal_lengths: bool = False,
    close: Collection[int] = (),
    pin_memory: bool = False,
) -> Generator[Bucket, None, None]:
    """Yield windows in batches of similar length, one bucket of them at a time.

    Args:
        items: windows and ends, recording after recording.
        batch_size: windows in a batch, at most.
        batches: batches in a bucket, whose windows are sorted by length together.
        equal_lengths: whether only windows of exactly the same length may share a batch.
        close: recordings that end a bucket. What follows them cannot change their batches, and so
            not one bit of their outputs.
        pin_memory: whether batches are pinned, so that a GPU copies them without waiting.
    """
    pending: list[Window | RecordingEnd] = []
    windows = 0  # in `pending`, without the ends
    for item in items:
        pending.append(item)
        if isinstance(item, Window):
            windows += 1
            full = windows == batches * batch_size
        else:
            full = item.recording in close
        if full:
            yield _make_bucket(pending, batch_size, equal_lengths, pin_memory)
            pending = []
            windows = 0
    if pending:
        yield _make_bucket(pending, batch_size, equal_lengths, pin_memory)


def _make_bucket(
    items: list[Window | RecordingEnd], batch_size: int, equal_lengths: bool, pin_memory: bool
) -> Bucket:
    waves = {position: item.wave for position, item in enumerate(items) if isinstance(item, Window)}
    # The sort is stable, so windows of the same length keep their order.
    positions = sorted(waves, key=lambda position: len(waves[position]))
    groups = [positions]
    if equal_lengths:
        by_length = groupby(positions, lambda position: len(waves[position]))
        groups = [[*group] for _, group in by_length]
    batches = []
    for group in groups:
        for first in range(0, len(group), batch_size):
            chosen = group[first : first + batch_size]
            # Popped, so that the memory of a window is freed once it is copied into its batch.
            padded = _pad([waves.pop(position) for position in chosen])
            if pin_memory:
                padded = padded.pin_memory()
            batches.append(IndexedBatch(chosen, padded))
    order = [item.span if isinstance(item, Window) else item for item in items]
    return Bucket(order, batches)


def _pad(waves: list[torch.Tensor]) -> Batch:
    """Return a batch padded with zeros to its longest window; its keys are 0 and name no clips."""
    lengths = torch.tensor([len(wave) for wave in waves])
    keys = torch.zeros(len(waves), dtype=torch.int64)
    return Batch(pad_sequence(waves, batch_first=True), lengths, keys)


def prefetch(items: Generator[T, None, None]) -> Generator[T, None, None]:
    """Yield the items; while one is in use, a thread makes the next."""
    try:
        # Leaving the `with` waits for the item in the making; only then can `items` be closed.
        with ThreadPoolExecutor(1) as executor:
            coming = executor.submit(next, items, None)
            while (item := coming.result()) is not None:
                coming = executor.submit(next, items, None)
                yield item
    finally:
        items.close()
