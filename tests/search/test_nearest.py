"""The best rows: by score, no sound twice, and some per recording."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from melpatch.search import nearest
from melpatch.search.index import Index
from melpatch.search.nearest import best_rows
from melpatch.search.query import Stretch
from melpatch.search.segment import PLACE, Recording

PATHS = ("/a.wav", "/b.wav")


def index_of(rows):
    """Return an index of these rows (recording, start), windows of 2 s."""
    index = Index.__new__(Index)
    index.recordings = [Recording(path, 0.0, None, None) for path in PATHS]
    index.rows = np.array([(number, start, start + 2, False) for number, start in rows], PLACE)
    index.segments = [SimpleNamespace()]
    return index


INDEX = index_of([(0, 0), (0, 0.5), (0, 1), (0, 2), (1, 0), (1, 2)])
SCORES = np.array([0.9, 0.95, 0.8, 0.1, 0.5, -0.5], np.float32)


def rows(**how):
    return [hit.row for hit in best_rows(INDEX, SCORES, 6, **how)]


def test_windows_of_the_same_sound_come_once():
    # Rows 0 and 2 share 1.5 s of 2 with the better row 1; row 3 shares 0.5 s with it.
    assert rows() == [1, 4, 3, 5]


def test_some_per_recording():
    assert rows(per_recording=1) == [1, 4]


def test_the_query_itself_is_left_out():
    assert rows(without=[Stretch(Path("/a.wav"), 0.4, 2.6)]) == [4, 3, 5]


def test_rows_that_are_ruled_out_never_come():
    scores = np.where(np.arange(6) == 4, SCORES, -np.inf)
    assert [hit.row for hit in best_rows(INDEX, scores, 6)] == [4]


def test_of_some_rows_the_best_are_the_same_as_of_all_with_these():
    some = np.array([5, 2, 0, 3])
    hits = best_rows(INDEX, SCORES[some], 6, rows=some)
    assert [(hit.row, hit.score) for hit in hits] == [(row, SCORES[row]) for row in (0, 2, 3, 5)]
    left = best_rows(INDEX, SCORES[some], 6, rows=some, without=[Stretch(Path("/b.wav"), 2.0, 4.0)])
    assert [hit.row for hit in left] == [0, 2, 3]


@pytest.mark.parametrize("looked_at", [1, 100])
def test_the_order_is_that_of_a_full_sort(looked_at, monkeypatch):
    monkeypatch.setattr(nearest, "_LOOKED_AT", looked_at)
    index = index_of([(0, 2 * number) for number in range(500)])
    scores = np.random.default_rng(0).normal(size=500).astype(np.float32)
    hits = best_rows(index, scores, 7)
    assert [hit.row for hit in hits] == np.argsort(-scores)[:7].tolist()
    assert hits[0].score == scores.max()
