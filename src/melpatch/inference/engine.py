"""The engine of all inference: recordings to windows, windows to batches, outputs to rows.

``Model``, the commands ``embed`` and ``predict``, and the evaluation of corpora run through it.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from melpatch.data.corpus import Rejected
from melpatch.data.limits import require_batch, require_workers
from melpatch.errors import ConfigError, report_lost_workers
from melpatch.inference.batches import (
    BatchFunction,
    make_buckets,
    prefetch,
    report_seconds,
    run_buckets,
)
from melpatch.inference.rows import Row, ToRows
from melpatch.inference.samples import windows_of
from melpatch.inference.windows import (
    NumberedClips,
    RecordingEnd,
    Window,
    WindowSpec,
    clip_of_file,
    read_windows,
)


class InferenceTask(NamedTuple):
    """What to compute for each recording."""

    windows: WindowSpec
    """How it is cut."""
    function: BatchFunction
    """A batch of windows to one array per window."""
    to_rows: ToRows
    """From these arrays to rows."""
    equal_lengths: bool = False
    """Whether only windows of the same length share a batch, because padding changes the output."""
    pin_memory: bool = False
    """Whether batches are pinned because they will be copied to a GPU."""


def infer_one(task: InferenceTask, audio: Any, sample_rate: int | None) -> Iterator[Row]:
    """Yield the rows of one recording as they are computed, window after window.

    Args:
        task: what to compute.
        audio: a file, an open file, or samples; see :func:`melpatch.inference.samples.windows_of`.
        sample_rate: rate of samples in Hz; files state their own.

    Raises:
        AudioError: the file cannot be read; the rows up to the damage have been yielded by then.
        ConfigError: the samples are not audio.
    """
    windows = windows_of(audio, sample_rate, task.windows)
    # One window at a time: no memory for a bucket, and rows come at once.
    buckets = make_buckets(windows, batch_size=1, batches=1)
    for item in task.to_rows(run_buckets(buckets, task.function)):
        if isinstance(item, Row):
            yield item
        elif item.error is not None:
            raise item.error


def infer_each(
    task: InferenceTask, recordings: Iterable[tuple[Any, int | None]], *, batch_size: int
) -> Iterator[list[Row]]:
    """Yield the rows of each of many recordings, of any kind, many windows at a time.

    Args:
        task: what to compute.
        recordings: files, open files or samples, each with the rate of samples; see
            :func:`infer_one`.
        batch_size: windows at a time.

    Raises:
        AudioError: a file cannot be read.
        ConfigError: samples are not audio; the message gives the number of the recording, from 0.
    """
    buckets = make_buckets(
        _windows_of_each(task, recordings),
        batch_size,
        equal_lengths=task.equal_lengths,
        pin_memory=task.pin_memory,
    )
    with closing(prefetch(buckets)) as coming:
        rows: list[Row] = []
        for item in task.to_rows(run_buckets(coming, task.function)):
            if isinstance(item, Row):
                rows.append(item)
                continue
            if item.error is not None:
                raise item.error
            yield rows
            rows = []


def _windows_of_each(
    task: InferenceTask, recordings: Iterable[tuple[Any, int | None]]
) -> Iterator[Window | RecordingEnd]:
    for number, (audio, sample_rate) in enumerate(recordings):
        try:
            yield from windows_of(audio, sample_rate, task.windows, number)
        except ConfigError as error:
            raise ConfigError(f"recording {number}: {error}") from error


def infer_many(
    task: InferenceTask,
    groups: Sequence[NumberedClips],
    *,
    batch_size: int,
    workers: int = 0,
    report: Callable[[float], None] = lambda _: None,
) -> Generator[Row | RecordingEnd, None, None]:
    """Yield the rows of recordings and the end of each, in order; close it if you stop early.

    Args:
        task: what to compute.
        groups: recordings, at least one each; not one bit of a group's rows depends on the others.
        batch_size: windows at a time.
        workers: decoding processes; 0 decodes in a thread beside the network.
        report: called with the seconds of audio done since its last call.

    Raises:
        MelpatchError: a decoding process was killed.
    """
    require_workers(workers)
    require_batch(batch_size, task.windows.seconds, task.windows.sample_rate)
    clips = [clip for group in groups for clip in group]
    buckets = make_buckets(
        read_windows(clips, task.windows, workers),
        batch_size,
        equal_lengths=task.equal_lengths,
        close={group[-1][0] for group in groups},
        pin_memory=task.pin_memory,
    )
    with report_lost_workers(), closing(prefetch(buckets)) as coming:
        outputs = run_buckets(coming, task.function)
        yield from task.to_rows(report_seconds(outputs, report))


def infer_files(
    task: InferenceTask,
    files: Sequence[Path],
    *,
    batch_size: int,
    workers: int,
    rejected: list[Rejected] | None,
) -> Iterator[tuple[Path, list[Row]]]:
    """Yield the files that can be read, in order, each with its rows.

    Args:
        task: what to compute.
        files: sound files.
        batch_size: windows at a time.
        workers: decoding processes; 0 decodes in a thread beside the network.
        rejected: takes the files that cannot be read; without it, the first of them is an error.
    """
    numbered = [*enumerate(map(clip_of_file, files))]
    groups = [numbered] if numbered else []
    items = infer_many(task, groups, batch_size=batch_size, workers=workers)
    rows: list[Row] = []
    with closing(items):
        for item in items:
            if isinstance(item, Row):
                rows.append(item)
                continue
            path = files[item.recording]
            if item.error is None:
                yield path, rows
            elif rejected is None:
                raise item.error
            else:
                rejected.append(Rejected(str(path), item.error.reason))
            rows = []
