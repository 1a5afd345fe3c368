"""An index of a collection: all its segments as one table of vectors with places."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from melpatch.data.file_names import path_text
from melpatch.errors import CheckpointError, ConfigError
from melpatch.search.segment import Identity, Recording, read_segment

LABELS = "labels.csv"
"""The file of people's labels in the folder of an index, unless another one is named."""
_BLOCK_BYTES = 1 << 26  # of vectors that are multiplied at a time
_SHORTEST = np.float32(1e-6)  # a standardised vector below this length has no direction


class Index:
    """Vectors of windows of recordings, memory-mapped, with the places that they stand for.

    Where a recording was indexed again, because its file had changed, only its latest rows count.

    Args:
        folder: the folder of the index.

    Attributes:
        folder: the folder of the index.
        segments: what it consists of, in the order of their making.
        recordings: the recordings of all segments.
        rows: where each vector belongs, see :data:`melpatch.search.segment.PLACE`; recordings are
            numbered through.

    Raises:
        ConfigError: there is no index.
        CheckpointError: a segment is damaged, or of another identity than the first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.segments = [read_segment(path) for path in segment_folders(folder)]
        if not self.segments:
            raise ConfigError(
                f"{folder}: no index; make one with: melpatch index RUN recordings/ --out {folder}"
            )
        for segment in self.segments[1:]:
            if not segment.identity.is_of_space(self.segments[0].identity):
                raise CheckpointError(
                    f"{segment.folder}: its vectors are of another kind than those of "
                    f"{self.segments[0].folder}; move it out of the index"
                )
        self.recordings: list[Recording] = []
        rows = []
        for segment in self.segments:
            shifted = segment.rows.copy()
            shifted["recording"] += len(self.recordings)
            self.recordings.extend(segment.recordings)
            rows.append(shifted)
        self.rows: np.ndarray = np.concatenate(rows)
        self._starts = np.cumsum([0, *map(len, rows)])

    @property
    def identity(self) -> Identity:
        """What made the vectors; the run is where it was when recordings were added last."""
        return self.segments[-1].identity

    @property
    def scale(self) -> Float[np.ndarray, "mean_and_deviation dim"]:
        """The mean and deviation of each number, over the rows of the first segment."""
        return self.segments[0].scale

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return len(self.scale[0])

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def latest(self) -> Bool[np.ndarray, " row"]:
        """False for the rows of recordings that were indexed again."""
        newest = {
            self.recordings[number].stretch: number for number in np.unique(self.rows["recording"])
        }
        kept = np.zeros(len(self.recordings), bool)
        kept[list(newest.values())] = True
        latest: np.ndarray = kept[self.rows["recording"]]
        return latest

    def known(self) -> dict[tuple[str, float, float | None], Recording]:
        """Return the recordings that have rows, by what is recorded."""
        numbers = np.unique(self.rows["recording"]).tolist()
        return {self.recordings[number].stretch: self.recordings[number] for number in numbers}

    def vectors(self, rows: Int[np.ndarray, " chosen"]) -> Float[np.ndarray, "chosen dim"]:
        """Return the vectors of some rows."""
        chosen = np.empty((len(rows), self.dim), np.float32)
        number = np.searchsorted(self._starts, rows, side="right") - 1
        for segment in np.unique(number):
            own = number == segment
            chosen[own] = self.segments[segment].vectors[rows[own] - self._starts[segment]]
        return chosen

    def _blocks(self, first: int = 0) -> Iterator[tuple[slice, Float[np.ndarray, "row dim"]]]:
        """Yield rows from the first on and their vectors, as many as are multiplied at a time."""
        block = max(1, _BLOCK_BYTES // (4 * self.dim))
        for start, segment in zip(self._starts, self.segments, strict=False):
            for begin in range(max(0, first - start), len(segment.vectors), block):
                part = segment.vectors[begin : begin + block]
                yield slice(start + begin, start + begin + len(part)), part

    def products(self, weights: Float[np.ndarray, "dim column"]) -> Float[np.ndarray, "row column"]:
        """Return the product of every vector with some weights, block by block."""
        result = np.empty((len(self), weights.shape[1]), np.float32)
        weights = np.ascontiguousarray(weights, np.float32)
        for rows, vectors in self._blocks():
            result[rows] = vectors @ weights
        return result

    def _directions(
        self, queries: Float[np.ndarray, "query dim"]
    ) -> tuple[Float[np.ndarray, "dim query"], Float[np.ndarray, " query"]]:
        """Return what vectors are multiplied with, and what is taken off, for cosines with queries.

        Vectors are standardised first: otherwise what all recordings share would outweigh what
        distinguishes them. With x a vector, m and s mean and deviation, and q a standardised query
        of length 1, the cosine is ((x - m) / s) q / |(x - m) / s|; the lengths are kept.
        """
        mean, deviation = self.scale
        standardised = (queries - mean) / deviation
        lengths = np.linalg.norm(standardised, axis=1, keepdims=True)
        weights = standardised / np.maximum(lengths, _SHORTEST) / deviation
        weights = np.ascontiguousarray(weights.T, np.float32)
        return weights, mean @ weights

    def similarity(
        self, queries: Float[np.ndarray, "query dim"], first: int = 0
    ) -> Float[np.ndarray, " row"]:
        """Return the cosine between every vector, from a row on, and the query nearest to it.

        Args:
            queries: the vectors that are searched for.
            first: the first row.
        """
        weights, offsets = self._directions(queries)
        cosines = np.empty(len(self) - first, np.float32)
        # Only the nearest query of each row is kept: a file may be hundreds of queries.
        for rows, vectors in self._blocks(first):
            own = slice(rows.start - first, rows.stop - first)
            cosines[own] = (vectors @ weights - offsets).max(axis=1)
        cosines /= self.norms[first:]
        return cosines

    def similarity_of(
        self, queries: Float[np.ndarray, "query dim"], rows: Int[np.ndarray, " chosen"]
    ) -> Float[np.ndarray, " chosen"]:
        """Return the cosine between some vectors and the query that each is nearest to."""
        weights, offsets = self._directions(queries)
        products = self.vectors(rows) @ weights - offsets
        cosines: np.ndarray = products.max(axis=1) / self.norms[rows]
        return cosines

    def nearest_to_each(
        self, queries: Float[np.ndarray, "query dim"], count: int
    ) -> Int[np.ndarray, "query count"]:
        """Return the rows that are nearest to each query, best first; all rows are compared."""
        weights, offsets = self._directions(queries)
        nearest = np.zeros((len(queries), 0), np.int64)
        scores = np.zeros((len(queries), 0), np.float32)
        for rows, vectors in self._blocks():
            cosines = ((vectors @ weights - offsets) / self.norms[rows, None]).T
            own = np.broadcast_to(np.arange(rows.start, rows.stop), cosines.shape)
            nearest = np.concatenate([nearest, own], axis=1)
            scores = np.concatenate([scores, cosines], axis=1)
            if scores.shape[1] > count:
                kept = np.argpartition(-scores, count - 1, axis=1)[:, :count]
                nearest = np.take_along_axis(nearest, kept, axis=1)
                scores = np.take_along_axis(scores, kept, axis=1)
        return np.take_along_axis(nearest, np.argsort(-scores, axis=1, kind="stable"), axis=1)

    @cached_property
    def norms(self) -> Float[np.ndarray, " row"]:
        """The length of each standardised vector, never 0."""
        norms = np.concatenate([segment.norms for segment in self.segments])
        longer: np.ndarray = np.maximum(norms, _SHORTEST)
        return longer

    @cached_property
    def _numbers(self) -> Int[np.ndarray, " row"]:
        """The recording of each row, as a search takes it without a copy."""
        numbers: np.ndarray = self.rows["recording"].astype(np.int64)
        return numbers

    @cached_property
    def numbers_of(self) -> dict[str, list[int]]:
        """The numbers of the recordings of each file, by the file's name as tables have it."""
        numbers: dict[str, list[int]] = {}
        for number, recording in enumerate(self.recordings):
            numbers.setdefault(path_text(Path(recording.path)), []).append(number)
        return numbers

    def rows_of(self, path: str) -> Int[np.ndarray, " chosen"]:
        """Return the rows of a file, by its name as tables have it; none if it has none."""
        own = [np.zeros(0, np.int64)]
        for number in self.numbers_of.get(path, []):
            # The rows of a recording follow each other.
            begin = np.searchsorted(self._numbers, number)
            end = np.searchsorted(self._numbers, number, side="right")
            own.append(np.arange(begin, end))
        rows = np.concatenate(own)
        chosen: np.ndarray = rows[self.latest[rows]]
        return chosen

    def rows_within(self, path: str, start: float, end: float) -> Int[np.ndarray, " chosen"]:
        """Return the rows of a file that share half of their or its length with a stretch of it."""
        own = self.rows_of(path)
        chosen: np.ndarray = own[overlap(self.rows[own], start, end) >= 0.5]
        return chosen

    def nearest_row(self, path: str, start: float, end: float) -> int | None:
        """Return the row that has most in common with a stretch of a file; None without any."""
        own = self.rows_within(path, start, end)
        if not len(own):
            return None
        places = self.rows[own]
        shared = np.minimum(places["end"], end) - np.maximum(places["start"], start)
        together = np.maximum(places["end"], end) - np.minimum(places["start"], start)
        return int(own[np.argmax(shared / together)])


