"""Approximate searches: what graphs propose has exact scores, and graphs of other vectors are refused."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search import write_index
from melpatch.cli import main
from melpatch.errors import CheckpointError, ConfigError
from melpatch.search import approximate
from melpatch.search.approximate import FOLDER, Approximate, build
from melpatch.search.index import Index
from melpatch.search.nearest import best_rows
from melpatch.search.query import Stretch

pytest.importorskip("usearch", reason="usearch is not installed")
BLOCK = 1000  # rows of a graph
ROWS = 2300  # two graphs, and 300 rows without


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = write_index(tmp_path_factory.mktemp("made") / "index", ROWS, 16, kind="clustered")
    build(Index(folder), BLOCK)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_index(tmp_path / "index", ROWS, 16, kind="clustered")


def graphs_in(folder):
    return sorted(path.name for path in (folder / FOLDER).glob("*.usearch"))


@pytest.mark.parametrize("row", [3, 1500, 2250])
def test_it_finds_what_an_exact_search_finds_with_the_same_scores(made, row):
    index = Index(made)
    query = index.vectors(np.array([row]))
    exact = best_rows(index, index.similarity(query), 10)
    close = Approximate(index, BLOCK).best(query, 10)
    assert len({hit.row for hit in exact} & {hit.row for hit in close}) >= 9
    scores = {hit.row: hit.score for hit in exact}
    for hit in close:
        assert hit.score == pytest.approx(scores.get(hit.row, hit.score), abs=1e-5)
    assert close[0].row == row


def test_few_rows_are_compared(made):
    index = Index(made)
    rows, scores = Approximate(index, BLOCK).nearest(index.vectors(np.array([3])), 20)
    assert len(rows) == len(scores) == 2 * 20 + 300
    assert len(np.unique(rows)) == len(rows)
    np.testing.assert_allclose(
        scores, index.similarity(index.vectors(np.array([3])))[rows], atol=1e-5
    )


def test_its_recall_is_measured_against_all_rows(made, monkeypatch):
    index = Index(made)
    recall = Approximate(index, BLOCK).recall()
    assert recall.sampled == 100
    assert 0.9 < recall.at_100 <= recall.at_10 <= 1
    # A graph that proposes three rows finds three of the nearest hundred in each block at most.
    monkeypatch.setattr(approximate, "_CANDIDATES", 3)
    poor = approximate._measure(_with_candidates(index, 3), index, recall.graphs)
    assert poor.at_100 < 0.5


def _with_candidates(index, count):
    few = Approximate(index, BLOCK)
    nearest = few.nearest
    few.nearest = lambda queries: nearest(queries, count)
    return few


def test_more_are_proposed_until_enough_remain(made):
    index = Index(made)
    query = index.vectors(np.array([3]))
    # Of one row in each recording there are 23, and the nearest hundred are of few recordings.
    hits = Approximate(index, BLOCK).best(query, 23, per_recording=1)
    assert len({index.rows["recording"][hit.row] for hit in hits}) == 23
    usable = np.arange(ROWS) % 400 == 399
    left = Approximate(index, BLOCK).best(query, 10, usable=usable)
    assert [hit.row for hit in left] == [
        hit.row for hit in best_rows(index, np.where(usable, index.similarity(query), -np.inf), 10)
    ]
    own = Stretch(Path("/sounds/0.wav"), 3.0, 4.0)
    assert 3 not in {hit.row for hit in Approximate(index, BLOCK).best(query, 10, without=[own])}


def test_a_grown_index_is_refused_and_brought_up_to_date(folder, tmp_path):
    build(Index(folder), BLOCK)
    before = graphs_in(folder)
    grown = write_index(tmp_path / "more", 1000, 16, kind="random")
    (grown / "000001").rename(folder / "000002")
    with pytest.raises(
        ConfigError, match=r"1,000 of 3,300 vectors are in no graph; .*--approximate"
    ):
        Approximate(Index(folder), BLOCK)
    stamps = [(folder / FOLDER / name).stat().st_mtime_ns for name in before]
    build(Index(folder), BLOCK)
    after = graphs_in(folder)
    assert len(after) == 3
    assert {*before} < {*after}
    assert stamps == [(folder / FOLDER / name).stat().st_mtime_ns for name in before]
    assert Approximate(Index(folder), BLOCK).recall().sampled == 100


def test_graphs_of_other_vectors_are_never_opened(folder, tmp_path):
    build(Index(folder), BLOCK)
    other = write_index(tmp_path / "other", ROWS, 16, kind="random")
    (folder / FOLDER).rename(other / FOLDER)
    with pytest.raises(ConfigError, match="2,000 of 2,300 vectors are in no graph"):
        Approximate(Index(other), BLOCK)
    old = graphs_in(other)
    build(Index(other), BLOCK)
    assert not {*old} & {*graphs_in(other)}


def test_a_killed_build_goes_on_after_its_last_graph(folder, monkeypatch):
    whole = approximate._write
    written = []

    def killed_at_the_second(graph_class, index, first, block, path, shown):
        if first:
            path.with_name(f".{path.name}.1.partial").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(first)
        whole(graph_class, index, first, block, path, shown)

    monkeypatch.setattr(approximate, "_write", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        build(Index(folder), BLOCK)
    assert len(graphs_in(folder)) == 1
    monkeypatch.setattr(
        approximate, "_write", lambda *values: (written.append(values[2]), whole(*values))
    )
    build(Index(folder), BLOCK)
    assert written == [0, BLOCK]
    assert not [*(folder / FOLDER).glob(".*partial")]
    assert Approximate(Index(folder), BLOCK).recall() is not None


@pytest.mark.parametrize("kept", [0, 100, 20_000, -10])
def test_a_damaged_graph_is_named(folder, kept):
    build(Index(folder), BLOCK)
    graph = folder / FOLDER / graphs_in(folder)[0]
    graph.write_bytes(graph.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=f"{graph.name}: damaged .*; remove it, and bring it"):
        Approximate(Index(folder), BLOCK)


def test_a_recall_of_other_graphs_is_not_told(folder):
    build(Index(folder), BLOCK)
    (folder / FOLDER / "recall.json").write_text(
        '{"at_10": 1.0, "at_100": 1.0, "sampled": 9, "graphs": ["a"]}', encoding="utf-8"
    )
    with pytest.raises(CheckpointError, match="measured with other graphs"):
        Approximate(Index(folder), BLOCK).recall()


def test_a_small_index_needs_no_graph(folder, capfd):
    build(Index(folder))
    assert "has 2,300 vectors, and all of fewer than 262,144 are compared" in capfd.readouterr().err
    index = Index(folder)
    assert Approximate(index).recall() is None
    query = index.vectors(np.array([3]))
    assert Approximate(index).best(query, 10) == best_rows(index, index.similarity(query), 10)


def test_without_the_library_it_says_what_to_install(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    assert main(["search", str(folder), "a.wav", "--approximate"]) == 2
    assert "pip install 'melpatch[approximate]'" in capsys.readouterr().err
    words = ["index", "runs/none", "sounds", "--out", str(folder), "--approximate"]
    assert main(words) == 2
    assert "pip install 'melpatch[approximate]'" in capsys.readouterr().err
