"""Recordings to one output file: shared between ranks, in parts that survive a crash."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from melpatch import distributed
from melpatch.atomic import clear_partial
from melpatch.counted import counted
from melpatch.data.clip import Clip
from melpatch.data.corpus import Rejected
from melpatch.data.manifest import REJECTED_HEADER, write_rejected
from melpatch.data.ranges import shards_to_fetch_whole
from melpatch.errors import DataError, UnreachableError
from melpatch.inference import tables
from melpatch.inference.engine import InferenceTask, infer_many
from melpatch.inference.parts import Part, PartFolder, PartWriter, group_clips
from melpatch.inference.rows import Row
from melpatch.inference.windows import NumberedClips, RecordingEnd
from melpatch.only_writer import only_writer
from melpatch.outputs import list_beside
from melpatch.progress import bar, notice

_POLL_SECONDS = 0.5  # between looks for the parts of other ranks


@dataclass(frozen=True, kw_only=True)
class InferenceJob:
    """What to compute for which recordings, and where to write it.

    Attributes:
        out: output file or folder; its parts lie beside it until it is finished.
        write: writes all rows, given as chunks, to the file or folder that it is told.
        recordings: recordings in the order of the rows.
        note: notes beside the output what it is to hold, from the file that takes its place and
            all rows; None notes nothing.
        malformed: lines of CSV files that name none.
        inputs: files that are read.
        task: what to compute for each.
        about: what the rows depend on, see :class:`melpatch.inference.parts.PartFolder`.
        keep: whether a recording that could not be read to its end keeps its rows.
        batch_size: windows at a time.
        workers: decoding processes of each rank.
        resume: whether to continue a killed run.
    """

    out: Path
    write: Callable[[Path, tables.Chunks], None]
    recordings: Sequence[Clip]
    task: InferenceTask
    about: Mapping[str, Any]
    keep: bool
    batch_size: int
    workers: int
    resume: bool
    note: Callable[[Path, tables.Chunks], None] | None = None
    malformed: Sequence[Rejected] = ()
    inputs: Sequence[str | Path] = ()

    @property
    def unit(self) -> str:
        """What a recording is: a whole file, or a clip of one."""
        whole = all(clip.duration == inf and not clip.start for clip in self.recordings)
        return "file" if whole else "clip"


def write_output(job: InferenceJob) -> None:
    """Write the output of a job; recordings that cannot be read are listed in ``OUT.rejected.csv``.

    Raises:
        ConfigError: another process writes the same output.
        CheckpointError: a killed run left parts that must not be mixed with new ones.
        DataError: no recording can be read.
        MelpatchError: a decoding process was killed; the complete parts stay.
        UnreachableError: a shard cannot be fetched; the complete parts stay.
    """
    with only_writer(job.out):
        _write_in_parts(job)


def _write_in_parts(job: InferenceJob) -> None:
    start = time.monotonic()
    folder = PartFolder(job.out, job.about, resume=job.resume)
    groups = group_clips(job.recordings)
    # Rank 0 decides for all which parts are complete, since others may finish one meanwhile.
    before = distributed.broadcast_from_rank_zero(folder.complete())
    if before:
        done = sum(part.recordings for part in before.values())
        recordings = counted(len(job.recordings), job.unit)
        notice(f"resuming after {done} of {recordings}: {folder.folder}")
    missing = {
        number: groups[number]
        for number in distributed.shard_of_rank(range(len(groups)))
        if number not in before
    }
    try:
        _compute_parts(folder, missing, job)
    except BaseException:
        # An empty folder is of no use to --resume. Other ranks may still write into it.
        if distributed.world_size() == 1 and not folder.complete():
            folder.remove()
        raise
    if not distributed.is_rank_zero():
        return
    # Rank 0 polls for the parts of the others: a barrier would time out before a long part is done.
    while len(parts := folder.complete()) < len(groups):
        time.sleep(_POLL_SECONDS)
    _join(folder, parts, job)
    new_seconds = sum(part.seconds for number, part in parts.items() if number not in before)
    speed = new_seconds / (time.monotonic() - start)
    hours = sum(part.seconds for part in parts.values()) / 3600
    count = len(job.recordings) - sum(len(part.rejected) for part in parts.values())
    notice(
        f"{counted(count, job.unit)} done: {job.out} "
        f"({hours:.2f} h of sound, {speed:.0f} times real time)"
    )


def _compute_parts(
    folder: PartFolder, missing: Mapping[int, NumberedClips], job: InferenceJob
) -> None:
    """Compute this rank's share of the missing parts."""
    with ExitStack() as stack:
        shown = stack.enter_context(
            bar(sum(map(len, missing.values())), job.about["command"], job.unit)
        )
        # Of the recordings of all ranks, which share a cache.
        whole = shards_to_fetch_whole(job.recordings)
        items = infer_many(
            job.task._replace(windows=job.task.windows._replace(whole=whole)),
            [*missing.values()],
            batch_size=job.batch_size,
            workers=job.workers,
            report=_Speed(shown.advance).report,
        )
        stack.enter_context(closing(items))
        for number, group in missing.items():
            with folder.written(number) as part:
                for item in items:
                    if isinstance(item, Row):
                        part.add(item)
                        continue
                    _end_recording(part, item, job)
                    shown.advance()
                    if item.recording == group[-1][0]:
                        break


def _end_recording(part: PartWriter, end: RecordingEnd, job: InferenceJob) -> None:
    if isinstance(end.error, UnreachableError):
        # Not the recording's fault: the part stays incomplete, and a resumed run computes it.
        raise end.error
    rejected = None
    if end.error is not None:
        reason = end.error.reason
        if job.keep and end.seconds:
            reason += f"; the first {end.seconds:.2f} s are kept"
        rejected = Rejected(job.recordings[end.recording].location, reason)
    part.end(end.seconds, rejected, keep=job.keep)


class _Speed:
    """Shows on the bar how much audio is done, and how much faster than real time."""

    def __init__(self, show: Callable[..., None]) -> None:
        self._show = show
        self._seconds = 0.0
        self._start = time.monotonic()

    def report(self, seconds: float) -> None:
        self._seconds += seconds
        speed = self._seconds / max(1e-9, time.monotonic() - self._start)
        hours = f"{self._seconds / 3600:.2f} h of sound"
        self._show(0, audio=hours, speed=f"{speed:.0f} times real time")


def _join(folder: PartFolder, parts: Mapping[int, Part], job: InferenceJob) -> None:
    """Make one output of all parts, and list beside it the recordings that could not be read."""
    unreadable = tuple(clip for part in parts.values() for clip in part.rejected)
    rejected = (*job.malformed, *unreadable)
    count = counted(len(job.recordings) + len(job.malformed), job.unit)
    beside = list_beside(job.out, "rejected", REJECTED_HEADER, job.inputs)
    clear_partial(beside.parent, beside.name)
    beside.unlink(missing_ok=True)
    if rejected:
        write_rejected(rejected, beside)
        notice(f"{len(rejected)} of {count} cannot be read; see {beside}")
    if not any(part.rows for part in parts.values()):
        folder.remove()
        first = f"{rejected[0].path} ({rejected[0].reason})"
        raise DataError(f"none of {count} can be read; the first: {first}")

    def note(path: Path) -> None:
        if job.note is not None:
            job.note(path, folder.chunks)

    folder.publish(lambda path: job.write(path, folder.chunks), note)
