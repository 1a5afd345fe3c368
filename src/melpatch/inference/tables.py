"""A table written column by column or row by row from pieces of it, never all of it in memory: CSV, NPZ or Parquet."""

import csv
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from melpatch.config import check
from melpatch.errors import ConfigError


@dataclass(frozen=True)
class Column:
    """A column of a table, or several side by side.

    Attributes:
        name: what it is called.
        of: from a piece of rows to the column's values, (row) or (row, value).
        form: how CSV writes a value.
        names: what the values of a row are called, where there are several; CSV numbers them if they have no names.
    """

    name: str
    of: Callable[[np.ndarray], np.ndarray]
    form: str = ""
    names: tuple[str, ...] = ()


Pieces = Callable[[], Iterator[np.ndarray]]
"""Gives the pieces of all rows, in their order; can be called again. There is one row at least."""


def kind(out: Path, default: str) -> str:
    """Return the kind of table that a file's ending asks for: ``.csv``, ``.npz`` or ``.parquet``.

    Args:
        out: the file.
        default: what it is without an ending.

    Raises:
        ConfigError: its ending is another, or what writes Parquet is not installed.
    """
    found = out.suffix.lower() or default
    if found not in _WRITERS:
        raise ConfigError(f"out = {str(out)!r}; allowed: a name that ends in {', '.join(_WRITERS)}")
    check(not out.is_dir(), "out", str(out), "the name of a file; there is a folder of this name")
    if found == ".parquet":
        _arrow()
    return found


def write(path: Path, kind: str, columns: Sequence[Column], pieces: Pieces) -> None:
    """Write a table.

    Args:
        path: the file.
        kind: its kind, see :func:`kind`.
        columns: in their order.
        pieces: the rows.
    """
    _WRITERS[kind](path, columns, pieces)


def _csv(path: Path, columns: Sequence[Column], pieces: Pieces) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        for number, piece in enumerate(pieces()):
            found = [(column, column.of(piece)) for column in columns]
            if number == 0:
                writer.writerow(
                    [name for column, values in found for name in _names(column, values)]
                )
            cells = [
                [format(value, column.form) for value in one.tolist()]
                for column, values in found
                for one in (values.T if values.ndim == 2 else values[None])
            ]
            writer.writerows(zip(*cells, strict=True))


def _names(column: Column, values: np.ndarray) -> Sequence[str]:
    if values.ndim == 1:
        return (column.name,)
    return column.names or [f"{column.name}_{number}" for number in range(values.shape[1])]


def _npz(path: Path, columns: Sequence[Column], pieces: Pieces) -> None:
    """Write what ``np.savez`` would of whole columns; to the byte the same whenever it is written."""
    with zipfile.ZipFile(path, "w") as archive:
        for column in columns:
            found = [
                (values.shape, values.dtype) for values in map(column.of, pieces())
            ]  # texts differ in length
            shape = (sum(size[0] for size, _ in found), *found[0][0][1:])
            kind = np.result_type(*{each for _, each in found})
            _member(archive, column.name, kind, shape, map(column.of, pieces()))
            if column.names:
                names = np.array(column.names)
                _member(archive, "labels", names.dtype, names.shape, iter([names]))


def _member(
    archive: zipfile.ZipFile,
    name: str,
    kind: np.dtype[Any],
    shape: tuple[int, ...],
    parts: Iterator[np.ndarray],
) -> None:
    # An own ZipInfo, since otherwise the time of day would stand in the file.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        about = {
            "descr": np.lib.format.dtype_to_descr(kind),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(file, about)
        for part in parts:
            file.write(np.ascontiguousarray(part, kind).tobytes())


def _parquet(path: Path, columns: Sequence[Column], pieces: Pieces) -> None:
    """Write a row group per piece; unnamed values of a row as a list of fixed length."""
    pa, parquet = _arrow()
    writer = None
    for piece in pieces():
        fields: dict[str, Any] = {}
        for column in columns:
            values = column.of(piece)
            if values.ndim == 1:
                fields[column.name] = pa.array(values)
            elif column.names:
                fields |= dict(zip(column.names, map(pa.array, values.T), strict=True))
            else:
                flat = pa.array(np.ascontiguousarray(values).reshape(-1))
                fields[column.name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        table = pa.table(fields)
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow; install it with: pip install 'melpatch[parquet]'"
        ) from error
    return pyarrow, parquet


_WRITERS: dict[str, Callable[[Path, Sequence[Column], Pieces], None]] = {
    ".csv": _csv,
    ".npz": _npz,
    ".parquet": _parquet,
}
