"""The clips that a table lists, line by line; malformed lines are left out and named."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from operator import itemgetter
from pathlib import Path, PureWindowsPath
from sys import intern

import numpy as np

from melpatch.counted import counted
from melpatch.data.addresses import is_shard_name
from melpatch.data.columns import ColumnNames, Columns, recognise
from melpatch.data.corpus import Rejected
from melpatch.data.file_names import path_of_url
from melpatch.data.plain_lines import BLOCK, SAME_TIME, Places, PlainLines
from melpatch.data.remote import is_url, locate
from melpatch.data.repeats import labels_together
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
    Listing,
    Row,
    Table,
    split_labels,
)
from melpatch.data.row_columns import RowColumns, RowsBuilder, columns_with_usual_splits
from melpatch.data.tables import opened
from melpatch.errors import shortened

# Folders, beside a table or its folder, in which its files may lie if not in its own folder.
_ELSEWHERE = ("audio", "wav", "wavs", "clips", "recordings", "../audio", "../wav", "../clips")
_MEMBER = re.compile(r"\[[0-9a-f]{16} at (byte|row) \d+\]$")


def read_table(path: Path, names: ColumnNames, url: str = "") -> Listing:
    """Return the clips that a table lists; its paths are relative to its folder, or to its URL.

    A malformed line is rejected, and the others are taken.

    Args:
        path: the table.
        names: the columns that the user named.
        url: URL of the folder that a remote index belongs to; ``""`` for a local table.

    Raises:
        DataError: the table cannot be read, or has no column of paths.
    """
    rejected: list[Rejected] = []
    with opened(path) as table:
        if table.label and names.label == LABEL:
            names = replace(names, label=table.label)
        columns = recognise(path, table.header, names)
        reader, listed = _read_lines(path, url, table, columns, rejected)
        if table.label_a_line:
            listed = RowColumns.of(labels_together(listed))
        if table.split:
            listed = listed.with_splits(lambda name: name or table.split)
        remarks = [f"{path}: {text}" for text in (*table.remarks, *_remarks(columns, reader))]
    listed, sentence = columns_with_usual_splits(listed)
    if sentence:
        remarks.append(f"{path}: {sentence}")
    remarks.extend(f"{path}: {text}" for text in _mixed_labels(listed))
    return Listing(listed, rejected, remarks)


def _read_lines(
    path: Path, url: str, table: Table, columns: Columns, rejected: list[Rejected]
) -> "tuple[_RowReader | None, RowColumns]":
    """Return the rows of a table, and what read them if there is any; malformed lines are rejected."""
    rows = RowsBuilder()
    reader: _RowReader | None = None
    left = iter(table.lines)
    while lines := [*islice(left, BLOCK)]:
        if reader is None:
            first = next((cells for _, cells in lines if not isinstance(cells, str)), None)
            if first is not None:
                _check_key(columns, first)
                reader = _RowReader(path, url, columns, first)
                plain = reader.plain_lines(rows)
        if reader is not None and plain.add(lines):
            continue
        one_by_one: list[Row] = []
        for number, cells in lines:
            try:
                if reader is None or isinstance(cells, str):
                    raise ValueError(cells)
                one_by_one.append(reader(number, cells))
            except ValueError as error:
                where = f"{table.where or path}, {table.unit} {number}"
                rejected.append(Rejected(where, str(error)))
        rows.add(one_by_one)
    return reader, rows.done()


def _check_key(columns: Columns, cells: list[str]) -> None:
    """Drop a column ``key`` that holds something else, such as the key of a piece of music."""
    number = columns.numbers.get(KEY)
    if number is not None and number < len(cells):
        try:
            _whole(cells[number], KEY, -(1 << 63), 1 << 63)
        except ValueError:
            columns.drop(KEY)


def _remarks(columns: Columns, reader: "_RowReader | None") -> Iterator[str]:
    about_columns = columns.remark()
    if about_columns:
        yield about_columns
    if reader is None:
        return
    if reader.elsewhere:
        yield f"its paths are relative to {reader.folder}"
    if reader.contradictions:
        yield (
            f"line {reader.contradictions[0]}: duration is not end minus start; the end is taken"
            f" (so in {len(reader.contradictions)} lines)"
        )


def _mixed_labels(rows: RowColumns) -> Iterator[str]:
    """Yield sentences on labels that look as if they were meant as one class, or as no class."""
    lines: dict[str, int] = {}
    _, firsts = np.unique(rows.clips.label_set, return_index=True)
    for number in np.sort(firsts).tolist():
        for label in rows.clips.label_sets[int(rows.clips.label_set[number])]:
            lines.setdefault(label, int(rows.lines[number]))
    numbers = {label for label in lines if _is_number(label)}
    words = lines.keys() - numbers
    if numbers and words:
        number = min(numbers, key=lambda label: lines[label])
        word = min(words, key=lambda label: lines[label])
        yield (
            f"labels are numbers and words, such as {number!r} in line {lines[number]} and "
            f"{word!r} in line {lines[word]}; each is a class of its own"
        )
    values = Counter(float(label) for label in numbers)
    for value, count in values.items():
        if count > 1:
            same = sorted(label for label in numbers if float(label) == value)
            listed = " and ".join(f"{label!r} (line {lines[label]})" for label in same)
            yield f"labels {listed} are the same number, but classes of their own"


def _is_number(label: str) -> bool:
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


class _RowReader:
    """Makes rows from the cells of lines; missing columns are blank."""

    def __init__(self, path: Path, url: str, columns: Columns, first: list[str]) -> None:
        self.url = url
        self.width = len(columns.header)
        roles = (PATH, LABEL, SPLIT, START, DURATION, KEY, GROUP, OFFSET, SIZE, CRC32, END, MEMBER)
        # Missing columns refer to a blank cell that is appended to each line.
        positions = [columns.numbers.get(role, self.width) for role in roles]
        self.positions = dict(columns.numbers)
        self.path_position = positions[0]
        self.pick = itemgetter(*positions)
        self.own_folder = path.parent.absolute()
        self.folder = self._folder_of(first)
        # The file of the previous line, as successive lines often share a shard.
        self.last_cell = ""
        self.last_file = (self.folder, "")
        # Numbers of the lines whose duration is not their end minus their start.
        self.contradictions: list[int] = []

    @property
    def elsewhere(self) -> bool:
        """Whether the paths are relative to another folder than the table's."""
        return self.folder != self.own_folder

    def _folder_of(self, cells: list[str]) -> Path:
        """Return the folder that paths are relative to: that of the table, if the file is there."""
        cell = cells[self.path_position] if self.path_position < len(cells) else ""
        if self.url or not cell.strip() or is_url(cell) or Path(cell).is_absolute():
            return self.own_folder
        candidates = [self.own_folder, Path.cwd()]
        candidates += [self.own_folder / name for name in _ELSEWHERE]
        for folder in candidates:
            if _is_file(folder / cell):
                return folder
        return self.own_folder

    def plain_lines(self, rows: RowsBuilder) -> PlainLines:
        """Return what adds blocks of lines to rows where no line needs a second look."""
        places = Places(self.folder, self._locate, self._name, self.elsewhere, bool(self.url))
        return PlainLines(rows, self.positions, self.width, places)

    def __call__(self, number: int, cells: list[str]) -> Row:
        """Return the row of a line.

        Raises:
            ValueError: the line is malformed.
        """
        if len(cells) != self.width:
            problem = f"{counted(len(cells), 'cell')}, but the header has {self.width}"
            raise ValueError(f"{problem}; put cells with commas into double quotes")
        picked = self.pick([*cells, ""])
        file, label, split, start, duration, key, group, offset, size, crc32, end, member = picked
        if not file.strip():
            raise ValueError("no path; fill it in, or drop the row")
        if "\0" in file:
            raise ValueError("the path has a null byte; correct it")
        if size.strip():
            # As commands write the place of a packed clip: its shard, member and offset.
            file = _MEMBER.sub("", file)
        path, url = self._locate(file)
        begin = _number(start, START) or 0.0
        seconds = self._seconds(number, begin, duration, end)
        known_key = _whole(key, KEY, -(1 << 63), 1 << 63)
        packed = (
            _whole(offset, OFFSET) or 0,
            _whole(size, SIZE) or 0,
            _whole(crc32, CRC32, 0, 1 << 32) or 0,
        )
        # What another tool stored is probed; what is on a server would have to be fetched for it.
        if any(packed) and not (packed[1] and (seconds or not url)):
            problem = "a part of a shard, but without its size or duration"
            raise ValueError(f"{problem}; take the row from the shard's index")
        name = file
        if known_key is None:
            name = self._name(path, file)
            # Sounds of one file are distinguished by their names in it.
            if packed[1] and member:
                name = f"{name}/{member}"
        return Row(
            path,
            name,
            split_labels(label),
            # Splits and groups recur on many lines; interning keeps one copy of each text.
            intern(split.strip()),
            begin,
            seconds,
            known_key,
            intern(group.strip()),
            *packed,
            url,
            number,
        )

    def _seconds(self, number: int, begin: float, duration: str, end: str) -> float | None:
        """Return the length of a clip, from its end if that is given; None if neither is."""
        seconds = _number(duration, DURATION)
        if seconds == 0:
            raise ValueError("duration = 0; allowed: seconds above 0, or blank")
        stop = _number(end, END)
        if stop is None:
            return seconds
        if stop <= begin:
            raise ValueError(f"end = {end!r}; allowed: seconds after the start, {begin:g}")
        if seconds is not None and abs(stop - begin - seconds) > SAME_TIME:
            self.contradictions.append(number)
        # Rounded, since 2.3 - 2.2 is 0.09999999999999964.
        return round(stop - begin, 9)

    def _locate(self, cell: str) -> tuple[Path, str]:
        """Return the file of a line and its URL, ``""`` for a local one."""
        if cell != self.last_cell:
            self.last_file = self._file_of(cell)
            # Noted last: a cell that is refused is refused on every line.
            self.last_cell = cell
        return self.last_file

    def _file_of(self, cell: str) -> tuple[Path, str]:
        local = path_of_url(cell)
        if local is not None:
            return local, ""
        if is_url(cell):
            return locate(cell)
        if not self.url:
            return self.folder / _with_separators(cell, self.folder), ""
        if not is_shard_name(cell):
            raise ValueError(
                f"path = {shortened(cell)}; allowed: shard-NUMBER.tar, without a folder"
            )
        return self.folder / cell, f"{self.url}/{cell}"

    def _name(self, path: Path, cell: str) -> str:
        if self.elsewhere:
            return Path(_with_separators(cell, self.folder)).as_posix()
        if path.is_relative_to(self.folder):
            path = path.relative_to(self.folder)
        return path.as_posix()


def _with_separators(cell: str, folder: Path) -> str:
    """Return a path of a table that was written on Windows with this system's separators."""
    if "\\" not in cell:
        return cell
    # Elsewhere a backslash may be part of a name.
    other = PureWindowsPath(cell).as_posix()
    return other if _is_file(folder / other) and not _is_file(folder / cell) else cell


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _number(cell: str, column: str) -> float | None:
    """Return a cell in seconds; None if it is blank."""
    if not cell.strip():
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{column} = {cell!r}; allowed: seconds, 0 or more, or blank")
    return value


def _whole(cell: str, column: str, low: int = 0, high: int = 1 << 62) -> int | None:
    """Return a cell as a whole number from ``low`` to below ``high``; None if it is blank."""
    if not cell.strip():
        return None
    try:
        value = int(cell)
    except ValueError:
        value = high
    if not low <= value < high:
        allowed = "as in the shard's index"
        if column == KEY:
            allowed = "a signed 64-bit number, or blank to have it made"
        raise ValueError(f"{column} = {cell!r}; allowed: {allowed}")
    return value
