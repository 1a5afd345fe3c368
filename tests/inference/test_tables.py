"""Tables written piece by piece are those that would be written of all rows at once."""

import csv
import sys
import time

import numpy as np
import pytest

from melpatch.errors import ConfigError
from melpatch.inference.tables import Column, table_format, write_table

KIND = np.dtype([("number", "<i8"), ("values", "<f4", (3,))])


def rows(count):
    table = np.zeros(count, KIND)
    table["number"] = np.arange(count)
    table["values"] = np.random.default_rng(0).normal(size=(count, 3))
    return table


def names(piece):
    return np.array(["x" * (number % 7 + 1) + "ü" for number in piece["number"]])


COLUMNS = [
    Column("path", names),
    Column("key", lambda piece: piece["number"] * 2),
    Column("start", lambda piece: piece["number"] / 3, ".3f"),
    Column("embeddings", lambda piece: piece["values"], ".9g"),
    Column("probabilities", lambda piece: piece["values"] ** 2, ".6g", names=("a", "b", "ü")),
]


@pytest.fixture(params=[1, 4, 100])
def pieces(request):
    """All rows in pieces of some sizes, one of them empty."""
    size = request.param
    return lambda: (rows(20)[at : at + size] for at in range(0, 20, size))


def test_npz_has_what_savez_would_write(tmp_path, pieces):
    write_table(tmp_path / "a.npz", ".npz", COLUMNS, pieces)
    with np.load(tmp_path / "a.npz") as found:
        assert sorted(found) == ["embeddings", "key", "labels", "path", "probabilities", "start"]
        for column in COLUMNS:
            expected = column.values(rows(20))
            np.testing.assert_array_equal(found[column.name], expected)
            assert found[column.name].dtype == expected.dtype
        assert found["labels"].tolist() == ["a", "b", "ü"]


def test_npz_is_the_same_whenever_it_is_written(tmp_path, pieces, monkeypatch):
    write_table(tmp_path / "a.npz", ".npz", COLUMNS, pieces)
    monkeypatch.setattr(time, "localtime", lambda *_: time.gmtime(10**9))
    write_table(tmp_path / "b.npz", ".npz", COLUMNS, pieces)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_csv_has_a_column_for_each_number(tmp_path, pieces):
    write_table(tmp_path / "a.csv", ".csv", COLUMNS, pieces)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == [
        "path",
        "key",
        "start",
        "embeddings_0",
        "embeddings_1",
        "embeddings_2",
        "a",
        "b",
        "ü",
    ]
    table = rows(20)
    assert len(lines) == 20
    assert [line[0] for line in lines] == names(table).tolist()
    assert [line[1] for line in lines] == [str(2 * number) for number in range(20)]
    assert lines[5][2] == "1.667"
    np.testing.assert_array_equal(
        np.array([line[3:6] for line in lines], np.float32), table["values"]
    )
    np.testing.assert_allclose(
        np.array([line[6:] for line in lines], float), table["values"] ** 2, rtol=1e-5
    )


def test_parquet_has_vectors_as_lists_and_a_row_group_per_piece(tmp_path, pieces):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_table(tmp_path / "a.parquet", ".parquet", COLUMNS, pieces)
    found, table = parquet.ParquetFile(tmp_path / "a.parquet"), rows(20)
    assert found.num_row_groups == len([*pieces()])
    read = found.read().to_pydict()
    assert [*read] == ["path", "key", "start", "embeddings", "a", "b", "ü"]
    assert read["path"] == names(table).tolist()
    assert read["embeddings"] == table["values"].tolist()
    assert str(found.schema_arrow.field("embeddings").type) == "fixed_size_list<element: float>[3]"
    np.testing.assert_array_equal(read["b"], table["values"][:, 1] ** 2)


def test_the_kind_is_that_of_the_ending(tmp_path):
    assert table_format(tmp_path / "a.csv", ".npz") == ".csv"
    assert table_format(tmp_path / "a.NPZ", ".csv") == ".npz"
    assert table_format(tmp_path / "a", ".npz") == ".npz"
    with pytest.raises(
        ConfigError, match=r"out = .*a\.txt'; allowed: a name that ends in \.csv, \.npz, \.parquet"
    ):
        table_format(tmp_path / "a.txt", ".npz")
    with pytest.raises(ConfigError, match="there is a folder of this name"):
        table_format(tmp_path, ".npz")


def test_parquet_without_its_library_is_told_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'melpatch\[parquet\]'"):
        table_format(tmp_path / "a.parquet", ".npz")
