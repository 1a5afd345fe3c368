"""Time searches on made-up vectors: one JSON line per figure.

python benchmarks/search.py --rows 1000000 --dims 192 768
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from melpatch.search.index import Index
from melpatch.search.nearest import best_rows
from melpatch.search.segment import PLACE, Identity, Recording, write_segment

WINDOWS = 100  # of each made-up recording


class Times(NamedTuple):
    """Seconds by the clock, and of the processor, which others cannot lengthen."""

    wall: float
    cpu: float


def write_index(
    folder: Path, rows: int, dim: int, pooling: str = "mean", sounds: Sequence[Path] = ()
) -> Path:
    """Write an index of random vectors; its first recordings may be sounds that exist."""
    identity = Identity("none", "none", pooling, pooling, None, 1.0, 1.0, "32-true")
    kinds = np.dtype([*((n, PLACE[n]) for n in PLACE.names or ()), ("values", "<f4", (dim,))])

    def chunks() -> Iterator[np.ndarray]:
        for begin in range(0, rows, 4096):
            chunk = np.zeros(min(4096, rows - begin), kinds)
            number = begin + np.arange(len(chunk))
            chunk["recording"] = number // WINDOWS
            chunk["start"] = number % WINDOWS
            chunk["end"] = chunk["start"] + 1
            seeded = np.random.default_rng(begin)
            chunk["values"] = seeded.standard_normal((len(chunk), dim), np.float32)
            yield chunk

    missing = [Path(f"/sounds/{number}.wav") for number in range(-(-rows // WINDOWS))]
    paths = [*sounds, *missing[len(sounds) :]]
    recordings = [Recording(str(path), 0.0, None, None) for path in paths]
    scale = np.stack([np.zeros(dim), np.ones(dim)]).astype(np.float32)
    folder.mkdir(parents=True)
    write_segment(folder / "000001", chunks, identity=identity, recordings=recordings, scale=scale)
    return folder


def timed(act: Callable[[], object], times: int = 5) -> list[Times]:
    """Return the seconds of some calls, after one that is not counted."""
    act()
    return [call for _ in range(times) for call in timed_once(act)]


def tell(name: str, calls: list[Times], **facts: int) -> None:
    """Print a figure."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {
        "median_ms": 1e3 * statistics.median(call.wall for call in calls),
        "worst_ms": 1e3 * max(call.wall for call in calls),
        "worst_cpu_ms": 1e3 * max(call.cpu for call in calls),
    }
    rounded = {key: round(value, 1) for key, value in figures.items()}
    print(json.dumps({"figure": name, **facts, **rounded, "peak_mib": round(peak)}), flush=True)


def time_search(folder: Path, rows: int, dim: int) -> None:
    """Time what a search does once the model has its vector."""
    index = Index(folder)
    query = index.vectors(np.array([rows // 2]))
    facts = {"rows": rows, "dim": dim}
    tell("search", timed(lambda: best_rows(index, index.similarity(query), 20)), **facts)


def timed_once(act: Callable[[], object]) -> list[Times]:
    """Return the seconds of one call."""
    start = time.perf_counter(), time.process_time()
    answer = act()
    times = Times(time.perf_counter() - start[0], time.process_time() - start[1])
    assert getattr(answer, "status_code", 200) == 200
    return [times]


def main() -> None:
    """Write indices, and time them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[192, 768])
    given = parser.parse_args()
    for dim in given.dims:
        with tempfile.TemporaryDirectory() as folder:
            index = write_index(Path(folder) / "index", given.rows, dim)
            time_search(index, given.rows, dim)


if __name__ == "__main__":
    main()