def facts_of_index(folder: Path) -> dict[str, Any]:
    """Return what an index holds and what made its vectors, as plain values.

    Raises:
        CheckpointError: it is damaged.
        ConfigError: there is none.
    """
    index = Index(folder)
    rows = index.rows[index.latest]
    # The rows of a recording follow each other, and its windows reach from its start to its end.
    first = np.flatnonzero(np.diff(rows["recording"], prepend=-1))
    last = np.append(first[1:], len(rows)) - 1
    seconds = float((rows["end"][last] - rows["start"][first]).sum())
    return {
        **asdict(index.identity),
        "recordings": len(first),
        "hours": round(seconds / 3600, 3),
        "windows": len(rows),
        "silent windows": int(rows["silent"].sum()),
        "numbers": index.dim,
        "segments": len(index.segments),
        "labels": (folder / LABELS).exists(),
    }


def overlap(rows: np.ndarray, start: float, end: float) -> Float[np.ndarray, " row"]:
    """Return what rows share with a stretch, as a share of the shorter of both."""
    shared = np.minimum(rows["end"], end) - np.maximum(rows["start"], start)
    shorter = np.minimum(rows["end"] - rows["start"], end - start)
    share: np.ndarray = shared / np.maximum(shorter, 1e-9)
    return share


def segment_folders(folder: Path) -> Sequence[Path]:
    """Return the folders of the complete segments of an index, in the order of their making."""
    return sorted(path for path in folder.glob("[0-9]" * 6) if path.is_dir())
