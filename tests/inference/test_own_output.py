"""An output that somebody changed is not taken for the command's own, and so is not written over."""

import shutil

import numpy as np
import pytest

from melpatch.inference.own_output import is_own_output
from melpatch.inference.tables import SECONDS, Column, write_table
from melpatch.unchanged import note_digest

ENDINGS = (".csv", ".npz", ".parquet")
ROWS = 5


def written(path, ending, about=None):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    values = np.random.default_rng(0).standard_normal((ROWS, 3)).astype(np.float32)
    columns = [
        Column("path", lambda rows: np.array([f"{row}.wav" for row in rows])),
        Column("start", lambda rows: rows * 0.5, SECONDS),
        Column("embeddings", lambda rows: values[rows], ".9g"),
    ]
    write_table(path, ending, columns, lambda: iter([np.arange(3), np.arange(3, ROWS)]), about)
    if ending == ".csv":
        note_digest(path, path)
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_output_is_the_commands_own_until_it_is_changed(tmp_path, ending):
    path = written(tmp_path / "a", ending)
    assert is_own_output(path, ending, "embed")
    assert not is_own_output(path, ending, "predict")
    again = written(tmp_path / "b", ending)
    assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("change", ["digit", "saved again", "path", "row left out"])
def test_changes_of_a_csv_file_are_noticed(tmp_path, change):
    path = written(tmp_path / "a.csv", ".csv")
    text = path.read_bytes().decode()
    first = text.splitlines(keepends=True)[1]
    last_digit = first.rstrip()[-1]
    changed = {
        "digit": text.replace(first, f"{first.rstrip()[:-1]}{(int(last_digit) + 1) % 10}\r\n"),
        "saved again": text.replace("\r\n", "\n"),
        "path": text.replace("0.wav", "9.wav"),
        "row left out": text.replace(first, ""),
    }
    assert changed[change] != text
    path.write_bytes(changed[change].encode())
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


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_a_table_is_the_commands_own_with_and_without_facts(tmp_path, ending):
    facts = {"melpatch": "0.1.0", "run": "runs/a"}
    assert is_own_output(written(tmp_path / "with", ending, facts), ending, "embed")
    assert is_own_output(written(tmp_path / "without", ending), ending, "embed")


def test_facts_of_a_parquet_file_that_were_changed_are_noticed(tmp_path):
    path = written(tmp_path / "a.parquet", ".parquet", {"melpatch": "0.1.0", "run": "runs/a"})
    # The text stands twice: in the metadata of the file, and in the schema that Arrow keeps there.
    path.write_bytes(path.read_bytes().replace(b"runs/a", b"runs/b"))
    assert not is_own_output(path, ".parquet", "embed")


def test_a_csv_file_that_was_copied_without_its_digest_is_not_replaced(tmp_path):
    written(tmp_path / "a.csv", ".csv")
    copied = shutil.copy(tmp_path / "a.csv", tmp_path / "b.csv")
    assert not is_own_output(copied, ".csv", "embed")


def test_a_crash_before_the_output_is_replaced_leaves_one_that_is_known(tmp_path):
    path = written(tmp_path / "a.csv", ".csv")
    (tmp_path / "new.csv").write_text("path,embeddings_0\r\nx.wav,1\r\n")
    note_digest(path, tmp_path / "new.csv")
    assert is_own_output(path, ".csv", "embed")
    (tmp_path / "new.csv").replace(path)
    assert is_own_output(path, ".csv", "embed")
