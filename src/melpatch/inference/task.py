"""What is asked of each recording, and asking it: of one after the other, or of many at a time."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from melpatch.data.clip import Batch
from melpatch.errors import report_lost_workers
from melpatch.inference.batches import Answer, ahead, answers, gather, told
from melpatch.inference.rows import Row
from melpatch.inference.windows import End, Numbered, Windowing, whole, windows, windows_of_samples

Audio = str | PathLike[str] | np.ndarray | Tensor
"""A sound file, or samples of one channel; what samples must be is checked with a message, not by their type."""

Reduce = Callable[[Iterator[Answer | End]], Iterator[Row | End]]
"""From what a network made of windows to the rows of an output."""


class Task(NamedTuple):
    """What is asked of each recording."""

    cut: Windowing
    """How it is cut into windows."""
    function: Callable[[Batch], list[np.ndarray]]
    """A batch of windows to one array per window."""
    rows: Reduce
    """From these arrays to rows."""
    alike: bool = False
    """Whether only windows of the same length may share a batch, since padding would be heard."""
    pin: bool = False
    """Whether batches are copied to a GPU."""


def of_one(task: Task, audio: Audio, sample_rate: int | None) -> Iterator[Row]:
    """Yield the rows of one recording as they are made, window after window.

    Args:
        task: what is asked.
        audio: a file, or samples in [-1, 1] of one channel.
        sample_rate: rate of the samples in Hz; files know their own.

    Raises:
        AudioError: the file cannot be read; what was made of it up to the damage has been yielded by then.
        ConfigError: the samples are none.
    """
    if isinstance(audio, str | PathLike):
        items = windows([(0, whole(Path(audio)))], task.cut)
    else:
        items = windows_of_samples(audio, sample_rate, task.cut)
    for item in task.rows(answers(gather(items, 1, bucket=1), task.function)):
        if isinstance(item, Row):
            yield item
        elif item.error is not None:
            raise item.error


def of_many(
    task: Task,
    groups: Sequence[Numbered],
    *,
    batch_size: int,
    workers: int = 0,
    heard: Callable[[float], None] = lambda _: None,
) -> Generator[Row | End, None, None]:
    """Yield the rows of recordings as they are made, and the end of each, in their order; to be closed, if left early.

    Args:
        task: what is asked.
        groups: the recordings; what is said of those of a group hangs, to the last bit, on no other group.
        batch_size: windows at a time.
        workers: decoding processes; 0 decodes in a thread beside the network.
        heard: told how many seconds of sound have been worked on since it was told last.

    Raises:
        MelpatchError: a decoding process was killed.
    """
    items = windows([one for group in groups for one in group], task.cut, workers)
    close = {group[-1][0] for group in groups}
    gathered = gather(items, batch_size, alike=task.alike, close=close, pin=task.pin)
    with report_lost_workers(), closing(ahead(gathered)) as coming:
        yield from task.rows(told(answers(coming, task.function), heard))
