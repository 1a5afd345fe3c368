"""Columns of Parquet as cells: as a slow obvious version has them, whatever holds the values."""

import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melpatch.data import parquet_cells
from melpatch.data.parquet_cells import Cells
from melpatch.errors import DataError

FILE = Path("x.parquet")
LONG = "x" * ((1 << 20) + 1)
TOO_LONG = "a cell of more than 1,048,576 characters"


def rows(classes=None, **columns):
    batch = pa.record_batch(columns)
    return [*Cells(FILE, [*columns], classes or {}).rows(batch)]


TEXTS = st.lists(st.none() | st.text(max_size=5), min_size=1)


@given(TEXTS, st.data())
def test_texts_are_the_same_from_dictionaries_longer_and_shorter_than_the_batch(texts, data):
    expected = [[text or ""] for text in texts]
    assert rows(a=pa.array(texts, pa.string())) == expected
    encoded = pa.array(texts, pa.string()).dictionary_encode()
    assert rows(a=encoded) == expected
    # A dictionary of a whole row group holds texts that no row of the batch has.
    others = data.draw(st.lists(st.text(max_size=5)))
    places = encoded.indices.to_pylist()
    shifted = [None if place is None else place + len(others) for place in places]
    whole = pa.array([*others, *encoded.dictionary.to_pylist()], pa.string())
    assert rows(a=pa.DictionaryArray.from_arrays(pa.array(shifted, pa.int32()), whole)) == expected


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([0.5, None, 2.0], ["0.5", "", "2.0"]),
        ([1, -(2**62), None], ["1", "-4611686018427387904", ""]),
        ([True, None, False], ["True", "", "False"]),
        ([datetime.date(2026, 1, 2), None, None], ["2026-01-02", "", ""]),
        ([["a;b", "c"], [], None], ["a,b;c", "", ""]),
        ([float("nan"), 1.5], ["", "1.5"]),
    ],
    ids=["floats", "integers", "truths", "dates", "lists", "missing"],
)
def test_values_are_written_as_python_writes_them(values, cells):
    assert rows(a=pa.array(values)) == [[cell] for cell in cells]


def test_a_time_that_is_no_number_is_left_to_be_refused():
    assert rows(duration=pa.array([float("nan"), None])) == [["nan"], [""]]


def test_what_is_no_cell_is_told_of_its_row_and_the_first_column():
    classes = {"b": ["cat", "dog"]}
    texts = ["s", LONG, "t", LONG]
    for column in (pa.array(texts), pa.array(texts).dictionary_encode()):
        told = rows(classes=classes, a=column, b=pa.array([1, 0, 2, 5]))
        assert told[0] == ["s", "dog"]
        assert told[1] == TOO_LONG
        assert told[2] == "class 2; allowed: 0 to 1, the classes that the file names"
        assert told[3] == TOO_LONG
    assert rows(a=pa.array([["s"], ["x" * 2**19] * 3])) == [["s"], TOO_LONG]


def test_batches_of_no_columns_have_empty_rows():
    assert [*Cells(FILE, [], {}).rows(pa.record_batch({"a": [1, 2]}))] == [[], []]


@pytest.mark.parametrize("lists", [False, True])
def test_all_text_of_a_file_is_counted_before_it_is_joined(monkeypatch, lists):
    monkeypatch.setattr(parquet_cells, "_MOST_TEXT", 1000)
    values = [["x" * 100]] * 6 if lists else ["x" * 100] * 6
    batch = pa.record_batch({"a": pa.array(values)})
    cells = Cells(FILE, ["a"], {})
    assert len([*cells.rows(batch)]) == 6
    with pytest.raises(DataError, match=r"x\.parquet: holds more text than any list of clips"):
        cells.rows(batch)
