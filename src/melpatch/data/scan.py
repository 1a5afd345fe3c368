"""Asking many sound files for their rate and length, in this process or in several; a bad file does not stop it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from melpatch.audio.files import count_samples, probe
from melpatch.errors import AudioError
from melpatch.progress import track

_CHUNK = 64  # files handed to a process at a time


class Probed(NamedTuple):
    """What a sound file has: its rate in Hz and its length in seconds."""

    sample_rate: int
    duration: float


def scan(paths: Sequence[Path], workers: int = 0) -> Iterator[Probed | AudioError]:
    """Yield, in the order of the paths, what each file has or what is wrong with it, under a progress bar.

    Args:
        paths: sound files.
        workers: processes that share the work; 0 does it in this one.
    """
    if workers == 0 or len(paths) <= _CHUNK:
        yield from track(map(_probe, paths), len(paths), "probing")
        return
    # Spawned, not forked: a fork of a process with torch's threads in it may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from track(pool.map(_probe, paths, chunksize=_CHUNK), len(paths), "probing")


def _probe(path: Path) -> Probed | AudioError:
    """Probe a file; one that states no length is decoded to find it."""
    try:
        info = probe(path)
        samples = count_samples(path) if info.samples is None else info.samples
        return Probed(info.sample_rate, samples / info.sample_rate)
    except AudioError as error:
        return error
