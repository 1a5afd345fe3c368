"""Parquet files of others, looked at before pyarrow decodes them: none fills the memory.

A file of a few bytes can describe terabytes: pages that decompress to gibibytes, one value that a
dictionary repeats a million times, schemas nested without end. So the schema and the headers of all
pages are read first, dictionaries of texts stay dictionaries, and sound is read a few rows at a
time.
"""

import io
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedIOBase
from itertools import accumulate
from pathlib import Path
from typing import Any

from melpatch.data.thrift import read_struct
from melpatch.errors import DataError, MelpatchError, shortened
from melpatch.faults import let_pass
from melpatch.opening import open_binary, require_regular

ENDING = ".parquet"
"""Ending of the names of Parquet files."""
MAGIC = b"PAR1"
"""The first and the last bytes of a Parquet file."""
SMALLER_GROUPS = "write it again with smaller row groups, such as row_group_size=100"
_MOST_FOOTER = 64 << 20
_DEEPEST = 32
# What is decoded at once: the chosen columns of a row group, uncompressed; and the rows of a batch.
_MOST_DECODED = 2 << 30
_MOST_IN_BATCH = 256 << 20
_MOST_ROWS_IN_BATCH = 1 << 15
# Columns compress by less, unless they are made to fill the memory.
_COMPRESSION = 50
# Texts and bytes; also the end of the name of those of a fixed length.
_BYTES = "BYTE_ARRAY"
# Numbers of fields in Parquet's description of itself.
_SCHEMA, _CHILDREN = 2, 5
_UNCOMPRESSED, _COMPRESSED, _DATA, _DATA_V2, _VALUES = 2, 3, 5, 8, 1


