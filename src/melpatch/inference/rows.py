"""From the answers of windows to the rows of an output: one per recording, one per window, or one per frame."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from melpatch.inference.batches import Answer
from melpatch.inference.windows import End


class Row(NamedTuple):
    """What is said of a stretch of a recording."""

    recording: int
    """The number of the recording."""
    start: float
    """Seconds from the beginning of the recording."""
    end: float
    values: Float[np.ndarray, " _"]
    """float32."""


def means(found: Iterator[Answer | End]) -> Iterator[Row | End]:
    """Yield the mean over each recording's windows, weighted by their length, and its end; of a recording with which
    something is wrong only the end."""
    total, weight, end = np.zeros(()), 0.0, 0.0
    for item in found:
        if isinstance(item, Answer):
            seconds, end = item.span.end - item.span.start, item.span.end
            total, weight = total + seconds * item.value.astype(np.float64), weight + seconds
            continue
        if item.error is None:
            yield Row(item.recording, 0.0, end, (total / weight).astype(np.float32))
        yield item
        total, weight = np.zeros(()), 0.0


def each(found: Iterator[Answer | End]) -> Iterator[Row | End]:
    """Yield a row per window, and the ends."""
    for item in found:
        yield item if isinstance(item, End) else Row(*item.span, item.value)


def frames(
    found: Iterator[Answer | End], hop: float, column: float, width: float
) -> Iterator[Row | End]:
    """Yield the frames of each recording, a frame once no later window can show a column of it; and the ends.

    A frame is the mean of the columns whose middle falls into it, over all windows that show them, which may overlap.

    Args:
        found: the columns of each window, (column, dim).
        hop: length of a frame, in seconds; at least one column.
        column: from the beginning of a column to that of the next, in seconds.
        width: length of a column, in seconds.
    """
    sums: _Sums = {}
    end = 0.0
    for item in found:
        if isinstance(item, End):
            if item.error is None:
                yield from _taken(sums, item.recording, hop, None, end)
            yield item
            sums.clear()
            continue
        begins = item.span.start + column * np.arange(len(item.value))
        begins, end = (
            begins[begins < item.span.end],
            item.span.end,
        )  # legacy padding goes on behind the sound
        numbers = ((np.minimum(begins + width / 2, end - 1e-6) + 1e-9) / hop).astype(np.int64)
        yield from _taken(sums, item.span.recording, hop, int(numbers[0]), end)
        for number in np.unique(numbers).tolist():
            shown = item.value[: len(numbers)][numbers == number]
            total, count = sums.get(number, (np.zeros((), np.float32), 0))
            sums[number] = total + shown.sum(axis=0), count + len(shown)


_Sums = dict[int, tuple[np.ndarray, int]]


def _taken(
    sums: _Sums, recording: int, hop: float, before: int | None, end: float
) -> Iterator[Row]:
    """Take the frames with smaller numbers (None: all) out of the sums, and yield their means."""
    order = sorted(sums)
    for place, number in enumerate(order, start=1):
        if before is None or number < before:
            after = order[place] if place < len(order) else None
            total, count = sums.pop(number)
            yield Row(
                recording,
                number * hop,
                end if after is None else after * hop,
                total / np.float32(count),
            )
