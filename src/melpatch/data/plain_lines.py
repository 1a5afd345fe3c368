"""Blocks of plain lines of a table, converted column by column instead of line by line.

A line is plain if nothing about it needs a second look: as many cells as the header, a tidy path,
numbers in their ranges. A block with any other line is left to :mod:`melpatch.data.listing`, which
looks at each line by itself and knows what is wrong with it.
"""

import os
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from melpatch.data.row import (
    CRC32,
    DURATION,
    END,
    GROUP,
    KEY,
    LABEL,
    MEMBER,
    OFFSET,
    PATH,
    SIZE,
    SPLIT,
    START,
    Line,
    split_labels,
)
from melpatch.data.row_columns import RowsBuilder

BLOCK = 4096
"""Lines that are converted at a time."""
SAME_TIME = 0.01
"""Two times of a clip that differ by less are the same, in seconds."""
# Parts of paths, each between line breaks, that pathlib would change, or that mean something else:
# empty cells and parts, ".", the "//" of URLs, Windows' separators, and the place of a packed clip.
_NOT_TIDY = ("//", "/./", "\n./", "/.\n", "/\n", "\n.\n", "\n\n", "\\", "\0", "[")


class Places(NamedTuple):
    """Where the files of a table lie.

    Attributes:
        folder: the folder that relative paths begin in.
        locate: returns the file of a cell and its URL; raises ValueError for a malformed cell.
        name: returns the name of a file, by its path and its cell.
        elsewhere: whether that is another folder than the table's.
        remote: whether the cells are names of shards on a server.
    """

    folder: Path
    locate: Callable[[str], tuple[Path, str]]
    name: Callable[[Path, str], str]
    elsewhere: bool
    remote: bool


class PlainLines:
    """Adds blocks of plain lines to the rows of a table.

    Args:
        rows: the rows so far.
        positions: the column of each role that the table has.
        width: number of columns.
        places: where the files lie.
    """

    def __init__(
        self, rows: RowsBuilder, positions: dict[str, int], width: int, places: Places
    ) -> None:
        self.rows = rows
        self.positions = positions
        self.width = width
        self.places = places
        self._label_set_of: dict[str, int] = {}

    def add(self, lines: Sequence[Line]) -> bool:
        """Add the rows of lines, and return whether they are plain; nothing is added otherwise."""
        numbers, cells = zip(*lines, strict=True)
        if {*map(type, cells)} != {list} or {*map(len, cells)} != {self.width}:
            return False
        columns = [*zip(*cells, strict=True)]
        try:
            return self._add(numbers, columns)
        except (ValueError, OverflowError):
            return False

    def _add(self, numbers: Sequence[int], columns: list[tuple[str, ...]]) -> bool:
        """Add rows, as :meth:`add`.

        Raises:
            ValueError, OverflowError: a line is not plain.
        """
        count = len(numbers)
        blank = ("",) * count

        def cells(role: str) -> tuple[str, ...]:
            return columns[self.positions[role]] if role in self.positions else blank

        starts = np.nan_to_num(_seconds(cells(START)), nan=0.0)
        durations = _durations(starts, _seconds(cells(DURATION)), cells(END))
        keys = _whole(cells(KEY), -(1 << 63), (1 << 63) - 1)
        offsets = _whole(cells(OFFSET), 0, (1 << 62) - 1)
        sizes = _whole(cells(SIZE), 0, (1 << 62) - 1)
        crc32 = _whole(cells(CRC32), 0, (1 << 32) - 1)
        packed = None
        if any(column is not None for column in (offsets, sizes, crc32)):
            # Of packed clips only those of melpatch's own index are plain.
            if offsets is None or sizes is None or crc32 is None:
                return False
            if not sizes.all() or np.isnan(durations).any() or MEMBER in self._extra(keys):
                return False
            packed = np.stack([offsets, sizes, crc32], axis=1)
        files = self._files(cells(PATH))
        if files is None:
            return False
        self.rows.add_block(
            {
                "file": files,
                "keys": np.zeros(count) if keys is None else keys,
                "keyed": np.full(count, keys is not None),
                "starts": starts,
                "durations": durations,
                "label_set": self._label_sets(cells(LABEL)),
                "split": self.rows.splits.numbers(map(str.strip, cells(SPLIT))),
                "group": self.rows.groups.numbers(map(str.strip, cells(GROUP))),
                "lines": numbers,
            },
            packed,
        )
        return True

    def _extra(self, keys: Int[np.ndarray, " line"] | None) -> set[str]:
        """Return the columns that names of packed clips without keys are made of."""
        return {*self.positions} if keys is None else set()

    def _label_sets(self, cells: Sequence[str]) -> list[int]:
        known = self._label_set_of
        for cell in {*cells} - known.keys():
            known[cell] = self.rows.label_sets[split_labels(cell)]
        return [*map(known.__getitem__, cells)]

    def _files(self, cells: tuple[str, ...]) -> Int[np.ndarray, " line"] | None:
        """Add the files of lines and return their numbers; None if a path is not plain."""
        # Successive lines often share a file.
        is_new = [True, *map(str.__ne__, cells[1:], cells)]
        new = [*compress(cells, is_new)]
        first = len(self.rows.files)
        if not all(map(str.strip, new)):
            return None
        together = "\n".join(["", *new, ""])
        if together.count("\n") != len(new) + 1 or "[" in together or "\0" in together:
            return None
        absolute = together.count("\n/")
        tidy = os.sep == "/" and not any(part in together for part in _NOT_TIDY)
        below = str(self.places.folder)
        below = below if below.endswith("/") else f"{below}/"
        if tidy and absolute == 0 and not self.places.remote:
            self.rows.files.extend(below, new)
        elif tidy and absolute == len(new) and not self.places.remote:
            is_below = all(cell.startswith(below) for cell in new) and not self.places.elsewhere
            head = below if is_below else ""
            self.rows.files.extend(head, [cell.removeprefix(head) for cell in new])
        elif len(new) > len(cells) // 8:
            return None
        else:
            # Few files, such as shards, are looked at one by one.
            located = [(*self.places.locate(cell), cell) for cell in new]
            files = [(path, self.places.name(path, cell), url) for path, url, cell in located]
            if not all(name and str(path).endswith(name) for path, name, _ in files):
                return None
            for file in files:
                self.rows.add_file(*file)
        return first + np.cumsum(is_new) - 1


