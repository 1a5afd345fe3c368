"""Windows of many recordings through a network, many at a time, and its answers in the order of the windows.

Windows of like length come into the same batch, so that little is padded; what is gathered for that is bounded, and the
next of it is decoded and gathered while the network is at work.
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
from melpatch.inference.windows import End, Span, Window

T = TypeVar("T")


class Answer(NamedTuple):
    """What the network made of a window."""

    span: Span
    value: Float[np.ndarray, "*_"]


class Gathered(NamedTuple):
    """Windows in batches, and what there was of them in which order."""

    order: list[Span | End]
    batches: list[tuple[list[int], Batch]]
    """The places of a batch's windows in the order, and the batch."""


def answers(
    gathered: Iterator[Gathered], function: Callable[[Batch], list[np.ndarray]]
) -> Iterator[Answer | End]:
    """Yield the function's value of each window and the ends of recordings, in the order of :func:`gather`.

    Args:
        gathered: what :func:`gather` yields.
        function: a batch to one array per window.
    """
    for order, batches in gathered:
        found: dict[int, np.ndarray] = {}
        for places, batch in batches:
            found.update(zip(places, function(batch), strict=True))
        for place, item in enumerate(order):
            yield item if isinstance(item, End) else Answer(item, found[place])


def told(found: Iterator[Answer | End], heard: Callable[[float], None]) -> Iterator[Answer | End]:
    """Yield the answers and ends, and tell after each window how many seconds of a recording it went on."""
    end = 0.0
    for item in found:
        if isinstance(item, Answer):
            heard(item.span.end - end)
        end = item.span.end if isinstance(item, Answer) else 0.0
        yield item


def gather(
    items: Iterator[Window | End],
    batch_size: int,
    *,
    bucket: int = 4,
    alike: bool = False,
    close: Collection[int] = (),
    pin: bool = False,
) -> Generator[Gathered, None, None]:
    """Yield windows in batches of like length, a few batches at a time.

    Args:
        items: windows and ends, recording after recording.
        batch_size: windows in a batch, at most.
        bucket: batches whose windows are gathered, and sorted by length, together.
        alike: whether only windows of the same length may share a batch.
        close: recordings after which no window waits for further ones, so that what they are computed with does not
            hang on the recordings that follow.
        pin: whether batches lie in memory from which a GPU copies without waiting.
    """
    held: list[Window | End] = []
    count = 0
    for item in items:
        held.append(item)
        count += isinstance(item, Window)
        if count == bucket * batch_size or (isinstance(item, End) and item.recording in close):
            yield _in_batches(held, batch_size, alike, pin)
            held, count = [], 0
    if held:
        yield _in_batches(held, batch_size, alike, pin)


def _in_batches(held: list[Window | End], batch_size: int, alike: bool, pin: bool) -> Gathered:
    waves = {place: item.wave for place, item in enumerate(held) if isinstance(item, Window)}
    places = sorted(waves, key=lambda place: len(waves[place]))
    groups = (
        [[*group] for _, group in groupby(places, lambda place: len(waves[place]))]
        if alike
        else [places]
    )
    batches = []
    for group in groups:
        for first in range(0, len(group), batch_size):
            chosen = group[first : first + batch_size]
            batches.append((chosen, _padded([waves.pop(place) for place in chosen], pin)))
    return Gathered([item.span if isinstance(item, Window) else item for item in held], batches)


def _padded(waves: list[torch.Tensor], pin: bool) -> Batch:
    wave, lengths = (
        pad_sequence(waves, batch_first=True),
        torch.tensor([len(wave) for wave in waves]),
    )
    keys = torch.zeros(len(waves), dtype=torch.int64)
    return (
        Batch(wave.pin_memory(), lengths.pin_memory(), keys) if pin else Batch(wave, lengths, keys)
    )


def ahead(items: Generator[T, None, None]) -> Generator[T, None, None]:
    """Yield the items, each made in a thread while the one before it is used."""
    try:
        with ThreadPoolExecutor(1) as thread:  # whose end waits for what is being made
            coming = thread.submit(next, items, None)
            while (item := coming.result()) is not None:
                coming = thread.submit(next, items, None)
                yield item
    finally:
        items.close()