class Parquet:
    """An open Parquet file, whose rows are read in batches.

    Attributes:
        path: the file.
        size: in bytes.
        schema: the columns, as pyarrow describes them.
        starts: first row of each row group, and the number of all rows.

    Raises:
        DataError: pyarrow is missing, or the file is damaged or would fill the memory.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = require_regular(path)
        with _checked(self.path):
            _require_plain_schema(path, self.size)
        with _checked(self.path):
            self._meta = _arrow().read_metadata(path)
            self.schema = self._meta.schema.to_arrow_schema()
            groups = [self._meta.row_group(i).num_rows for i in range(self._meta.num_row_groups)]
            if min(groups, default=0) < 0:
                raise ValueError("a row group has less than no rows")
            self._require_bits(sum(groups), "rows")
            self.starts = [0, *accumulate(groups)]

    @property
    def groups(self) -> range:
        """The numbers of the row groups."""
        return range(len(self.starts) - 1)

    def group_of(self, row: int) -> int:
        """Return the number of the row group that holds a row."""
        return bisect_right(self.starts, row) - 1

    def batches(self, group: int, columns: Sequence[str], *, texts: bool = False) -> Iterator[Any]:
        """Yield the rows of a row group in batches that fit into the memory.

        Args:
            group: number of the row group.
            columns: names of columns, or of fields as ``audio.bytes``.
            texts: yield texts as dictionaries, so that many equal ones take no room.

        Raises:
            DataError: the file is damaged or would fill the memory.
        """
        # Files of no rows may hold a row group without pages.
        if self.starts[group] == self.starts[group + 1]:
            return
        with _checked(self.path):
            leaves = self._leaves(columns)
            dictionaries = [leaf.path for leaf in leaves.values() if texts and _is_text(leaf)]
            largest = self._largest_page(group, leaves, dictionaries)
            rows = max(1, min(_MOST_ROWS_IN_BATCH, _MOST_IN_BATCH // max(1, largest)))
            with _arrow().ParquetFile(
                self.path, metadata=self._meta, read_dictionary=dictionaries
            ) as file:
                yield from file.iter_batches(
                    batch_size=rows, row_groups=[group], columns=[*columns], use_threads=False
                )

    def _leaves(self, columns: Sequence[str]) -> dict[int, Any]:
        """Return the columns of values that belong to these columns, by their numbers."""
        schema = self._meta.schema
        leaves = {number: schema.column(number) for number in range(self._meta.num_columns)}
        return {
            number: leaf
            for number, leaf in leaves.items()
            if any(leaf.path == name or leaf.path.startswith(f"{name}.") for name in columns)
        }

    def _largest_page(self, group: int, leaves: Iterable[int], dictionaries: Sequence[str]) -> int:
        """Return the bytes of the largest pages of texts that are no dictionaries, over all columns.

        No value is larger than its page.

        Raises:
            ValueError: decoding the columns of the row group would fill the memory.
            DataError: the row group is too large to be decoded at once.
        """
        about = self._meta.row_group(group)
        largest = 0
        total = 0
        with open_binary(self.path) as file:
            for column in map(about.column, leaves):
                name = column.path_in_schema
                pages = [*_pages(file, column, self.size)]
                uncompressed = sum(size for size, _ in pages)
                compressed = column.total_compressed_size
                if uncompressed > max(_MOST_IN_BATCH, _COMPRESSION * compressed):
                    raise ValueError(
                        f"{compressed:,} bytes of column {name} would become {uncompressed:,}"
                    )
                self._require_bits(sum(count for _, count in pages), f"values of column {name}")
                total += uncompressed
                # Numbers are small, whatever their pages take.
                if name not in dictionaries and column.physical_type.endswith(_BYTES):
                    largest += max((size for size, _ in pages), default=0)
        if total > _MOST_DECODED:
            raise DataError(
                f"{self.path}: row group {group} holds {total / 2**30:.1f} GiB, more than the "
                f"{_MOST_DECODED >> 30} GiB that are decoded at once; {SMALLER_GROUPS}"
            )
        return largest

    def _require_bits(self, count: int, what: str) -> None:
        """Raise ValueError if the file states more values than it has bits."""
        if count > 8 * self.size:
            raise ValueError(f"{self.size:,} bytes state {count:,} {what}")


@contextmanager
def _checked(path: Path) -> Iterator[None]:
    """Turn whatever pyarrow and the readers of bytes raise into an error of one line."""
    try:
        yield
    except (MelpatchError, OSError) as error:
        let_pass(error)
        if isinstance(error, MelpatchError) or error.errno is not None:
            raise
        raise _damaged(path, error) from error
    # pyarrow has many kinds of errors, several of which are no OSError and no ValueError.
    except Exception as error:
        let_pass(error)
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    reason = shortened(" ".join(str(error).split()), typed=True)
    return DataError(f"{path}: damaged, or not such a table ({reason}); copy it or write it again")


@lru_cache(128)
def opened_parquet(path: Path, modified: int) -> Parquet:
    """Return an open Parquet file, which is kept for the next rows.

    Args:
        path: the file.
        modified: its time of modification.
    """
    return Parquet(path)


def is_parquet(path: Path) -> bool:
    """Return whether clips in a file are rows of Parquet, by its name."""
    return path.suffix.lower() == ENDING


def _arrow() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            "Parquet needs pyarrow; install it with: pip install 'melpatch[parquet]'"
        ) from error
    return parquet


def _is_text(leaf: Any) -> bool:
    return bool(leaf.physical_type == _BYTES)


def _require_plain_schema(path: Path, size: int) -> None:
    """Raise ValueError if the schema is longer or deeper than that of any list of clips."""
    with open_binary(path) as file:
        file.seek(max(0, size - 8))
        end = file.read(8)
        if len(end) < 8 or end[4:] != MAGIC:
            raise ValueError("it does not end like a Parquet file")
        length = struct.unpack("<I", end[:4])[0]
        if length > min(_MOST_FOOTER, size - 8):
            raise ValueError(f"it states a footer of {length:,} bytes")
        file.seek(size - 8 - length)
        footer = io.BytesIO(file.read(length))
    schema = read_struct(footer, last=_SCHEMA).get(_SCHEMA, [])
    # How many children are still to come, at each depth of the tree that the schema lists.
    open_levels: list[int] = []
    for element in schema:
        if open_levels:
            open_levels[-1] -= 1
        open_levels.append(element.get(_CHILDREN) or 0)
        while open_levels and open_levels[-1] == 0:
            open_levels.pop()
        if len(open_levels) > _DEEPEST:
            raise ValueError("its columns are nested too deeply")


def _pages(file: BufferedIOBase, column: Any, size: int) -> Iterator[tuple[int, int]]:
    """Yield the uncompressed size of each page of a column in bytes, and its number of values.

    Raises:
        ValueError: they do not lie where the file says.
    """
    start = column.data_page_offset
    if column.dictionary_page_offset:
        start = min(start, column.dictionary_page_offset)
    end = start + column.total_compressed_size
    if column.file_path or start < 0 or column.total_compressed_size < 0 or end > size:
        raise ValueError(f"column {column.path_in_schema} lies outside the file")
    file.seek(start)
    while file.tell() < end:
        header = read_struct(file)
        uncompressed = header.get(_UNCOMPRESSED, -1)
        compressed = header.get(_COMPRESSED, -1)
        if min(uncompressed, compressed) < 0:
            raise ValueError(f"column {column.path_in_schema} has a page of no size")
        data = header.get(_DATA) or header.get(_DATA_V2) or {}
        yield uncompressed, data.get(_VALUES, 0)
        file.seek(file.tell() + compressed)
