"""The whole way of recordings to one output: over all processes, in parts, resumable, and told as it goes."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melpatch import distributed
from melpatch.data.clip import Clip
from melpatch.data.corpus import Rejected
from melpatch.data.manifest import write_rejected
from melpatch.errors import DataError, UnreachableError
from melpatch.inference import tables
from melpatch.inference.engine import InferenceTask, infer_many
from melpatch.inference.parts import Part, Parts, groups
from melpatch.inference.rows import Row
from melpatch.inference.windows import NumberedClips
from melpatch.progress import bar, notice

_LOOK = 0.5  # seconds between looks for the parts of other processes


@dataclass(frozen=True, kw_only=True)
class InferenceJob:
    """What to write, of what, and how.

    Attributes:
        out: the file, whose parts lie beside it until it is there.
        kind: of table, see :func:`melpatch.inference.tables.kind`.
        recordings: in the order of the rows.
        task: what is asked of each.
        columns: from the rows of parts to columns.
        about: what the rows hang on, see :class:`melpatch.inference.parts.Parts`.
        keep: whether the rows stay of a recording that could not be read to its end.
        batch_size: windows at a time.
        workers: decoding processes beside each process.
        resume: whether to go on with a killed run.
    """

    out: Path
    kind: str
    recordings: Sequence[Clip]
    task: InferenceTask
    columns: Sequence[tables.Column]
    about: Mapping[str, Any]
    keep: bool
    batch_size: int
    workers: int
    resume: bool


def carry_out(job: InferenceJob) -> None:
    """Write a job's output; recordings that cannot be read are named in ``OUT.rejected.csv``.

    Raises:
        CheckpointError: parts of a killed run are there that must not be mixed with new ones.
        DataError: no recording can be read.
        MelpatchError: a decoding process was killed; the parts that are complete stay.
        UnreachableError: a shard cannot be fetched; the parts that are complete stay.
    """
    began = time.monotonic()
    parts, made = Parts(job.out, job.about, resume=job.resume), groups(job.recordings)
    before = distributed.broadcast_from_rank_zero(parts.complete())
    if before:
        done = sum(part.recordings for part in before.values())
        notice(f"going on after {done} of {len(job.recordings)} files: {parts.folder}")
    try:
        _fill(
            parts,
            {
                number: made[number]
                for number in distributed.shard_of_rank(range(len(made)))
                if number not in before
            },
            job,
        )
    except BaseException:
        if distributed.world_size() == 1 and not parts.complete():
            parts.remove()
        raise
    if not distributed.is_rank_zero():
        return
    while len(found := parts.complete()) < len(
        made
    ):  # no barrier: its patience may end before a long part does
        time.sleep(_LOOK)
    _join(parts, found, job)
    now = sum(part.seconds for number, part in found.items() if number not in before)
    hours, rate = (
        sum(part.seconds for part in found.values()) / 3600,
        now / (time.monotonic() - began),
    )
    count = len(job.recordings) - sum(len(part.rejected) for part in found.values())
    notice(f"{count} files done: {job.out} ({hours:.2f} h of sound, {rate:.0f} times real time)")


def _fill(parts: Parts, missing: Mapping[int, NumberedClips], job: InferenceJob) -> None:
    """Make this process's share of the parts that are missing."""
    with ExitStack() as stack:
        shown = stack.enter_context(bar(sum(map(len, missing.values())), job.about["command"]))
        size, rate = job.batch_size, _Rate(shown.advance)
        coming = infer_many(
            job.task, [*missing.values()], batch_size=size, workers=job.workers, report=rate.heard
        )
        events = stack.enter_context(closing(coming))
        for number, group in missing.items():
            with parts.written(number) as part:
                for event in events:
                    if isinstance(event, Row):
                        part.add(event)
                        continue
                    if isinstance(event.error, UnreachableError):
                        raise event.error  # the part is made when the network is there again
                    rejected = None
                    if event.error is not None:
                        rejected = Rejected(
                            job.recordings[event.recording].location, event.error.reason
                        )
                    part.end(event.seconds, rejected, keep=job.keep)
                    shown.advance()
                    if event.recording == group[-1][0]:
                        break


class _Rate:
    """How much faster than real time it goes, for the bar."""

    def __init__(self, show: Callable[..., None]) -> None:
        self._show, self._seconds, self._began = show, 0.0, time.monotonic()

    def heard(self, seconds: float) -> None:
        self._seconds += seconds
        rate = self._seconds / max(1e-9, time.monotonic() - self._began)
        self._show(0, heard=f"{self._seconds / 3600:.2f} h", speed=f"{rate:.0f} times real time")


def _join(parts: Parts, found: Mapping[int, Part], job: InferenceJob) -> None:
    """Make one output of all parts, and name beside it what could not be read."""
    rejected, count = (
        tuple(one for part in found.values() for one in part.rejected),
        len(job.recordings),
    )
    beside = job.out.with_name(f"{job.out.stem}.rejected.csv")
    beside.unlink(missing_ok=True)
    if rejected:
        write_rejected(rejected, beside)
        notice(f"{len(rejected)} of {count} files cannot be read; see {beside}")
    if not any(part.rows for part in found.values()):
        parts.remove()
        raise DataError(
            f"none of the {count} files can be read; the first: {rejected[0].path} ({rejected[0].reason})"
        )
    parts.publish(lambda path: tables.write(path, job.kind, job.columns, parts.chunks))
