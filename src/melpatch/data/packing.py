"""Pack a corpus into shards with several processes; finished shards survive a crash.

The assignment of clips to shards depends on the corpus and the settings alone. Clips are sorted by
key, which is a random order, so every shard is a fair sample of the corpus. A shard is full when
its clips reach a set size before encoding.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from itertools import chain
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any

from filelock import FileLock, Timeout

import melpatch
from melpatch.atomic import clear_partial, written_aside
from melpatch.config import to_dict
from melpatch.data.archive import INDEX_COLUMNS, PackedShard, Packing, ShardJob, write_shard
from melpatch.data.corpus import Corpus, Rejected
from melpatch.data.limits import require_workers
from melpatch.data.manifest import write_rejected, write_table
from melpatch.data.process_pool import process_pool
from melpatch.data.scan import killed_its_reader, require_processes
from melpatch.data.shards import ABOUT, INDEX, LAYOUT, UNFINISHED, ShardSet, digest, read_shard_set
from melpatch.errors import ConfigError, DataError
from melpatch.faults import remedy
from melpatch.opening import read_json, reading
from melpatch.outputs import check_output_folder
from melpatch.progress import Bar, bar, notice, track

REJECTED = "rejected.csv"
_PLAN = "plan.json"
# Seconds between updates of the progress bar.
_POLL = 0.5


def pack(
    corpus: Corpus,
    names: Sequence[str],
    out: Path,
    settings: Packing,
    *,
    workers: int = 0,
    command: str = "",
) -> ShardSet:
    """Write a corpus as a folder of shards, and return its description.

    Clips that cannot be read are listed in ``rejected.csv``. Called again after a crash, it
    continues after the finished shards; the resulting files are the same.

    Args:
        corpus: the clips.
        names: original name of each clip, such as its path below the corpus.
        out: the folder.
        settings: how clips are stored.
        workers: worker processes; 0: pack in this process.
        command: the command to record as the one that packed the corpus.

    Raises:
        ConfigError: the folder holds shards of other clips or settings, or another process is
            packing there.
        DataError: no clip can be read, a process dies, or the folder cannot be written.
    """
    require_workers(workers)
    state = out / UNFINISHED
    try:
        _refuse_foreign(out)
        state.mkdir(parents=True, exist_ok=True)
        with FileLock(state / "lock", timeout=0):
            plan = {"layout": LAYOUT, **asdict(settings), "corpus": _listing(corpus, names)}
            identity = hashlib.blake2b(json.dumps(plan).encode(), digest_size=16).hexdigest()
            # From here on, only this process writes to the folder.
            try:
                if _is_done(out, plan, identity):
                    about = read_shard_set(out)
                else:
                    clear_partial(out)
                    with written_aside(state / _PLAN) as aside:
                        aside.write_text(json.dumps(plan), encoding="utf-8")
                    jobs = _jobs(corpus, names, out, settings)
                    packed = _write_shards(jobs, len(corpus.clips), workers)
                    about = _finish(corpus, out, settings, packed, command, identity)
            finally:
                # A plan without a description is unfinished and kept, so that it can be resumed.
                if (out / ABOUT).exists() or not (state / _PLAN).exists():
                    # Windows cannot remove the lock, which is still held.
                    shutil.rmtree(state, ignore_errors=sys.platform == "win32")
            return about
    except Timeout:
        raise ConfigError(
            f"{out}: another process packs there; wait until it ends, or give another --out"
        ) from None
    except OSError as error:
        problem = f"{error.filename or out}: cannot be written ({error.strerror})"
        fix = f"{remedy(error)}; finished shards are kept"
        raise DataError(f"{problem}; {fix}") from error


def _refuse_foreign(out: Path) -> None:
    """Raise ConfigError if a folder holds something else than a set of shards."""
    if not (out / ABOUT).exists() and not (out / UNFINISHED).exists():
        check_output_folder(out, (), alone=True)


def _listing(corpus: Corpus, names: Sequence[str]) -> str:
    """Return a hash of everything but the settings that shards depend on."""
    digester = hashlib.blake2b(digest_size=16)
    for clip, name in sorted(zip(corpus.clips, names, strict=True), key=lambda pair: pair[0].key):
        listed = (
            clip.key,
            name,
            clip.start,
            clip.duration,
            clip.labels,
            clip.split,
            clip.group,
            clip.state,
        )
        digester.update(repr(listed).encode())
    return digester.hexdigest()


def _is_done(out: Path, plan: dict[str, Any], identity: str) -> bool:
    """Return whether the folder holds all shards; refuse a folder with shards of something else."""
    here = f"out = {str(out)!r}; allowed: another folder, for here"
    if (out / ABOUT).exists():
        about = read_shard_set(out)
        if about.identity != identity:
            raise ConfigError(f"{here} are shards of other clips or settings")
        damaged = _damaged_file(out, about)
        if damaged is None:
            return True
        notice(f"{out / damaged}: missing, or not as it was packed; the folder is packed again")
        (out / ABOUT).unlink()
    noted = out / UNFINISHED / _PLAN
    # A plan of an earlier call that was stopped; without one nothing contradicts this call.
    begun = plan
    if noted.exists():
        with reading(noted, f"delete {out} to pack again"):
            begun = read_json(noted)
    for name in (name for name in plan if plan[name] != begun.get(name)):
        if name == "corpus":
            other = "another corpus, or this one before it changed, is packed in part"
            raise ConfigError(f"{here} {other}")
        allowed = f"{begun.get(name)!r}, with which {out} is packed in part"
        raise ConfigError(f"{name} = {plan[name]!r}; allowed: {allowed}")
    return False


def _damaged_file(out: Path, about: ShardSet) -> str | None:
    """Return the name of a shard that is missing or of a wrong size, or of a damaged index."""
    for shard in about.shards:
        path = out / shard.name
        if not path.exists() or path.stat().st_size != shard.size:
            return shard.name
    index = out / INDEX
    if index.exists() and digest(index) == about.index:
        return None
    return INDEX


def _jobs(corpus: Corpus, names: Sequence[str], out: Path, settings: Packing) -> list[ShardJob]:
    """Return the shards to write, filled with clips in the order of their keys."""
    order = sorted(range(len(corpus.clips)), key=lambda index: corpus.clips[index].key)
    # Length of the clips of a full shard, in seconds; a sample takes two bytes.
    capacity = settings.shard_mib * 2**20 / (2 * settings.sample_rate)
    groups: list[list[int]] = []
    filled = capacity
    for index in order:
        if filled >= capacity:
            groups.append([])
            filled = 0.0
        groups[-1].append(index)
        filled += corpus.clips[index].duration
    return [
        ShardJob(
            number,
            out.absolute(),
            settings,
            tuple(corpus.clips[i] for i in group),
            tuple(names[i] for i in group),
        )
        for number, group in enumerate(groups)
    ]


def _write_shards(jobs: Sequence[ShardJob], clips: int, workers: int) -> list[PackedShard]:
    """Write all shards under a progress bar; return their records in order."""
    try:
        with bar(clips, "packing", "clip") as shown:
            if workers == 0:
                return [write_shard(job, shown.advance) for job in jobs]
            return _in_processes(jobs, workers, shown)
    except BrokenProcessPool:
        require_processes()
        notice(
            f"{jobs[0].folder}: a packing process was killed, perhaps for lack of memory; going on "
            "with one process"
        )
    one_by_one = track(jobs, len(jobs), "packing", "shard")
    return [_despite_kills(job) for job in one_by_one]


def _in_processes(jobs: Sequence[ShardJob], workers: int, shown: Bar) -> list[PackedShard]:
    """Write shards in worker processes; return their records in order.

    Raises:
        BrokenProcessPool: a process was killed.
    """
    # Spawned, because a fork of a process with torch's threads may hang.
    context = get_context("spawn")
    count = context.Value("q", 0)
    with process_pool(min(workers, len(jobs)), context, _start_worker, (count,)) as pool:
        futures = [pool.submit(_work, job) for job in jobs]
        _watch(futures, count, shown)
        return [future.result() for future in futures]


def _despite_kills(job: ShardJob) -> PackedShard:
    """Write a shard in a process of its own, without the clips that kill it; return its record."""
    while True:
        # Counts the clips of this shard alone, so it names the clip at which the process ended.
        counted = Bar(len(job.clips), "", "clip", 0)
        try:
            (packed,) = _in_processes([job], 1, counted)
            return packed
        except BrokenProcessPool as error:
            if counted.done >= len(job.clips):
                raise _killed_again(job) from error
            killer = job.clips[counted.done]
            reason = killed_its_reader(killer.location).reason
            notice(f"{killer.location}: {reason}; it is left out")
            others = [number for number in range(len(job.clips)) if number != counted.done]
            job = replace(
                job,
                clips=tuple(job.clips[number] for number in others),
                names=tuple(job.names[number] for number in others),
                rejected=(*job.rejected, Rejected(killer.location, reason)),
            )


def _killed_again(job: ShardJob) -> DataError:
    fix = "free some memory and run it again; finished shards are kept"
    return DataError(f"{job.folder}: the packing process was killed after its last clip; {fix}")


def _watch(futures: Sequence[Future[PackedShard]], count: Any, shown: Bar) -> None:
    """Update the progress bar until all shards are written or one has failed."""
    waiting = {*futures}
    while waiting and not any(future.done() and future.exception() for future in futures):
        _, waiting = wait(waiting, _POLL, FIRST_COMPLETED)
        shown.advance(count.value - (shown.done - shown.before))


# Number of clips packed so far, shared by the worker processes.
_count: Any = None


def _start_worker(count: Any) -> None:
    """Share the count of clips with the other workers, and end with the parent process."""
    global _count
    _count = count
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the parent process to end, and then exit at once."""
    # sys.exit would end this thread only.
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: ShardJob) -> PackedShard:
    return write_shard(job, _tick)


