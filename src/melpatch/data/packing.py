"""A corpus into a folder of shards: several processes each write whole shards, and what is finished survives a crash.

Which clip goes where hangs on the corpus and the settings alone: clips come in the order of their keys, which is a
random one, so that every shard is a fair sample of the corpus; a shard is full by the length of its clips before they
are coded.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
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
from melpatch.data.corpus import Corpus
from melpatch.data.manifest import write_rejected, write_table
from melpatch.data.shards import ABOUT, INDEX, LAYOUT, UNFINISHED, ShardSet, digest, read_shard_set
from melpatch.errors import ConfigError, DataError
from melpatch.progress import Bar, bar, notice

REJECTED = "rejected.csv"
_PLAN = "plan.json"
_LOOK = 0.5  # seconds between looks at how far the processes have come


def pack(
    corpus: Corpus,
    names: Sequence[str],
    out: Path,
    settings: Packing,
    *,
    workers: int = 0,
    command: str = "",
) -> ShardSet:
    """Write a corpus as a folder of shards, and return what it holds; clips that cannot be read are listed there in
    ``rejected.csv``.

    Called again after a crash, it goes on after the shards that are finished. In the end all files are the same.

    Args:
        corpus: the clips.
        names: what each clip is called outside, such as its path below the corpus.
        out: the folder.
        settings: how clips are stored.
        workers: processes that share the work; 0 does it in this one.
        command: what to note as the command that packed it.

    Raises:
        ConfigError: the folder holds shards of other clips or settings, or another process packs there.
        DataError: no clip can be read, a process dies, or the folder cannot be written.
    """
    state = out / UNFINISHED
    try:
        state.mkdir(parents=True, exist_ok=True)
        with FileLock(state / "lock", timeout=0):
            plan = {"layout": LAYOUT, **asdict(settings), "corpus": _listing(corpus, names)}
            identity = hashlib.blake2b(json.dumps(plan).encode(), digest_size=16).hexdigest()
            try:
                if _is_done(out, plan, identity):
                    about = read_shard_set(out)
                else:
                    clear_partial(out)
                    with written_aside(state / _PLAN) as aside:
                        aside.write_text(json.dumps(plan), encoding="utf-8")
                    packed = _all(_jobs(corpus, names, out, settings), len(corpus.clips), workers)
                    about = _finish(corpus, out, settings, packed, command, identity)
            finally:
                if (out / ABOUT).exists() or not (
                    state / _PLAN
                ).exists():  # else it is to be gone on with
                    shutil.rmtree(state)
            return about
    except Timeout:
        raise ConfigError(
            f"out = {str(out)!r}; allowed: a folder where no other melpatch pack is at work"
        ) from None
    except OSError as error:
        hint = "make room or choose another place; what is finished is kept"
        raise DataError(
            f"{error.filename or out}: cannot be written ({error.strerror}); {hint}"
        ) from error


def _listing(corpus: Corpus, names: Sequence[str]) -> str:
    """Return a hash of all that shards hang on but the settings."""
    found = hashlib.blake2b(digest_size=16)
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
        found.update(repr(listed).encode())
    return found.hexdigest()


def _is_done(out: Path, plan: dict[str, Any], identity: str) -> bool:
    """Return whether the folder holds all shards, whole; refuse one that holds others, or a part of others."""
    here = f"out = {str(out)!r}; allowed: another folder, for here"
    if (out / ABOUT).exists():
        about = read_shard_set(out)
        if about.identity != identity:
            raise ConfigError(f"{here} are shards of other clips or settings")
        if (lost := _lost(out, about)) is None:
            return True
        notice(f"{out / lost}: missing, or not as it was packed; the folder is packed anew")
        (out / ABOUT).unlink()
    noted = out / UNFINISHED / _PLAN
    begun = json.loads(noted.read_text(encoding="utf-8")) if noted.exists() else plan
    for name in (name for name in plan if plan[name] != begun.get(name)):
        if name == "corpus":
            raise ConfigError(
                f"{here} another corpus, or this one before it changed, is packed in part"
            )
        raise ConfigError(
            f"{name} = {plan[name]!r}; allowed: {begun.get(name)!r}, with which {out} is packed in part"
        )
    return False


def _lost(out: Path, about: ShardSet) -> str | None:
    """Return the name of a file that is missing, or that has another size, or of the index another checksum."""
    for shard in about.shards:
        path = out / shard.name
        if not path.exists() or path.stat().st_size != shard.size:
            return shard.name
    index = out / INDEX
    return None if index.exists() and digest(index) == about.index else INDEX


def _jobs(corpus: Corpus, names: Sequence[str], out: Path, settings: Packing) -> list[ShardJob]:
    order = sorted(range(len(corpus.clips)), key=lambda index: corpus.clips[index].key)
    room = settings.shard_mib * 2**20 / (2 * settings.sample_rate)  # seconds of 16-bit samples
    groups: list[list[int]] = []
    full = room
    for index in order:
        if full >= room:
            groups.append([])
            full = 0.0
        groups[-1].append(index)
        full += corpus.clips[index].duration
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


def _all(jobs: Sequence[ShardJob], clips: int, workers: int) -> list[PackedShard]:
    """Return what was written of each job, in their order, under a progress bar."""
    with bar(clips, "packing") as shown:
        if workers == 0:
            return [write_shard(job, shown.advance) for job in jobs]
        context = get_context("spawn")  # a fork of a process with torch's threads in it may hang
        count = context.Value("q", 0)
        with ProcessPoolExecutor(workers, context, _enter, (count,)) as pool:
            futures = [pool.submit(_work, job) for job in jobs]
            try:
                _watch(futures, count, shown)
                return [future.result() for future in futures]
            except BrokenProcessPool as error:
                hint = "run it again with fewer --workers; what is finished is kept"
                raise DataError(
                    f"{jobs[0].folder}: a packing process was killed, as if memory had run out; {hint}"
                ) from error
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _watch(futures: Sequence[Future[PackedShard]], count: Any, shown: Bar) -> None:
    """Move the bar until all is done, or one process has failed."""
    waiting = {*futures}
    while waiting and not any(future.done() and future.exception() for future in futures):
        _, waiting = wait(waiting, _LOOK, FIRST_COMPLETED)
        shown.advance(count.value - (shown.done - shown.before))


_count: Any = None  # of clips, shared by the processes


def _enter(count: Any) -> None:
    """Begin a process: it counts together with the others, and does not outlive the one that gives the work."""
    global _count
    _count = count
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(job: ShardJob) -> PackedShard:
    return write_shard(job, _tick)


def _tick() -> None:
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
    """Write the lists, and last of all what says that the shards are complete."""
    full = [each for each in packed if each.lines]
    rejected = [*corpus.rejected, *chain.from_iterable(each.rejected for each in packed)]
    if not full:
        raise DataError(
            f"{corpus.name}: no clip can be read; the first, {rejected[0].path}, {rejected[0].reason}"
        )
    write_table(out / INDEX, INDEX_COLUMNS, chain.from_iterable(each.lines for each in full))
    if rejected:
        write_rejected(rejected, out / REJECTED)
    about = ShardSet(
        layout=LAYOUT,
        melpatch=melpatch.__version__,
        command=command,
        identity=identity,
        sample_rate=settings.sample_rate,
        codec=settings.codec,
        clips=sum(each.shard.clips for each in full),
        clipped=sum(each.clipped for each in full),
        rejected=len(rejected),
        seconds=sum((each.seconds for each in full), 0.0),
        index=digest(out / INDEX),
        shards=tuple(each.shard for each in full),
    )
    with written_aside(out / ABOUT) as aside:
        aside.write_text(json.dumps(to_dict(about), indent=1) + "\n", encoding="utf-8")
    return about