def _seconds(cells: tuple[str, ...]) -> Float[np.ndarray, " line"]:
    """Return cells in seconds; nan where they are blank.

    Raises:
        ValueError: a cell is no number of 0 or more.
    """
    try:
        values = np.array([*map(float, cells)])
        wanted = np.ones(len(cells), bool)
    except ValueError:
        wanted = np.array([*map(bool, map(str.strip, cells))])
        values = np.full(len(cells), np.nan)
        values[wanted] = [*map(float, compress(cells, wanted))]
    known = values[wanted]
    if not ((known >= 0) & (known < np.inf)).all():
        raise ValueError("seconds are 0 or more")
    # Minus zero becomes zero.
    return values + 0.0


def _durations(
    starts: Float[np.ndarray, " line"], durations: Float[np.ndarray, " line"], ends: Sequence[str]
) -> Float[np.ndarray, " line"]:
    """Return the lengths of clips, from their ends where these are given.

    Raises:
        ValueError: one of them is 0, or contradicts the end.
    """
    if (durations == 0).any():
        raise ValueError("durations are above 0")
    stops = _seconds(tuple(ends))
    given = ~np.isnan(stops)
    if not given.any():
        return durations
    lengths = stops - starts
    if (lengths[given] <= 0).any() or (np.abs(lengths - durations) > SAME_TIME).any():
        raise ValueError("the end is after the start, by the duration")
    # As line by line: NumPy rounds otherwise.
    rounded = np.array([round(length, 9) for length in lengths.tolist()])
    return np.where(given, rounded, durations)


def _whole(cells: tuple[str, ...], low: int, high: int) -> Int[np.ndarray, " line"] | None:
    """Return cells as whole numbers from ``low`` to ``high``; None if all are blank.

    Raises:
        ValueError, OverflowError: a cell is none, or some are blank.
    """
    if not cells[0].strip():
        if any(map(str.strip, cells)):
            raise ValueError("only some are given")
        return None
    values = np.array([*map(int, cells)], np.int64)
    if values.min() < low or values.max() > high:
        raise ValueError("out of range")
    return values
