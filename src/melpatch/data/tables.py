"""Read the lines of a table as text: CSV, TSV, JSON, NPZ, and the formats of others."""

import csv
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from melpatch.data.json_tables import JSON_ENDINGS, json_table
from melpatch.data.recognition import format_of
from melpatch.data.row import EVENT_COLUMNS, Line, Table
from melpatch.errors import DataError
from melpatch.faults import let_pass
from melpatch.opening import require_no_bomb, require_regular

_LONGEST_LINE = 1 << 24  # characters
_BLOCK = 1 << 18  # characters that are read at a time
ENDINGS = (".csv", ".tsv", *JSON_ENDINGS, ".npz", ".parquet")
"""Endings of tables that list clips."""


def is_table(path: Path) -> bool:
    """Return whether a file lists clips: by the ending of its name, or as a format of others."""
    return path.suffix.lower() in ENDINGS or format_of(path) is not None


@contextmanager
def opened(path: Path) -> Iterator[Table]:
    """Yield a table, whose lines are read from the open file.

    Raises:
        DataError: the file cannot be read, or is no such table; also while the lines are read.
    """
    try:
        require_regular(path)
    except OSError as error:
        let_pass(error)
        problem = f"cannot be read ({error.strerror})"
        raise DataError(f"{path}: {problem}; check who may read it") from error
    ending = path.suffix.lower()
    if ending == ".npz":
        yield Table(*_npz(path))
        return
    try:
        form = format_of(path)
        if form is not None:
            table = form.table(path)
            yield table._replace(remarks=[f"read as {form.what}", *table.remarks])
            return
        if ending in JSON_ENDINGS:
            yield Table(*json_table(path))
            return
        if ending == ".parquet":
            raise DataError(f"{path}: damaged, or no Parquet file; copy it or write it again")
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = _delimiter(file.readline(_LONGEST_LINE), ending)
            file.seek(0)
            # Cells between tabs hold quotation marks as they are.
            bare = delimiter == "\t"
            reader = csv.reader(
                _bounded_lines(file),
                delimiter=delimiter,
                quoting=csv.QUOTE_NONE if bare else csv.QUOTE_MINIMAL,
                strict=not bare,
            )
            try:
                header = [_bare(name) if bare else name.strip() for name in next(reader, [])]
                is_events = tuple(header) == EVENT_COLUMNS
                yield Table(header, _lines(reader, bare=bare), label_a_line=is_events)
            except csv.Error as error:
                fix = "save it with commas and double quotes"
                raise DataError(
                    f"{path}, line {reader.line_num}: not a CSV file ({error}); {fix}"
                ) from error
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#x}"
        raise DataError(f"{path}: not UTF-8 text ({byte}); save it as UTF-8") from error
    except OSError as error:
        let_pass(error)
        problem = f"cannot be read ({error.strerror})"
        raise DataError(f"{path}: {problem}; check who may read it") from error


def header_of(path: Path) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        DataError: the file cannot be read, or is no such table.
    """
    with opened(path) as table:
        return table.header


def _delimiter(header: str, ending: str) -> str:
    """Return what separates the columns: a comma, or what a header without commas has instead."""
    if ending == ".tsv":
        return "\t"
    return next((mark for mark in (",", "\t", ";") if mark in header), ",")


def _bare(cell: str) -> str:
    """Return a cell without blanks and the quotation marks around it."""
    cell = cell.strip()
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"')
    return cell


def _bounded_lines(file: Any) -> Iterator[str]:
    """Yield the lines of a file; one without an end is an error, before it fills the memory."""
    rest = ""
    while block := file.read(_BLOCK):
        block = rest + block
        # A return at the very end may be the first half of a line break.
        end = max(block.rfind("\n"), block.rfind("\r", 0, -1)) + 1
        yield from io.StringIO(block[:end], newline="")
        rest = block[end:]
        if len(rest) >= _LONGEST_LINE:
            raise csv.Error(f"a line of more than {_LONGEST_LINE:,} characters")
    yield from io.StringIO(rest, newline="")


def _lines(reader: Any, *, bare: bool) -> Iterator[Line]:
    before = reader.line_num
    for cells in reader:
        # A quoted cell may go over several lines; the first of them is named.
        first, before = before + 1, reader.line_num
        if cells and (cells[0].strip() or any(map(str.strip, cells))):
            yield first, [*map(_bare, cells)] if bare else cells


def _npz(path: Path) -> tuple[list[str], Iterator[Line]]:
    """Return the arrays of an NPZ file that have a value per row; embeddings have several."""
    try:
        require_no_bomb(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, MemoryError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        let_pass(error)
        raise _damaged(path, error) from error
    first = arrays.get("path", np.zeros(0))
    columns = {
        name: array.tolist()
        for name, array in arrays.items()
        if array.ndim == 1 and len(array) == len(first) and name != "labels"
    }
    return [*columns], _numbered(zip(*columns.values(), strict=True))


def _numbered(rows: Iterator[tuple[Any, ...]]) -> Iterator[Line]:
    """Yield rows as text, numbered from 1."""
    for number, row in zip(count(1), rows, strict=False):
        yield number, ["" if value is None else str(value) for value in row]


def _damaged(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200]
    return DataError(f"{path}: damaged, or not such a table ({reason}); write it again")
