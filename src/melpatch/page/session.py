"""What the page knows and does: the index, the answers, a head per label, and who was given what.

Every public method holds one lock, so that several people can work at once.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit

from melpatch.config import check
from melpatch.data.answers import NO, UNDO, YES, Answer, Question, labelled, question, settle
from melpatch.data.file_names import path_text
from melpatch.inference.model import Model
from melpatch.page.split import groups_of, kept_for_tests, random_order
from melpatch.search.approximate import Approximate
from melpatch.search.index import Index
from melpatch.search.label_file import LabelFile, now, require_label
from melpatch.search.nearest import Hit, best_rows, hit
from melpatch.search.precision import points
from melpatch.search.query import Stretch, query_vectors
from melpatch.search.teach import Head, keep_heads, teach
from melpatch.training.run import Run

WAYS = ("likely", "unsure", "far", "random", "test")
"""How the next clips are chosen: most likely to have the label, least sure, farthest from all that
was answered, at random, or at random among those kept to test."""
_RESERVED_SECONDS = 60.0  # for which a clip that one person was asked about is asked nobody else
_MOST_QUERIES = 16  # clips with a label, the latest, that others are compared with
_AT_ONCE = 16  # answered clips that all others are compared with
_THRESHOLDS = np.round(np.linspace(0.02, 0.98, 49), 2)


class Taught(NamedTuple):
    """What the answers to a label have taught, and the rows that they are about."""

    version: int
    rows: Int[np.ndarray, " answered"]
    yes: Bool[np.ndarray, " answered"]
    head: Head | None


@dataclass(frozen=True)
class Card:
    """A stretch as the page shows it."""

    row: int
    path: str
    start: float
    end: float
    score: float | None
    answers: dict[str, str]
    test: bool


class Session:
    """See the module.

    Args:
        index: the index.
        labels: the open file of answers.
        model: the model that made the index.
        graphs: those of the index, to search with; None: all rows are compared.
    """

    def __init__(
        self, index: Index, labels: LabelFile, model: Model, graphs: Approximate | None = None
    ) -> None:
        self.index = index
        self._graphs = graphs
        self.labels = labels
        self.model = model
        self._lock = threading.RLock()
        self._groups = groups_of(index)
        self._test = kept_for_tests(self._groups)
        self._random = random_order(len(index), "random")
        self._rank = np.empty(len(index), np.float32)
        self._rank[self._random] = -np.arange(len(index), dtype=np.float32)
        # By label and row: who was asked, and when.
        self._given: dict[tuple[str, int], tuple[str, float]] = {}
        self._taught: dict[str, Taught] = {}
        self._scores: dict[str, tuple[int, np.ndarray]] = {}
        self._settled: dict[Question, Answer] = {}
        self._rows: dict[Question, int | None] = {}
        self._near = np.full(len(index), -1.0, np.float32)
        self._near_to: set[int] = set()
        self._version = -1
        self._update()

    def _update(self) -> None:
        """Take in the answers of the file; those of stretches that the index lacks have no row."""
        if self._version == len(self.labels.answers):
            return
        self._settled = self.labels.settled()
        for asked in self._settled:
            if asked not in self._rows:
                self._rows[asked] = self.index.nearest_row(*asked[:3])
        self._version = len(self.labels.answers)

    def _distance(self) -> Float[np.ndarray, " row"]:
        """Return how far each row is from all that were answered: the largest cosine, negative."""
        rows = {row for asked in self._settled if (row := self._rows[asked]) is not None}
        new = sorted(rows - self._near_to)
        for begin in range(0, len(new), _AT_ONCE):
            vectors = self.index.vectors(np.array(new[begin : begin + _AT_ONCE]))
            self._near = np.maximum(self._near, self.index.similarity(vectors))
        self._near_to |= rows
        return -self._near

    def _answered(self, label: str, *, test: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows answered by yes or no for a label, and which by yes."""
        own: dict[int, bool] = {}
        for asked, answer in self._settled.items():
            row = self._rows[asked]
            if row is None or asked.label != label or answer.answer not in (YES, NO):
                continue
            if bool(self._test[row]) == test:
                own[row] = answer.answer == YES
        return np.array([*own], np.int64), np.array([*own.values()], bool)

    def _head(self, label: str) -> Taught:
        """Return what is taught about a label, learnt again if there are new answers to it."""
        version = sum(answer.question.label == label for answer in self.labels.answers)
        taught = self._taught.get(label)
        if taught is None or taught.version != version:
            rows, yes = self._answered(label, test=False)
            head = teach(self.index, rows, yes) if len(rows) else None
            taught = Taught(version, rows, yes, head)
            self._taught[label] = taught
        return taught

    def _logits(self, label: str) -> Float[np.ndarray, " row"] | None:
        """Return the logits of all rows, computed when they are first asked for; None without a head."""
        taught = self._head(label)
        if taught.head is None:
            return None
        kept = self._scores.get(label)
        if kept is None or kept[0] != taught.version:
            kept = (taught.version, taught.head.logits(self.index))
            self._scores[label] = kept
        return kept[1]

    def cards(self, hits: Sequence[Hit], label: str = "") -> list[Card]:
        """Return hits as cards, with the answers that stand."""
        with self._lock:
            answers: dict[int, dict[str, str]] = {}
            for asked, answer in self._settled.items():
                row = self._rows[asked]
                if row is not None:
                    answers.setdefault(row, {})[asked.label] = answer.answer
            return [
                Card(
                    clip.row,
                    clip.path,
                    clip.start,
                    clip.end,
                    clip.score if np.isfinite(clip.score) else None,
                    answers.get(clip.row, {}),
                    bool(self._test[clip.row]),
                )
                for clip in hits
            ]

    def next(self, label: str, by: str, count: int, who: str) -> tuple[str, list[Card]]:
        """Return clips to answer next, one of each recording first, and how they were chosen.

        Without a yes and a no there is nothing likely or unsure: then they are those most alike to
        what has the label ("alike"), or else drawn at random.
        """
        check(by in WAYS, "by", by, ", ".join(WAYS))
        require_label(label)
        with self._lock:
            taught = self._head(label)
            shown = None
            chosen = by
            if by in ("random", "test"):
                scores = self._rank.copy()
            elif by == "far":
                scores = self._distance()
            elif (logits := self._logits(label)) is not None:
                shown = expit(logits)
                scores = logits if by == "likely" else -np.abs(logits)
            elif taught.yes.any():
                chosen = "alike"
                scores = self.index.similarity(
                    self.index.vectors(taught.rows[taught.yes][-_MOST_QUERIES:])
                )
            else:
                chosen = "random"
                scores = self._rank.copy()
            usable = np.where(self._test == (by == "test"), scores, -np.inf).astype(np.float32)
            usable[self._unavailable(label, who)] = -np.inf
            hits = self._first_per_recording(usable, count)
            for clip in hits:
                self._given[label, clip.row] = (who, time.monotonic())
            if shown is not None:
                hits = [clip._replace(score=float(shown[clip.row])) for clip in hits]
            elif chosen in ("random", "test"):
                hits = [clip._replace(score=inf) for clip in hits]
            return chosen, self.cards(hits)

    def _unavailable(self, label: str, who: str) -> list[int]:
        """Return the rows that have an answer to a label, or about which somebody else was just asked."""
        answered = [
            row
            for asked in self._settled
            if asked.label == label and (row := self._rows[asked]) is not None
        ]
        since = time.monotonic() - _RESERVED_SECONDS
        others = [
            row
            for (asked_label, row), (to, at) in self._given.items()
            if asked_label == label and to != who and at > since
        ]
        return answered + others

    def _first_per_recording(self, scores: np.ndarray, count: int) -> list[Hit]:
        hits = best_rows(self.index, scores, count, per_recording=1)
        if len(hits) < count:
            rest = scores.copy()
            for clip in hits:
                rest[self.index.rows_within(clip.path, clip.start, clip.end)] = -np.inf
            hits += best_rows(self.index, rest, count - len(hits))
        return hits

    def search(
        self, vectors: Float[np.ndarray, "query dim"], count: int, without: list[Stretch]
    ) -> list[Card]:
        """Return the clips nearest to some vectors; recordings kept to test are left out."""
        with self._lock:
            if self._graphs is not None:
                hits = self._graphs.best(vectors, count, without=without, usable=~self._test)
                return self.cards(hits)
            scores = np.where(self._test, -np.inf, self.index.similarity(vectors))
            return self.cards(
                best_rows(self.index, scores.astype(np.float32), count, without=without)
            )

    def like_row(self, row: int, count: int) -> list[Card]:
        """Return the clips nearest to a row, itself left out."""
        clip = hit(self.index, self._require(row), 1.0)
        own = Stretch(Path(self._file(row)), clip.start, clip.end)
        return self.search(self.index.vectors(np.array([row])), count, [own])

    def like_stretch(self, row: int, start: float, end: float, count: int) -> list[Card]:
        """Return the clips nearest to a stretch of the recording of a row, in seconds."""
        self._require(row)
        check(0 <= start < end < inf, "start", start, "seconds before the end")
        stretch = Stretch(Path(self._file(row)), start, end)
        vectors = query_vectors(self.model, self.index.identity, [stretch])
        return self.search(vectors, count, [stretch])

    def like_label(self, label: str, count: int) -> list[Card]:
        """Return the clips nearest to any of the latest with a label, those left out."""
        with self._lock:
            taught = self._head(label)
            rows = taught.rows[taught.yes][-_MOST_QUERIES:]
            check(bool(len(rows)), "label", label, "a label with a yes outside the test set")
            own = [hit(self.index, row, 1.0) for row in rows.tolist()]
            without = [Stretch(Path(self._file(clip.row)), clip.start, clip.end) for clip in own]
            return self.search(self.index.vectors(rows), count, without)

    def _require(self, row: int) -> int:
        check(0 <= row < len(self.index), "row", row, f"0 to {len(self.index) - 1}")
        return row

    def _file(self, row: int) -> str:
        return self.index.recordings[int(self.index.rows["recording"][row])].path

    def answer(self, row: int, label: str, answer: str, who: str) -> None:
        """Write an answer down; when this returns it is on the disk."""
        with self._lock:
            clip = hit(self.index, self._require(row), 0.0)
            split = "test" if self._test[row] else "train"
            asked = question(clip.path, clip.start, clip.end, label)
            self.labels.add([Answer(asked, split, who, now(), answer)])
            self._update()

    def undo(self, who: str) -> int | None:
        """Take back the latest answer of a person that stands, and return its row."""
        with self._lock:
            given: list[Answer] = []
            for answer in self.labels.answers:
                if answer.who != who:
                    continue
                if answer.answer != UNDO:
                    given.append(answer)
                    continue
                own = [n for n, before in enumerate(given) if before.question == answer.question]
                if own:
                    del given[own[-1]]
            if not given:
                return None
            last = given[-1]
            self.labels.add([last._replace(when=now(), answer=UNDO)])
            self._update()
            return self._rows.get(last.question)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many answers of each kind stand for each label, and how many are for tests."""
        with self._lock:
            counts: dict[str, Counter[str]] = {}
            for asked, answer in self._settled.items():
                own = counts.setdefault(asked.label, Counter())
                own[answer.answer] += 1
                own["test"] += answer.split == "test"
            return {label: dict(own) for label, own in sorted(counts.items())}

    def figures(self, label: str) -> list[dict[str, Any]] | None:
        """Return precision and recall over thresholds on the test clips; None without a head or clips."""
        with self._lock:
            taught = self._head(label)
            rows, yes = self._answered(label, test=True)
            if taught.head is None or not len(rows):
                return None
            probabilities = expit(taught.head.logits_of(self.index, rows))
            _, groups = np.unique(self._groups[rows], return_inverse=True)
            curve = points(probabilities, yes, groups, _THRESHOLDS)
            return [
                {
                    "threshold": point.threshold,
                    "precision": point.precision._asdict(),
                    "recall": point.recall._asdict(),
                }
                for point in curve
            ]

    def wrong(self, label: str) -> list[Card]:
        """Return the training clips that the head gets wrong, the worst first."""
        with self._lock:
            taught = self._head(label)
            if taught.head is None:
                return []
            logits = taught.head.logits_of(self.index, taught.rows)
            against = np.where(taught.yes, -logits, logits)
            order = np.argsort(-against)
            hits = [
                hit(self.index, int(taught.rows[n]), float(expit(logits[n])))
                for n in order[against[order] > 0]
            ]
            return self.cards(hits)

    def keep(self, out: Path, thresholds: dict[str, float]) -> Run:
        """Write the heads of all labels as a run that ``predict`` takes."""
        with self._lock:
            heads = {label: head for label in self.counts() if (head := self._head(label).head)}
            stretches = labelled(settle(self.labels.answers))
            return keep_heads(self.model, self.index, heads, stretches, out, thresholds)

    def shown_path(self, row: int) -> str:
        """Return the file of a row as people read it."""
        return path_text(Path(self._file(self._require(row))))
