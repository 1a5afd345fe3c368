"""The rows that a source lists as columns, and their collection row by row or in blocks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Bool, Int

from melpatch.data.clip_columns import ClipColumns
from melpatch.data.row import Row, renamed_splits
from melpatch.data.texts import TextsBuilder

# Rows that are converted at a time.
_BLOCK = 4096


@dataclass(frozen=True, eq=False, repr=False)
class RowColumns(Sequence[Row]):
    """Rows, made when they are asked for.

    Attributes:
        clips: what rows share with clips; the duration is nan where the file must be probed, the
            key 0 where it is not listed.
        keyed: whether a row lists its key.
        lines: line of the table that lists each row; 0 for a file of a folder.
        names: names of rows, by number, that are not what their path ends in.
    """

    clips: ClipColumns
    keyed: Bool[np.ndarray, " row"]
    lines: Int[np.ndarray, " row"]
    names: dict[int, str]

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, number: int) -> Row: ...
    @overload
    def __getitem__(self, number: slice) -> list[Row]: ...
    def __getitem__(self, number: int | slice) -> Row | list[Row]:
        if isinstance(number, slice):
            return [self[place] for place in range(len(self))[number]]
        number = range(len(self))[number]
        (row,) = self._made(number, self.clips[number : number + 1])
        return row

    def __iter__(self) -> Iterator[Row]:
        for first in range(0, len(self), _BLOCK):
            yield from self._made(first, self.clips[first : first + _BLOCK])

    def _made(self, first: int, clips: Sequence[Any]) -> Iterator[Row]:
        for number, clip in enumerate(clips, first):
            yield Row(
                clip.path,
                self.name(number),
                clip.labels,
                clip.split,
                clip.start,
                None if np.isnan(clip.duration) else clip.duration,
                clip.key if self.keyed[number] else None,
                clip.group,
                clip.offset,
                clip.size,
                clip.crc32,
                clip.url,
                int(self.lines[number]),
            )

    def name(self, number: int) -> str:
        """Return the name of a row, from which a missing key is made."""
        name = self.names.get(number)
        if name is None:
            return self.clips.files.rest(int(self.clips.file[number]))
        return name

    def all_names(self) -> Iterator[str]:
        """Yield the name of each row."""
        rests = self.clips.files.rests()
        if not self.names and len(self.clips.files) == len(self):
            # Each row has a file of its own.
            yield from rests
            return
        file, rest = -1, ""
        for number, wanted in enumerate(self.clips.file.tolist()):
            # Files are numbered in the order in which rows name them.
            while file < wanted:
                file, rest = file + 1, next(rests)
            yield self.names.get(number, rest)

    def with_splits(self, rename: Callable[[str], str]) -> "RowColumns":
        """Return the rows with their splits renamed."""
        splits = tuple(map(rename, self.clips.splits))
        return replace(self, clips=replace(self.clips, splits=splits))

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "RowColumns":
        """Return rows as columns."""
        if isinstance(rows, RowColumns):
            return rows
        builder = RowsBuilder()
        for first in range(0, len(rows), _BLOCK):
            builder.add(rows[first : first + _BLOCK])
        return builder.done()


class Pool(dict[Any, int]):
    """Numbers of values, given in the order in which the values are first met."""

    def __missing__(self, value: Any) -> int:
        self[value] = len(self)
        return self[value]

    def numbers(self, values: Iterable[Any]) -> Int[np.ndarray, " value"]:
        """Return the number of each value."""
        return np.array([*map(self.__getitem__, values)], np.int32)


class RowsBuilder:
    """Collects rows for :class:`RowColumns`.

    Attributes:
        files: paths of the files so far.
        label_sets: numbers of sets of labels.
        splits: numbers of splits.
        groups: numbers of groups.
    """

    def __init__(self) -> None:
        self.files = TextsBuilder()
        self.label_sets = Pool()
        self.splits = Pool()
        self.groups = Pool()
        self._urls: dict[int, str] = {}
        self._names: dict[int, str] = {}
        self._blocks: dict[str, list[np.ndarray]] = {name: [] for name in _DTYPES}
        self._packed: list[np.ndarray] = []
        self._count = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._count

    def add_file(self, path: Path, name: str, url: str) -> str:
        """Add a file, to which the next rows belong, and return the name that it gives them."""
        text = str(path)
        rest = text
        if name and text.endswith(name):
            rest = name
        if url:
            self._urls[len(self.files)] = url
        self.files.extend(text.removesuffix(rest), [rest])
        return rest

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        files: list[int] = []
        last: tuple[Path | None, str] = (None, "")
        rest = ""
        for number, row in enumerate(rows, len(self)):
            # Successive rows often share a file.
            if (row.path, row.url) != last:
                last = row.path, row.url
                rest = self.add_file(row.path, row.name, row.url)
            if row.name != rest:
                self._names[number] = row.name
            files.append(len(self.files) - 1)
        unknown = float("nan")
        self.add_block(
            {
                "file": files,
                "keys": [row.key or 0 for row in rows],
                "keyed": [row.key is not None for row in rows],
                "starts": [row.start for row in rows],
                "durations": [unknown if row.duration is None else row.duration for row in rows],
                "label_set": self.label_sets.numbers(row.labels for row in rows),
                "split": self.splits.numbers(row.split for row in rows),
                "group": self.groups.numbers(row.group for row in rows),
                "lines": [row.line for row in rows],
            },
            [(row.offset, row.size, row.crc32) for row in rows],
        )

    def add_block(self, columns: dict[str, Any], packed: Any = None) -> None:
        """Add rows as columns; their files have been added.

        Args:
            columns: a value per row for each column.
            packed: offset, size and checksum of each row; None: all are files.
        """
        count = len(columns["lines"])
        for name, dtype in _DTYPES.items():
            self._blocks[name].append(np.asarray(columns[name], dtype))
        if packed is None or not count:
            # One row of zeros that is repeated takes no memory.
            packed = np.broadcast_to(np.zeros((1, 3), np.int64), (count, 3))
        self._packed.append(np.asarray(packed, np.int64))
        self._count += count

    def done(self) -> RowColumns:
        """Return all rows; the builder is empty then."""
        whole = {}
        for name, dtype in _DTYPES.items():
            # Blocks are freed column by column.
            whole[name] = np.concatenate([np.zeros(0, dtype), *self._blocks.pop(name)])
        packed = None
        if any(block[:, 1].any() for block in self._packed):
            packed = np.concatenate(self._packed)
        clips = ClipColumns(
            files=self.files.done(),
            urls=self._urls,
            label_sets=tuple(self.label_sets),
            splits=tuple(self.splits),
            groups=tuple(self.groups),
            packed=packed,
            file=whole["file"],
            keys=whole["keys"],
            starts=whole["starts"],
            durations=whole["durations"],
            label_set=whole["label_set"],
            split=whole["split"],
            group=whole["group"],
        )
        return RowColumns(clips, whole["keyed"], whole["lines"], self._names)


def columns_with_usual_splits(rows: RowColumns) -> tuple[RowColumns, str]:
    """Return rows with the usual names of their splits, and in words which names these replace."""
    renamed, sentence = renamed_splits([*rows.clips.split_counts()])
    return (rows.with_splits(lambda name: renamed.get(name, name)) if sentence else rows), sentence


_DTYPES: dict[str, type] = {
    "file": np.int32,
    "keys": np.int64,
    "keyed": np.bool_,
    "starts": np.float64,
    "durations": np.float64,
    "label_set": np.int32,
    "split": np.int32,
    "group": np.int32,
    "lines": np.int32,
}
