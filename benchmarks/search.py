"""Time searches and requests of the page on made-up vectors: one JSON line per figure.

python benchmarks/search.py --rows 1000000 --dims 192 768
python benchmarks/search.py --page --rows 100000 --dims 384
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
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


def write_index(folder: Path, rows: int, dim: int) -> Path:
    """Write an index of random vectors."""
    identity = Identity("none", "none", "mean", "mean", None, 1.0, 1.0, "32-true")
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

    recordings = [
        Recording(f"/sounds/{number}.wav", 0.0, None, None) for number in range(-(-rows // WINDOWS))
    ]
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


def time_page(folder: Path, rows: int, dim: int, answers: int) -> None:
    """Time the requests of the page, but those that decode sound."""
    from starlette.testclient import TestClient

    from melpatch.page.server import make_app
    from melpatch.page.session import Session
    from melpatch.search.label_file import open_labels

    with open_labels(folder / "labels.csv") as labels:
        facts = {"rows": rows, "dim": dim, "answers": answers}
        session = Session(Index(folder), labels, None)
        page = TestClient(make_app(session), base_url="http://localhost")
        taken: list[Times] = []
        after: list[Times] = []
        rows_answered = np.random.default_rng(1).permutation(rows)[:answers]
        for number, row in enumerate(rows_answered.tolist()):
            kind = "yes" if number % 5 == 0 else "no"
            values = {"row": row, "label": "a", "answer": kind, "who": "ann"}
            taken += timed_once(lambda v=values: page.post("/api/answer", json=v))
            ask = {"label": "a", "by": "likely", "who": "ann"}
            after += timed_once(lambda a=ask: page.post("/api/next", json=a))
        tell("answer and learn", taken, **facts)
        tell("next, likely, after each answer", after, **facts)
        tell("answer and learn, the last ten", taken[-10:], **facts)
        for by in ("unsure", "far", "random", "test"):
            ask = {"label": "a", "by": by, "who": "ann"}
            tell(f"next, {by}", timed(lambda a=ask: page.post("/api/next", json=a)), **facts)
        tell("like a clip", timed(lambda: page.post("/api/search", json={"row": 5})), **facts)
        ask = {"label": "a"}
        tell("like a label", timed(lambda: page.post("/api/search", json=ask)), **facts)
        tell("figures", timed(lambda: page.post("/api/figures", json=ask)), **facts)
        tell("wrong", timed(lambda: page.post("/api/wrong", json=ask)), **facts)
        tell("undo", timed(lambda: page.post("/api/undo", json={"who": "ann"})), **facts)
        tell("state", timed(lambda: page.get("/api/state")), **facts)
        tell("map", timed(lambda: page.get("/api/map")), **facts)


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
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--answers", type=int, default=200)
    given = parser.parse_args()
    for dim in given.dims:
        with tempfile.TemporaryDirectory() as folder:
            index = write_index(Path(folder) / "index", given.rows, dim)
            if given.page:
                time_page(index, given.rows, dim, given.answers)
            else:
                time_search(index, given.rows, dim)


if __name__ == "__main__":
    main()
