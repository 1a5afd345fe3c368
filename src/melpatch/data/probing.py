"""Read rate and length of the files of rows, each file once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

import numpy as np
from jaxtyping import Float, Int

from melpatch.audio.byte_range import ByteRange
from melpatch.audio.sound_file import Source
from melpatch.data.file_names import path_text
from melpatch.data.missing_shards import unavailable_rows
from melpatch.data.packed import packed
from melpatch.data.parquet import is_parquet
from melpatch.data.row import Row
from melpatch.data.row_columns import RowColumns
from melpatch.data.scan import Probed, scan
from melpatch.errors import AudioError


class Probes(NamedTuple):
    """What reading the files of rows showed.

    Attributes:
        rates: sampling rate of each row's file in Hz; 0 where it was not read.
        seconds: length of each row's file in seconds; 0 where it was not read.
        errors: why rows cannot be used, by their numbers.
        decoded: what decoding whole files showed, by the numbers of rows; empty if only headers
            were read.
    """

    rates: Int[np.ndarray, " row"]
    seconds: Float[np.ndarray, " row"]
    errors: dict[int, AudioError]
    decoded: dict[int, Probed]


def probe_rows(rows: RowColumns, workers: int, *, whole: bool) -> Probes:
    """Return rate and length of the files of rows, each read once; find shards that are missing.

    Args:
        rows: the rows, of which those without duration are read.
        workers: worker processes; 0: read in this process.
        whole: decode all rows but those of remote shards, which would have to be fetched.
    """
    errors = unavailable_rows(rows)
    numbers = _to_read(rows, errors, whole=whole)
    groups = rows.clips.file.astype(np.int64)
    if len(numbers):
        groups = rows.clips.files.first_equal()[groups]
    if rows.clips.packed is not None:
        # Clips in a shard are files of their own.
        own = len(groups) + np.arange(len(groups))
        groups = np.where(rows.clips.packed[:, 1] > 0, own, groups)
    _, firsts, source_of = np.unique(groups[numbers], return_index=True, return_inverse=True)
    order = firsts.argsort()
    source_of = order.argsort()[source_of]
    sources = _Sources(rows, numbers[firsts[order]])
    rates = np.zeros(len(sources), np.int64)
    seconds = np.zeros(len(sources))
    results: dict[int, Probed | AudioError] = {}
    for number, result in enumerate(scan(sources, workers, whole=whole)):
        if isinstance(result, Probed):
            rates[number], seconds[number] = result.sample_rate, result.duration
        if whole or isinstance(result, AudioError):
            results[number] = result
    probes = Probes(np.zeros(len(rows), np.int64), np.zeros(len(rows)), errors, {})
    probes.rates[numbers] = rates[source_of]
    probes.seconds[numbers] = seconds[source_of]
    if results:
        for row, source in zip(numbers.tolist(), source_of.tolist(), strict=True):
            shown = results.get(source)
            if isinstance(shown, AudioError):
                errors[row] = shown
            elif shown is not None:
                probes.decoded[row] = shown
    return probes


def _to_read(
    rows: RowColumns, errors: dict[int, AudioError], *, whole: bool
) -> Int[np.ndarray, " _"]:
    """Return the numbers of the rows whose files are read."""
    wanted = np.isnan(rows.clips.durations)
    if whole:
        # Shards of melpatch state lengths; those on servers are not fetched to be checked.
        remote = np.isin(rows.clips.file, [*rows.clips.urls])
        if rows.clips.packed is None:
            remote[:] = False
        else:
            remote &= rows.clips.packed[:, 1] > 0
        wanted = wanted | ~remote
    wanted[[*errors]] = False
    return np.flatnonzero(wanted)


class _Sources(Sequence[Source]):
    """The files of some rows, made when they are read."""

    def __init__(self, rows: RowColumns, numbers: Int[np.ndarray, " _"]) -> None:
        self.rows = rows
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, number: int) -> Source: ...
    @overload
    def __getitem__(self, number: slice) -> "_Sources": ...
    def __getitem__(self, number: int | slice) -> "Source | _Sources":
        if isinstance(number, slice):
            return _Sources(self.rows, self.numbers[number])
        return _source(self.rows[int(self.numbers[number])])

    def __iter__(self) -> Iterator[Source]:
        return (_source(self.rows[number]) for number in self.numbers.tolist())


def _source(row: Row) -> Source:
    """Return the file of a row, or its bytes in a local shard."""
    if not row.size:
        return row.path
    return _packed(row)


def _packed(row: Row) -> ByteRange:
    unit = "row" if is_parquet(row.path) else "byte"
    name = f"{path_text(row.path)}[at {unit} {row.offset}]"
    return packed(row.path, row.offset, row.size, row.crc32, name)
