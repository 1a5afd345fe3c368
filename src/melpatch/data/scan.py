"""Probe many sound files for rate and length, in one or several processes."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from melpatch.audio.files import count_samples, probe
from melpatch.errors import AudioError
from melpatch.progress import track

# Files that a worker receives at a time.
_CHUNK = 64


class Probed(NamedTuple):
    """Sampling rate of a sound file in Hz, and its length in seconds."""

    sample_rate: int
    duration: float


def scan(paths: Sequence[Path], workers: int = 0) -> Iterator[Probed | AudioError]:
    """Yield rate and length of each file, or its error, in the order of the paths, with a bar.

    Args:
        paths: sound files.
        workers: worker processes; 0: probe in this process.
    """
    if workers == 0 or len(paths) <= _CHUNK:
        yield from track(map(_probe, paths), len(paths), "probing", "files")
        return
    # Spawned, because a fork of a process with torch's threads may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from track(pool.map(_probe, paths, chunksize=_CHUNK), len(paths), "probing", "files")


def _probe(path: Path) -> Probed | AudioError:
    """Probe a file; if it states no length, decode it to count its samples."""
    try:
        info = probe(path)
        samples = info.samples
        if samples is None:
            samples = count_samples(path)
        return Probed(info.sample_rate, samples / info.sample_rate)
    except AudioError as error:
        return error
