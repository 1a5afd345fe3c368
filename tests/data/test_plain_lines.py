"""Tables read in blocks of plain lines are as if each line had been looked at by itself."""

import csv
from dataclasses import astuple
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melpatch.data.columns import ColumnNames
from melpatch.data.listing import read_table
from melpatch.data.manifest import load_corpus
from melpatch.data.plain_lines import PlainLines
from melpatch.data.row_columns import RowColumns

PATHS = st.sampled_from(
    (
        *("a.wav", "b/c.wav", "b/../a.wav", "/data/x.wav", "./a.wav", "b//c.wav", "é/ü.wav"),
        *("a[1].wav", "", " ", "b/.", "x\\y.wav", "file:///data/%E9.wav", "new\nline.wav"),
        *("a\0.wav", "b/"),
    )
)
TIMES = st.sampled_from(["", " ", "0", "-0", "1.5", "2", "1_0", "nan", "inf", "-1", "0.1", "word"])
CELLS = {
    "path": PATHS,
    "label": st.sampled_from(["", "a", "a;b", " b; a", "1", "1.0"]),
    "split": st.sampled_from(["", "Train", " test", "dev"]),
    "group": st.sampled_from(["", "s1", "s2 "]),
    "start": TIMES,
    "duration": TIMES,
    "end": TIMES,
    "key": st.sampled_from(["", "7", "-9", str(1 << 63), "x"]),
    "offset": st.sampled_from(["", "0", "512", "-1"]),
    "size": st.sampled_from(["", "0", "9"]),
    "crc32": st.sampled_from(["", "0", "77", str(1 << 32)]),
}


@st.composite
def tables(draw):
    """Return a header and lines: nearly all plain, or of anything."""
    header = ["path", *draw(st.sets(st.sampled_from([*CELLS][1:])))]
    plain = {name: draw(st.sampled_from(["a.wav", "b/c.wav"])) for name in ("path",)}
    lines = []
    for _ in range(draw(st.integers(0, 5))):
        odd = draw(st.booleans())
        lines.append([draw(CELLS[n]) if odd else plain.get(n, "") for n in header])
    return header, lines


def write(path: Path, header, lines):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *lines])


@settings(max_examples=150, deadline=None)
@given(tables())
def test_blocks_and_single_lines_give_the_same_rows_and_the_same_errors(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("table") / "x.csv"
    write(path, *table)
    in_blocks = read_table(path, ColumnNames())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlainLines, "add", lambda self, lines: False)
        one_by_one = read_table(path, ColumnNames())
    assert [*in_blocks.rows] == [*one_by_one.rows]
    assert in_blocks.rejected == one_by_one.rejected
    assert in_blocks.remarks == one_by_one.remarks


def test_plain_tables_are_read_in_blocks(tmp_path, monkeypatch):
    taken = []
    add = PlainLines.add
    monkeypatch.setattr(
        PlainLines, "add", lambda self, lines: taken.append(add(self, lines)) or taken[-1]
    )
    for cell in ("b/c.wav", "/data/c.wav", f"{tmp_path}/c.wav", "é.wav"):
        write(tmp_path / "x.csv", ["path", "label", "duration"], [[cell, "a;b", "1.5"]])
        row = read_table(tmp_path / "x.csv", ColumnNames()).rows[0]
        assert row.path == tmp_path / cell
    assert taken == [True] * 4


def test_rows_survive_as_columns(tmp_path):
    write(tmp_path / "x.csv", ["path", "key"], [["b/../a.wav", "5"], ["/data/x.wav", ""]])
    rows = [*read_table(tmp_path / "x.csv", ColumnNames()).rows]
    odd = [row._replace(name="another", url="memory://x/shard-000001.tar") for row in rows]
    nameless = [row._replace(name="", duration=0.5) for row in rows]
    for listed in (rows, odd, nameless, []):
        assert [*RowColumns.of(listed)] == listed


def test_clips_in_columns_are_like_a_tuple_of_them(tmp_path):
    lines = [
        [f"{n % 7}.wav", "a" if n % 2 else "a;b", "train" if n % 3 else "test", str(n), "2"]
        for n in range(2000)
    ]
    write(tmp_path / "x.csv", ["path", "label", "split", "start", "duration"], lines)
    corpus = load_corpus([tmp_path / "x.csv"])
    clips = (*corpus.clips,)
    assert len(corpus.clips) == 2000
    assert corpus.clips == clips
    assert clips == corpus.clips
    assert hash(corpus.clips) == hash(clips)
    assert corpus.clips != clips[1:]
    assert corpus.clips[-1] == clips[-1]
    assert corpus.clips[5:9] == clips[5:9]
    assert corpus.clips[:1] + corpus.clips[-1:] == (clips[0], clips[-1])
    assert corpus.select(["test"]).clips == tuple(c for c in clips if c.split == "test")
    assert corpus.on_channel("left").clips[3].channel == "left"
    assert [astuple(clip)[2:4] for clip in clips[:2]] == [(0.0, 2.0), (1.0, 2.0)]
    with pytest.raises(IndexError):
        corpus.clips[2000]
    both = load_corpus([tmp_path / "x.csv", tmp_path / "x.csv"])
    assert both.clips == clips
