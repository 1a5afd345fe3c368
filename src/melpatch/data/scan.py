"""Read rate and length of many sound files, from headers or by decoding, in several processes."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, NamedTuple

from melpatch.audio.files import count_samples, probe
from melpatch.audio.sound_file import Source
from melpatch.audio.survey import Survey, survey
from melpatch.data.limits import require_workers
from melpatch.data.process_pool import process_pool
from melpatch.errors import AudioError, MelpatchError, UnreachableError
from melpatch.progress import track

ReadFile = Callable[[Source], Any]
"""Reads a file in a worker process; its errors are returned."""
# Files that a worker receives at a time.
_CHUNK = 64
_DECODED_CHUNK = 16


class Probed(NamedTuple):
    """Sampling rate of a sound file in Hz, its length in seconds, and what decoding it showed."""

    sample_rate: int
    duration: float
    survey: Survey | None = None


def scan(
    paths: Sequence[Source], workers: int = 0, *, whole: bool = False
) -> Iterator[Probed | AudioError]:
    """Yield rate and length of each file, or its error, in the order of the paths, with a bar.

    Args:
        paths: sound files, or byte ranges that are some.
        workers: worker processes; 0: probe in this process.
        whole: whether files are decoded to their end; otherwise only headers are read.
    """
    require_workers(workers)
    read_file = _survey if whole else _probe
    chunk = _DECODED_CHUNK if whole else _CHUNK
    if workers == 0 or len(paths) <= chunk:
        scanned: Iterator[Any] = map(read_file, paths)
    else:
        scanned = _in_processes(read_file, paths, workers, chunk)
    for item in track(scanned, len(paths), "decoding" if whole else "probing", "file"):
        # Not the file's fault: a corpus without it would be another one.
        if isinstance(item, UnreachableError):
            raise item
        yield item


def _in_processes(
    read_file: ReadFile, paths: Sequence[Source], workers: int, chunk: int
) -> Iterator[Any]:
    """Yield what a function returns for each file; one that kills its process is an error."""
    done = 0
    while done < len(paths):
        try:
            # Spawned, because a fork of a process with torch's threads may hang.
            needed = min(workers, math.ceil((len(paths) - done) / chunk))
            with process_pool(needed, get_context("spawn")) as pool:
                for scanned in pool.map(read_file, paths[done:], chunksize=chunk):
                    yield scanned
                    done += 1
        except BrokenProcessPool:
            require_processes()
            # It is not known which file it was; most likely one of the next ones.
            suspects = paths[done : done + (workers + 1) * chunk]
            yield from _one_by_one(read_file, suspects)
            done += len(suspects)


def _one_by_one(read_file: ReadFile, paths: Sequence[Source]) -> Iterator[Any]:
    """Yield what a function returns, from a process that is replaced when a file kills it."""
    waiting = list(reversed(paths))
    while waiting:
        try:
            with process_pool(1, get_context("spawn")) as pool:
                while waiting:
                    scanned = pool.submit(read_file, waiting[-1]).result()
                    waiting.pop()
                    yield scanned
        except BrokenProcessPool:
            yield killed_its_reader(waiting.pop())


def require_processes() -> None:
    """Raise MelpatchError if worker processes end before they have done anything."""
    try:
        with process_pool(1, get_context("spawn")):
            pass
    except BrokenProcessPool as error:
        raise MelpatchError(
            "no worker process can be started; give --workers 0 or, in a script of your own, start "
            "the work under if __name__ == '__main__'"
        ) from error


def killed_its_reader(path: object) -> AudioError:
    """Return the error of a recording during whose reading the process was killed."""
    reason = "the process that read it was killed, perhaps for lack of memory"
    return AudioError(path, reason, "look at the file, or leave it out")


def _probe(path: Source) -> Probed | AudioError:
    """Probe a file; if it states no length, decode it to count its samples."""
    try:
        info = probe(path)
        samples = info.samples
        if samples is None:
            samples = count_samples(path)
        return Probed(info.sample_rate, samples / info.sample_rate)
    except AudioError as error:
        return error


def _survey(path: Source) -> Probed | AudioError:
    """Decode a file; one that is damaged has a survey with its error."""
    try:
        seen = survey(path)
    except AudioError as error:
        return error
    return Probed(seen.sample_rate, seen.stretches[-1][1], seen)
