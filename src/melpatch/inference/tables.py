"""Tables as CSV, NPZ or Parquet, written from chunks of rows that are never all in memory."""

import csv
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from melpatch.config import check
from melpatch.data.columns import class_columns
from melpatch.errors import ConfigError
from melpatch.inference.arrow import arrow
from melpatch.inference.digests import DIGEST, DigestedFile, digest_of_members
from melpatch.inference.table_about import MEMBER, METADATA, about_text

SECONDS = "seconds"
"""Format of times in CSV: to a millisecond, or to a microsecond where that differs."""


@dataclass(frozen=True)
class Column:
    """A column of a table, or several side by side.

    Attributes:
        name: name of the column.
        values: from a chunk of rows to the column's values, (row) or (row, value).
        spec: format specification of a value in CSV, such as ``.6g``, or :data:`SECONDS`.
        names: classes of the values of a row, if there are several; a class that is called as
            another column has a prefix. Without, CSV numbers the values.
    """

    name: str
    values: Callable[[np.ndarray], np.ndarray]
    spec: str = ""
    names: tuple[str, ...] = ()


Chunks = Callable[[], Iterator[np.ndarray]]
"""Returns the chunks of all rows in order; may be called again. There is at least one row."""


def table_format(out: Path, default: str) -> str:
    """Return the format that a file's ending stands for: ``.csv``, ``.npz`` or ``.parquet``.

    Args:
        out: the file.
        default: format of a name without an ending.

    Raises:
        ConfigError: the ending is unknown, or pyarrow, which writes Parquet, is not installed.
    """
    ending = out.suffix.lower() or default
    if ending not in _WRITERS:
        raise ConfigError(f"out = {str(out)!r}; allowed: a name that ends in {', '.join(_WRITERS)}")
    check(not out.is_dir(), "out", str(out), "the name of a file; there is a folder of this name")
    if ending == ".parquet":
        arrow()
    return ending


def write_table(
    path: Path,
    ending: str,
    columns: Sequence[Column],
    chunks: Chunks,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a table.

    Args:
        path: the file.
        ending: its format, see :func:`table_format`.
        columns: the columns in order.
        chunks: the rows.
        about: facts about the table; a CSV file has no place for them, see
            :func:`melpatch.inference.table_about.note_beside`.
    """
    text = None if about is None else about_text(about)
    _WRITERS[ending](path, columns, chunks, text)


def _write_csv(path: Path, columns: Sequence[Column], chunks: Chunks, _about: str | None) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for number, chunk in enumerate(chunks()):
            header: list[str] = []
            cells: list[list[str]] = []
            for column in columns:
                values = column.values(chunk)
                header.extend(_header(column, values, columns))
                # Column by column, since a column has one format; turned into lines at the end.
                side_by_side = values.T if values.ndim == 2 else values[None]
                for single in side_by_side:
                    cells.append([_cell(value, column.spec) for value in single.tolist()])
            if number == 0:
                writer.writerow(header)
            writer.writerows(zip(*cells, strict=True))


def _cell(value: Any, spec: str) -> str:
    if spec != SECONDS:
        return format(value, spec)
    exact = f"{value:.6f}"
    return exact.removesuffix("000")


def _header(column: Column, values: np.ndarray, columns: Sequence[Column]) -> Sequence[str]:
    if values.ndim == 1:
        return (column.name,)
    if column.names:
        return class_columns(column.names, [other.name for other in columns])
    return [f"{column.name}_{number}" for number in range(values.shape[1])]


def _write_npz(path: Path, columns: Sequence[Column], chunks: Chunks, about: str | None) -> None:
    """Write what ``np.savez`` would for whole columns, with the same bytes at any time of day."""
    with zipfile.ZipFile(path, "w") as archive:
        for column in columns:
            # A first pass for the shape and dtype of the whole column: texts differ in length.
            shapes = []
            dtypes = set()
            for chunk in chunks():
                values = column.values(chunk)
                shapes.append(values.shape)
                dtypes.add(values.dtype)
            shape = (sum(rows for rows, *_ in shapes), *shapes[0][1:])
            dtype = np.result_type(*dtypes)
            _write_member(archive, column.name, dtype, shape, map(column.values, chunks()))
            if column.names:
                names = np.array(column.names)
                _write_member(archive, "labels", names.dtype, names.shape, iter([names]))
        if about is not None:
            text = np.array(about)
            _write_member(archive, MEMBER, text.dtype, text.shape, iter([text]))
        archive.comment = digest_of_members(archive)


def _write_member(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    arrays: Iterator[np.ndarray],
) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    # A ZipInfo of our own has a fixed date; the default one would hold the time of writing.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for array in arrays:
            file.write(np.ascontiguousarray(array, dtype).tobytes())


def _write_parquet(
    path: Path, columns: Sequence[Column], chunks: Chunks, about: str | None
) -> None:
    """Write one row group per chunk; unnamed values of a row become a list of fixed length."""
    _, parquet = arrow()
    writer = None
    with path.open("wb") as file:
        digested = DigestedFile(file)
        for table in _row_groups(columns, chunks):
            if writer is None:
                schema = table.schema
                if about is not None:
                    schema = schema.with_metadata({METADATA: about})
                writer = parquet.ParquetWriter(digested, schema)
            writer.write_table(table)
        if writer is not None:
            # All but the footer is on its way. The facts are written there, as this is.
            digested.include((about or "").encode())
            writer.add_key_value_metadata({DIGEST: digested.digest()})
            writer.close()


def _row_groups(columns: Sequence[Column], chunks: Chunks) -> Iterator[Any]:
    """Yield each chunk as an Arrow table."""
    pa, _ = arrow()
    for chunk in chunks():
        fields: dict[str, Any] = {}
        for column in columns:
            values = column.values(chunk)
            if values.ndim == 1:
                fields[column.name] = pa.array(values)
            elif column.names:
                names = _header(column, values, columns)
                fields |= dict(zip(names, map(pa.array, values.T), strict=True))
            else:
                flat = pa.array(np.ascontiguousarray(values).reshape(-1))
                fields[column.name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        yield pa.table(fields)


_WRITERS: dict[str, Callable[[Path, Sequence[Column], Chunks, str | None], None]] = {
    ".csv": _write_csv,
    ".npz": _write_npz,
    ".parquet": _write_parquet,
}
TABLE_ENDINGS = tuple(_WRITERS)
"""Endings of tables, which name their formats."""
