"""Time searches on made-up vectors: one JSON line per figure.

    python benchmarks/search.py --rows 1000000 --dims 192 768
    python benchmarks/search.py --rows 1000000 --dims 192 --kind clustered --approximate
    python benchmarks/search.py --index INDEX --block 30000 --approximate

Random vectors are as far from each other as can be, and say nothing about an approximate search. The
clustered ones have 24 numbers that matter, mixed into all and with a little noise, and recordings that
are of one of 1,000 kinds.
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

from melpatch.search.approximate import BLOCK, FOLDER, Approximate, build
from melpatch.search.index import Index
from melpatch.search.nearest import best_rows
from melpatch.search.segment import PLACE, Identity, Recording, write_segment

WINDOWS = 100  # of each made-up recording
KINDS = 1000  # of clustered recordings
LATENT = 24  # numbers that matter in a clustered vector
QUERIES = 20  # that searches are timed with, after one that is not counted


class Times(NamedTuple):
    """Seconds by the clock, and of the processor, which others cannot lengthen."""

    wall: float
    cpu: float


def random_vectors(first: int, count: int, dim: int) -> np.ndarray:
    """Return independent vectors."""
    seeded = np.random.default_rng(first)
    return seeded.standard_normal((count, dim), np.float32)


def clustered_vectors(first: int, count: int, dim: int) -> np.ndarray:
    """Return the vectors of windows of recordings that are each of some kind."""
    shared = np.random.default_rng(0)
    mixing = shared.standard_normal((LATENT, dim), np.float32) / np.sqrt(LATENT)
    kinds = shared.standard_normal((KINDS, LATENT), np.float32)
    vectors = np.empty((count, dim), np.float32)
    recordings = (first + np.arange(count)) // WINDOWS
    for number in np.unique(recordings):
        own = recordings == number
        seeded = np.random.default_rng((first, number))
        recording = kinds[number * 7919 % KINDS] + 0.5 * seeded.standard_normal(LATENT)
        windows = recording + 0.5 * seeded.standard_normal((own.sum(), LATENT))
        vectors[own] = windows @ mixing + 0.2 * seeded.standard_normal((own.sum(), dim))
    return vectors


VECTORS = {"random": random_vectors, "clustered": clustered_vectors}


def write_index(
    folder: Path,
    rows: int,
    dim: int,
    pooling: str = "mean",
    sounds: Sequence[Path] = (),
    kind: str = "random",
) -> Path:
    """Write an index of made-up vectors; its first recordings may be sounds that exist."""
    identity = Identity("none", "none", pooling, pooling, None, 1.0, 1.0, "32-true")
    kinds = np.dtype([*((n, PLACE[n]) for n in PLACE.names or ()), ("values", "<f4", (dim,))])

    def chunks() -> Iterator[np.ndarray]:
        for begin in range(0, rows, 4096):
            chunk = np.zeros(min(4096, rows - begin), kinds)
            number = begin + np.arange(len(chunk))
            chunk["recording"] = number // WINDOWS
            chunk["start"] = number % WINDOWS
            chunk["end"] = chunk["start"] + 1
            chunk["values"] = VECTORS[kind](begin, len(chunk), dim)
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


def tell(name: str, calls: list[Times], **facts: float) -> None:
    """Print a figure."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {
        "median_ms": 1e3 * statistics.median(call.wall for call in calls),
        "worst_ms": 1e3 * max(call.wall for call in calls),
        "median_cpu_ms": 1e3 * statistics.median(call.cpu for call in calls),
        "worst_cpu_ms": 1e3 * max(call.cpu for call in calls),
    }
    rounded = {key: round(value, 1) for key, value in figures.items()}
    print(json.dumps({"figure": name, **facts, **rounded, "peak_mib": round(peak)}), flush=True)


def time_search(folder: Path) -> None:
    """Time what a search does once the model has its vector."""
    index = Index(folder)
    facts = {"rows": len(index), "dim": index.dim}
    tell(
        "search",
        searches(index, lambda query: best_rows(index, index.similarity(query), 20)),
        **facts,
    )


def searches(index: Index, search: Callable[[np.ndarray], object]) -> list[Times]:
    """Return the seconds of searches for rows at even distances, after one that is not counted."""
    rows = np.linspace(0, len(index) - 1, QUERIES + 1).astype(int)
    queries = [index.vectors(rows[number : number + 1]) for number in range(len(rows))]
    return [call for query in queries for call in timed_once(lambda query=query: search(query))][1:]


def time_graphs(folder: Path, block: int) -> None:
    """Time the making of graphs and searches by them, and print their recall."""
    index = Index(folder)
    facts = {"rows": len(index), "dim": index.dim, "block": block}
    tell("making the graphs and measuring them", timed_once(lambda: build(index, block)), **facts)
    size = sum(path.stat().st_size for path in (folder / FOLDER).glob("*.usearch"))
    tell("opening the graphs", timed(lambda: Approximate(index, block)), **facts)
    approximate = Approximate(index, block)
    recall = approximate.recall()
    assert recall is not None
    tell(
        "approximate search",
        searches(index, lambda query: approximate.best(query, 20)),
        **facts,
        graphs_mib=size >> 20,
        recall_at_10=recall.at_10,
        recall_at_100=recall.at_100,
    )


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
    parser.add_argument("--kind", choices=VECTORS, default="random")
    parser.add_argument("--index", type=Path, help="an index that there is, instead")
    parser.add_argument("--approximate", action="store_true")
    parser.add_argument("--block", type=int, default=BLOCK, help="vectors of a graph")
    given = parser.parse_args()
    for dim in given.dims if given.index is None else [0]:
        with tempfile.TemporaryDirectory() as folder:
            index = given.index
            if index is None:
                index = write_index(Path(folder) / "index", given.rows, dim, kind=given.kind)
            time_search(index)
            if given.approximate:
                time_graphs(index, given.block)


if __name__ == "__main__":
    main()
