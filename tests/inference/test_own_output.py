"""An output that somebody changed is not taken for the command's own, and so is not written over."""

import numpy as np
import pytest

from melpatch.inference.own_output import is_own_output
from melpatch.inference.tables import SECONDS, Column, write_table

ENDINGS = (".csv", ".npz", ".parquet")
ROWS = 5


def written(path, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    values = np.random.default_rng(0).standard_normal((ROWS, 3)).astype(np.float32)
    columns = [
        Column("path", lambda rows: np.array([f"{row}.wav" for row in rows])),
        Column("start", lambda rows: rows * 0.5, SECONDS),
        Column("embeddings", lambda rows: values[rows], ".9g"),
    ]
    write_table(path, ending, columns, lambda: iter([np.arange(3), np.arange(3, ROWS)]))
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_output_is_the_commands_own_until_it_is_changed(tmp_path, ending):
    path = written(tmp_path / "a", ending)
    assert is_own_output(path, ending, "embed")
    assert not is_own_output(path, ending, "predict")
    again = written(tmp_path / "b", ending)
    assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("change", ["value", "saved again", "column", "path", "cut"])
def test_changes_of_a_csv_file_are_noticed(tmp_path, change):
    path = written(tmp_path / "a.csv", ".csv")
    text = path.read_bytes().decode()
    first = text.splitlines()[1]
    new = {
        "value": text.replace(first, "0.wav,0.000,0.123,1,2"),
        "saved again": text.replace("\r\n", "\n"),
        "column": text.replace("path,", "path,label,"),
        "path": text.replace("path,", "file,"),
        "cut": text[:-5],
    }
    path.write_bytes(new[change].encode())
    assert not is_own_output(path, ".csv", "embed")


@pytest.mark.parametrize("column", ["embeddings", "path", "label"])
def test_an_npz_file_that_was_saved_again_is_noticed(tmp_path, column):
    path = written(tmp_path / "a.npz", ".npz")
    with np.load(path) as found:
        arrays = dict(found)
    np.savez(path, **arrays | {column: arrays["path"]})
    assert not is_own_output(path, ".npz", "embed")


@pytest.mark.parametrize("row", [0, ROWS - 1])
def test_a_parquet_file_that_was_saved_again_is_noticed(tmp_path, row):
    """Also by pyarrow, which keeps the metadata of a table."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = written(tmp_path / "a.parquet", ".parquet")
    table = parquet.read_table(path)
    names = table["path"].to_pylist()
    names[row] = "other.wav"
    parquet.write_table(table.set_column(0, "path", pa.array(names)), path)
    assert not is_own_output(path, ".parquet", "embed")


PREDICTED = [
    ("0.wav", "a", 0.7, 0.1, "", 0.4, 0.7),  # b has a threshold of more than 0.7
    ("1.wav", "", 0.9, 0.99, "none of these", 0.9, 0.2),
    ("2.wav", "a;b", 0.8, 0.2, "", 0.6, 0.8),
    ("3.wav", "", 0.3, 0.2, "silent", 0.1, 0.3),
]


def predicted(path, rows):
    """Write a table of predictions by thresholds of each class, as ``predict`` does."""
    columns = [
        Column(name, lambda numbers, place=place: np.array([rows[n][place] for n in numbers]))
        for place, name in enumerate(("path", "label", "probability", "novelty", "note"))
    ]
    columns.append(
        Column("p", lambda numbers: np.array([rows[n][5:] for n in numbers]), names=("a", "b"))
    )
    write_table(path, ".csv", columns, lambda: iter([np.arange(len(rows))]))
    return path


def test_labels_by_thresholds_are_the_commands_own_until_one_is_changed(tmp_path):
    path = predicted(tmp_path / "a.csv", PREDICTED)
    assert is_own_output(path, ".csv", "predict")
    for number, label in ((3, "b"), (2, "c")):
        rows = [*PREDICTED]
        rows[number] = (rows[number][0], label, *rows[number][2:])
        assert not is_own_output(predicted(path, rows), ".csv", "predict")
