"""Graphs of nearest neighbours, for searches that compare a query with few vectors of an index.

Every full block of rows has a graph (HNSW, Malkov and Yashunin 2018, arXiv 1603.09320, by usearch);
the rows after the last full block are all compared. A graph proposes rows, whose scores are exact.
It is named after the vectors that it is of, so that one of other vectors is never opened.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from melpatch.atomic import clear_partial, written_aside
from melpatch.config import from_dict
from melpatch.counted import counted
from melpatch.errors import CheckpointError, ConfigError
from melpatch.only_writer import only_writer
from melpatch.opening import read_json, reading
from melpatch.progress import Bar, bar, notice
from melpatch.search.index import Index
from melpatch.search.nearest import Hit, best_rows
from melpatch.search.query import Stretch

BLOCK = 1 << 18
"""Rows of a graph; as many are compared in 0.03 s, so that fewer need none."""
FOLDER = "approximate"
"""The folder of the graphs in the folder of an index."""
_RECALL = "recall.json"
_ENDING = ".usearch"
_AT_ONCE = 2048  # vectors that are added at a time
# usearch's own defaults, which decide the recall.
_CONNECTIVITY = 16
_EXPANSION_ADD = 128
_CANDIDATES = 128  # rows that a graph proposes at first, for each query
_MOST_CANDIDATES = 8192  # after which all rows are compared
_SAMPLED = 100  # rows that the recall is measured with
_ROUNDING = 1e-5  # by which the cosine of equal vectors may differ


@dataclass(frozen=True, kw_only=True)
class Recall:
    """What an approximate search finds of what an exact one does, in the mean over a sample.

    Attributes:
        at_10: share of the 10 nearest rows.
        at_100: share of the 100 nearest rows.
        sampled: rows of the index that were searched for, each left out of its own hits.
        graphs: names of the graphs.
    """

    at_10: float
    at_100: float
    sampled: int
    graphs: tuple[str, ...]

    def __str__(self) -> str:
        """Return it in words."""
        return (
            f"{self.at_10:.3f} of the nearest 10 and {self.at_100:.3f} of the nearest 100 are "
            f"found (mean over {self.sampled} of its own vectors)"
        )


class Approximate:
    """The graphs of an index, memory-mapped.

    Args:
        index: the index.
        block: rows of a graph.

    Raises:
        ConfigError: graphs are missing, or usearch is.
        CheckpointError: a graph is damaged.
    """

    def __init__(self, index: Index, block: int = BLOCK) -> None:
        self._index = index
        self._block = block
        self._names = _names(index, block)
        paths = [_folder(index) / f"{name}{_ENDING}" for name in self._names]
        missing = block * sum(not path.exists() for path in paths)
        if missing:
            raise ConfigError(
                f"{index.folder}: {missing:,} of {len(index):,} vectors are in no graph; "
                f"{_fix(index)}"
            )
        graph_class = _graph_class()
        self._graphs = [_open_graph(graph_class, path, index, block) for path in paths]

    def recall(self) -> Recall | None:
        """Return what is found of the nearest rows; None without graphs, since all are compared.

        Raises:
            CheckpointError: it is not known.
        """
        if not self._graphs:
            return None
        path = _folder(self._index) / _RECALL
        with reading(path, _fix(self._index)):
            recall = from_dict(Recall, read_json(path))
            if recall.graphs != self._names:
                raise ValueError("it was measured with other graphs")
        return recall

    def nearest(
        self, queries: Float[np.ndarray, "query dim"], candidates: int = _CANDIDATES
    ) -> tuple[Int[np.ndarray, " chosen"], Float[np.ndarray, " chosen"]]:
        """Return rows that may be near to any of some vectors, and their exact cosines.

        Args:
            queries: the vectors.
            candidates: rows that each graph proposes, for each vector.
        """
        units = _unit(self._index, queries)
        proposed = [np.zeros(0, np.int64)]
        for number, graph in enumerate(self._graphs):
            for unit in units:
                keys = graph.search(unit, min(candidates, self._block), threads=1).keys
                if len(keys) and int(keys.max()) >= self._block:
                    raise CheckpointError(
                        f"{self._index.folder}: damaged graph; {_fix(self._index)}"
                    )
                proposed.append(keys.astype(np.int64) + number * self._block)
        rows = np.unique(np.concatenate(proposed))
        first = len(self._graphs) * self._block
        return (
            np.concatenate([rows, np.arange(first, len(self._index))]),
            np.concatenate(
                [
                    self._index.similarity_of(queries, rows),
                    self._index.similarity(queries, first),
                ]
            ),
        )

    def best(
        self,
        queries: Float[np.ndarray, "query dim"],
        count: int,
        *,
        per_recording: int | None = None,
        without: Collection[Stretch] = (),
        usable: Bool[np.ndarray, " row"] | None = None,
    ) -> list[Hit]:
        """Return the rows that are nearest to any of some vectors, best first.

        More are proposed until enough of them remain; if that does not do, all rows are compared.

        Args:
            queries: the vectors.
            count: rows to return, at most.
            per_recording: rows of one recording, at most.
            without: stretches whose rows are left out.
            usable: whether each row may be returned; None: all may.
        """
        candidates = max(_CANDIDATES, count)
        while candidates <= _MOST_CANDIDATES:
            rows, scores = self.nearest(queries, candidates)
            if usable is not None:
                rows, scores = rows[usable[rows]], scores[usable[rows]]
            hits = best_rows(
                self._index, scores, count, rows=rows, per_recording=per_recording, without=without
            )
            if len(hits) == count:
                return hits
            candidates *= 4
        scores = self._index.similarity(queries)
        if usable is not None:
            scores[~usable] = -np.inf
        return best_rows(self._index, scores, count, per_recording=per_recording, without=without)


def opened(index: Index, block: int = BLOCK) -> Approximate:
    """Return the graphs of an index, once their recall is shown."""
    graphs = Approximate(index, block)
    recall = graphs.recall()
    notice("so few vectors are all compared" if recall is None else f"approximate: {recall}")
    return graphs


def require_library() -> None:
    """Raise ConfigError if usearch is not installed."""
    _graph_class()


def build(index: Index, block: int = BLOCK) -> None:
    """Write the graphs that an index lacks, remove those of other vectors, and measure the recall.

    A killed process loses the graph that it was making, and no other.

    Args:
        index: the index.
        block: rows of a graph.

    Raises:
        ConfigError: usearch is not installed, or another process makes graphs of the same index.
    """
    graph_class = _graph_class()
    names = _names(index, block)
    if not names:
        notice(
            f"{index.folder}: has {counted(len(index), 'vector')}, and all of fewer than {block:,} "
            "are compared; it needs no graph"
        )
        return
    folder = _folder(index)
    with only_writer(folder):
        _tidy(folder, names)
        paths = [folder / f"{name}{_ENDING}" for name in names]
        missing = [number for number, path in enumerate(paths) if not path.exists()]
        with bar(len(missing) * block, "graphs", "vector") as shown:
            for number in missing:
                _write(graph_class, index, number * block, block, paths[number], shown)
        recall = _measure(Approximate(index, block), index, names)
        with written_aside(folder / _RECALL) as aside:
            aside.write_text(json.dumps(asdict(recall), indent=1), encoding="utf-8")
    notice(f"{counted(len(names), 'graph')} for melpatch search --approximate: {recall}")


def _tidy(folder: Path, names: Sequence[str]) -> None:
    """Make the folder of the graphs; remove half-written graphs, and those of other vectors."""
    folder.mkdir(exist_ok=True)
    clear_partial(folder)
    for path in folder.glob(f"*{_ENDING}"):
        if path.stem not in names:
            path.unlink()


def _write(
    graph_class: Callable[..., Any], index: Index, first: int, block: int, path: Path, shown: Bar
) -> None:
    """Write the graph of a block of rows."""
    graph = graph_class(
        ndim=index.dim,
        metric="ip",
        # Half the memory of float32; int8 could not order vectors that are much alike.
        dtype="f16",
        connectivity=_CONNECTIVITY,
        expansion_add=_EXPANSION_ADD,
    )
    for begin in range(0, block, _AT_ONCE):
        keys = np.arange(begin, min(begin + _AT_ONCE, block))
        units = _unit(index, index.vectors(first + keys))
        graph.add(keys, units, threads=torch.get_num_threads())
        shown.advance(len(keys))
    with written_aside(path) as aside:
        graph.save(str(aside))


def _open_graph(graph_class: Callable[..., Any], path: Path, index: Index, block: int) -> Any:
    """Return a graph, memory-mapped."""
    fix = f"remove it, and {_fix(index)}"
    with reading(path, fix, None):
        try:
            # Without a table from keys to places, which takes longer than all else and is not used.
            graph = graph_class(ndim=index.dim, metric="ip", dtype="f16", enable_key_lookups=False)
            graph.view(str(path))
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        if (graph.ndim, len(graph)) != (index.dim, block):
            raise ValueError(f"{len(graph)} vectors of {graph.ndim} numbers")
    graph.expansion_search = _CANDIDATES
    return graph


def _measure(approximate: Approximate, index: Index, names: Sequence[str]) -> Recall:
    """Return the recall of graphs, of rows at even distances.

    Any row is right that is as near as the nearest n are: equal vectors, such as those of silence,
    stand for each other.
    """
    sample = np.unique(np.linspace(0, len(index) - 1, _SAMPLED).astype(np.int64))
    vectors = index.vectors(sample)
    exact = index.nearest_to_each(vectors, 1 + 100)
    shares = []
    for row, vector, nearest in zip(sample, vectors[:, None], exact, strict=True):
        wanted = index.similarity_of(vector, nearest[nearest != row])
        rows, scores = approximate.nearest(vector)
        proposed = np.sort(scores[rows != row])[::-1]
        shares.append([_recall(proposed, wanted, count) for count in (10, 100)])
    at_10, at_100 = np.mean(shares, axis=0).tolist()
    return Recall(at_10=at_10, at_100=at_100, sampled=len(sample), graphs=tuple(names))


def _recall(
    proposed: Float[np.ndarray, " proposed"], wanted: Float[np.ndarray, " wanted"], count: int
) -> float:
    """Return which share of the best scores is proposed, given scores from the best on."""
    best = wanted[:count]
    right = proposed[:count] >= best[-1] - _ROUNDING
    return int(right.sum()) / len(best)


def _unit(index: Index, vectors: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "row dim"]:
    """Return standardised vectors of length 1, whose products are the cosines of a search."""
    mean, deviation = index.scale
    standardised = (vectors - mean) / deviation
    lengths = np.linalg.norm(standardised, axis=1, keepdims=True)
    units: np.ndarray = standardised / np.maximum(lengths, 1e-6)
    return units


def _names(index: Index, block: int) -> tuple[str, ...]:
    """Return the names of the graphs of an index: digests of what its blocks hold.

    Lengths of standardised vectors stand for these, and are a hundredth of their size.
    """
    names = []
    for first in range(0, len(index) - block + 1, block):
        digest = hashlib.blake2b(index.scale.tobytes(), digest_size=16)
        digest.update(index.norms[first : first + block].tobytes())
        names.append(digest.hexdigest())
    return tuple(names)


def _folder(index: Index) -> Path:
    return index.folder / FOLDER


def _fix(index: Index) -> str:
    return (
        f"bring it up to date with: melpatch index {index.identity.run} RECORDINGS "
        f"--out {index.folder} --approximate"
    )


def _graph_class() -> Callable[..., Any]:
    """Return usearch's class of a graph.

    Raises:
        ConfigError: usearch is not installed.
    """
    try:
        from usearch.index import Index as Graph
    except ImportError as error:
        raise ConfigError(
            "--approximate needs usearch; install it with: pip install 'melpatch[approximate]'"
        ) from error
    graph_class: Callable[..., Any] = Graph
    return graph_class