def _tick() -> None:
    """Count a clip; the main process reads the number."""
    with _count.get_lock():
        _count.value += 1


def _finish(
    corpus: Corpus,
    out: Path,
    settings: Packing,
    packed: Sequence[PackedShard],
    command: str,
    identity: str,
) -> ShardSet:
    """Write the index and the rejected clips, then the description, which marks completion."""
    written = [shard for shard in packed if shard.lines]
    rejected = [*corpus.rejected, *chain.from_iterable(shard.rejected for shard in packed)]
    if not written:
        example = f"the first, {rejected[0].path}, {rejected[0].reason}"
        raise DataError(f"{corpus.shown_name}: no clip can be read; {example}")
    lines = chain.from_iterable(shard.lines for shard in written)
    write_table(out / INDEX, INDEX_COLUMNS, lines)
    if rejected:
        write_rejected(rejected, out / REJECTED)
    about = ShardSet(
        layout=LAYOUT,
        melpatch=melpatch.__version__,
        command=command,
        identity=identity,
        sample_rate=settings.sample_rate,
        codec=settings.codec,
        clips=sum(shard.shard.clips for shard in written),
        clipped=sum(shard.clipped for shard in written),
        rejected=len(rejected),
        seconds=sum((shard.seconds for shard in written), 0.0),
        index=digest(out / INDEX),
        shards=tuple(shard.shard for shard in written),
    )
    # Written last: a folder with a description is complete.
    with written_aside(out / ABOUT) as aside:
        aside.write_text(json.dumps(to_dict(about), indent=1) + "\n", encoding="utf-8")
    return about
