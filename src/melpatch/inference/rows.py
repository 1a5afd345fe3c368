"""From the outputs for windows to rows: one per recording, one per window, or one per frame."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from melpatch.inference.batches import Output
from melpatch.inference.windows import RecordingEnd


class Row(NamedTuple):
    """The result for a stretch of a recording."""

    recording: int
    """Number of the recording."""
    start: float
    """Seconds from the start of the recording."""
    end: float
    """Seconds from the start of the recording."""
    values: Float[np.ndarray, "*_"]
    silent: bool = False
    """Whether there is no sound in it, so that the values say nothing about sound."""


ToRows = Callable[[Iterator[Output | RecordingEnd]], Iterator[Row | RecordingEnd]]
"""Turns the outputs for the windows of recordings into their rows."""


class Total(Protocol):
    """What the windows of a recording, end to end, come to."""

    def add(self, values: Float[np.ndarray, "*_"], seconds: float) -> None:
        """Take the output for the next window, which has this length."""

    def result(self) -> Float[np.ndarray, "*_"]:
        """Return what the windows so far come to; there is at least one."""


class MeanOfWindows:
    """The mean over windows, weighted by their length."""

    def __init__(self) -> None:
        self._sum = np.zeros(())
        self._seconds = 0.0

    def add(self, values: Float[np.ndarray, "*_"], seconds: float) -> None:
        """See :class:`Total`."""
        self._sum = self._sum + seconds * values.astype(np.float64)
        self._seconds += seconds

    def result(self) -> Float[np.ndarray, "*_"]:
        """See :class:`Total`."""
        mean: np.ndarray = (self._sum / self._seconds).astype(np.float32)
        return mean


def recording_rows(
    outputs: Iterator[Output | RecordingEnd],
    *,
    new_total: Callable[[], Total] = MeanOfWindows,
    keep_partial: bool = False,
) -> Iterator[Row | RecordingEnd]:
    """Yield what each recording's windows come to, and its end.

    Args:
        outputs: of windows end to end.
        new_total: makes what sums up the windows of one recording.
        keep_partial: whether a recording that cannot be read to its end has the sum of the windows
            before the damage; otherwise it has no row.
    """
    total = new_total()
    end = 0.0
    silent = True
    for item in outputs:
        if isinstance(item, Output):
            total.add(item.values, item.span.end - item.span.start)
            end = item.span.end
            silent &= item.span.silent
            continue
        if end and (item.error is None or keep_partial):
            yield Row(item.recording, 0.0, end, total.result(), silent)
        yield item
        total = new_total()
        end = 0.0
        silent = True


def window_rows(outputs: Iterator[Output | RecordingEnd]) -> Iterator[Row | RecordingEnd]:
    """Yield a row for each window, and the ends."""
    for item in outputs:
        if isinstance(item, RecordingEnd):
            yield item
        else:
            span = item.span
            yield Row(span.recording, span.start, span.end, item.values, span.silent)


def frame_rows(
    outputs: Iterator[Output | RecordingEnd],
    hop: float,
    column_hop: float,
    column_width: float,
    *,
    keep_partial: bool = False,
) -> Iterator[Row | RecordingEnd]:
    """Yield the frames of each recording, each once no later window can contribute, and the ends.

    A frame is the mean of the patch columns whose middle falls into it, over all windows that
    contain them; windows may overlap.

    Args:
        outputs: the columns of each window, (column, dim).
        hop: length of a frame, in seconds; at least one column.
        column_hop: seconds between the starts of consecutive columns.
        column_width: length of a column, in seconds.
        keep_partial: whether a recording that cannot be read to its end has all frames before the
            damage.
    """
    sums: _FrameSums = {}
    end = 0.0
    for item in outputs:
        if isinstance(item, RecordingEnd):
            if item.error is None or keep_partial:
                yield from _finished(sums, item.recording, hop, None, end)
            yield item
            sums.clear()
            continue
        end = item.span.end
        starts = item.span.start + column_hop * np.arange(len(item.values))
        # Legacy padding continues behind the end of the audio; those columns hold no sound.
        starts = starts[starts < end]
        # The frame of a column is floor(middle / hop). The middle is kept inside the recording, and
        # 1e-9 s absorb the rounding of middles that fall exactly onto the edge of a frame.
        middles = np.minimum(starts + column_width / 2, end - 1e-6)
        frames = ((middles + 1e-9) / hop).astype(np.int64)
        # Windows come in order of their start, so frames before this window's first are complete.
        yield from _finished(sums, item.span.recording, hop, int(frames[0]), end)
        for frame in np.unique(frames).tolist():
            columns = item.values[: len(frames)][frames == frame]
            total, count = sums.get(frame, (np.zeros((), np.float32), 0))
            sums[frame] = (total + columns.sum(axis=0), count + len(columns))


_FrameSums = dict[int, tuple[np.ndarray, int]]
"""Sum and number of the columns of each unfinished frame."""


def _finished(
    sums: _FrameSums, recording: int, hop: float, before: int | None, end: float
) -> Iterator[Row]:
    """Remove the frames below a number from the sums, or all if it is None, and yield their means.

    A frame lasts until the next one that has columns, the last until the end of the audio.
    """
    frames = sorted(sums)
    for position, frame in enumerate(frames, start=1):
        if before is not None and frame >= before:
            return
        frame_end = end
        if position < len(frames):
            frame_end = frames[position] * hop
        total, count = sums.pop(frame)
        yield Row(recording, frame * hop, frame_end, total / np.float32(count))
