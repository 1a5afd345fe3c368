"""The best rows of an index by some score, none of them twice."""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from melpatch.data.file_names import absolute, path_text
from melpatch.search.index import Index, overlap
from melpatch.search.query import Stretch

_LOOKED_AT = 64  # times as many rows as are wanted, before all are sorted


class Hit(NamedTuple):
    """A stretch of a recording that was found.

    Attributes:
        row: its row in the index.
        path: the file, as tables have it.
        start: in seconds.
        end: in seconds.
        score: what it was chosen by.
    """

    row: int
    path: str
    start: float
    end: float
    score: float


def best_rows(
    index: Index,
    scores: Float[np.ndarray, " row"],
    count: int,
    *,
    rows: Int[np.ndarray, " row"] | None = None,
    per_recording: int | None = None,
    without: Collection[Stretch] = (),
) -> list[Hit]:
    """Return the rows of the highest scores, best first.

    A row that shares more than half of a window with a better one of its recording is left out:
    both are windows of the same sound.

    Args:
        index: the index.
        scores: one per row; rows of -inf are never returned.
        count: rows to return, at most.
        rows: which rows the scores are of; None: all.
        per_recording: rows of one recording, at most.
        without: stretches whose rows are left out, such as the query itself.
    """
    latest = index.latest if rows is None else index.latest[rows]
    usable = np.where(latest, scores, -np.inf)
    for stretch in without:
        own = index.rows_within(path_text(absolute(stretch.path)), stretch.start, stretch.end)
        usable[own if rows is None else np.isin(rows, own)] = -np.inf
    hits: list[Hit] = []
    taken: Counter[int] = Counter()
    chosen: dict[int, list[int]] = {}
    for position in _by_score(usable, count):
        if usable[position] == -np.inf or len(hits) == count:
            break
        row = position if rows is None else int(rows[position])
        place = index.rows[row]
        number = int(place["recording"])
        if per_recording is not None and taken[number] >= per_recording:
            continue
        near = index.rows[chosen.get(number, [])]
        if (overlap(near, place["start"], place["end"]) > 0.5).any():
            continue
        taken[number] += 1
        chosen.setdefault(number, []).append(row)
        hits.append(hit(index, row, float(usable[position])))
    return hits


def hit(index: Index, row: int, score: float) -> Hit:
    """Return a row of an index as a stretch of a recording."""
    place = index.rows[row]
    path = path_text(Path(index.recordings[int(place["recording"])].path))
    return Hit(row, path, float(place["start"]), float(place["end"]), score)


def _by_score(scores: Float[np.ndarray, " row"], count: int) -> Iterator[int]:
    """Yield positions of scores by falling score; the first come without sorting all."""
    some = min(len(scores), _LOOKED_AT * count)
    top = np.argpartition(-scores, some - 1)[:some]
    yield from top[np.argsort(-scores[top], kind="stable")].tolist()
    if some < len(scores):
        yield from np.argsort(-scores, kind="stable")[some:].tolist()
