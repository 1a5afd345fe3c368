"""Read many sound files for rate and length, in one or several processes: headers, or all of them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from melpatch.audio.files import count_samples, probe
from melpatch.audio.survey import Survey, survey
from melpatch.errors import AudioError
from melpatch.progress import track

# Files that a worker receives at a time.
_CHUNK = 64
_DECODED_CHUNK = 16


class Probed(NamedTuple):
    """Sampling rate of a sound file in Hz, its length in seconds, and what decoding it showed."""

    sample_rate: int
    duration: float
    survey: Survey | None = None


def scan(
    paths: Sequence[Path], workers: int = 0, *, whole: bool = False
) -> Iterator[Probed | AudioError]:
    """Yield rate and length of each file, or its error, in the order of the paths, with a bar.

    Args:
        paths: sound files.
        workers: worker processes; 0: probe in this process.
        whole: whether files are decoded to their end; otherwise only headers are read.
    """
    read_file = _survey if whole else _probe
    chunk = _DECODED_CHUNK if whole else _CHUNK
    doing = "decoding" if whole else "probing"
    if workers == 0 or len(paths) <= chunk:
        yield from track(map(read_file, paths), len(paths), doing, "files")
        return
    # Spawned, because a fork of a process with torch's threads may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from track(pool.map(read_file, paths, chunksize=chunk), len(paths), doing, "files")


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


def _survey(path: Path) -> Probed | AudioError:
    """Decode a file; one that is damaged has a survey with its error."""
    try:
        seen = survey(path)
    except AudioError as error:
        return error
    return Probed(seen.sample_rate, seen.stretches[-1][1], seen)
