"""Columns of a Parquet file as the cells of a table: texts, converted a batch at a time."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from melpatch.data.columns import is_time
from melpatch.data.row import one_label
from melpatch.errors import DataError

_LONGEST_CELL = 1 << 20  # characters
_MOST_TEXT = 1 << 30  # characters of all cells
_UNKNOWN_CLASS = -1  # as datasets writes labels that are not known


class Cells:
    """Turns batches into the cells of their rows.

    Args:
        path: the file, for messages.
        columns: names of the columns that become cells.
        classes: names of the classes whose numbers a column holds, for columns of classes.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], classes: Mapping[str, Sequence[str]]
    ) -> None:
        self.path = path
        self.columns = columns
        self._classes = classes
        self._characters = 0

    def rows(self, batch: Any) -> Iterator[list[str] | str]:
        """Yield the cells of each row of a batch, or what is wrong with one of them.

        Raises:
            DataError: the file holds more text than any list of clips.
        """
        if not self.columns:
            return ([] for _ in range(len(batch)))
        wrong: dict[int, str] = {}
        columns = [self._column(name, batch.column(name), wrong) for name in self.columns]
        rows = map(list, zip(*columns, strict=True))
        if not wrong:
            return rows
        return (wrong.get(number, row) for number, row in enumerate(rows))

    def _column(self, name: str, array: Any, wrong: dict[int, str]) -> list[str]:
        """Return the cells of a column; ``wrong`` gets by their places what is no cell."""
        from pyarrow import types

        classes = self._classes.get(name, ())
        if types.is_list(array.type) or types.is_large_list(array.type):
            return self._lists(values_of(array), classes, wrong)
        if not types.is_dictionary(array.type):
            values = array.to_pylist()
            # NaN is what some write for a missing value; a time that is no number is refused later.
            if types.is_floating(array.type) and not is_time(name):
                values = [None if value != value else value for value in values]
            cells = _texts(values, classes, wrong)
        else:
            # A dictionary is of a whole row group, and may be far longer than the batch.
            used = array.indices.unique().drop_null()
            faults: dict[int, str] = {}
            texts = _texts(array.dictionary.take(used).to_pylist(), classes, faults)
            numbers = used.to_pylist()
            places = array.indices.to_pylist()
            text_of = {None: "", **dict(zip(numbers, texts, strict=True))}
            cells = [*map(text_of.__getitem__, places)]
            if faults:
                fault_of = {numbers[number]: fault for number, fault in faults.items()}
                for row, place in enumerate(places):
                    if place in fault_of:
                        wrong.setdefault(row, fault_of[place])
        self._count(sum(map(len, cells)))
        return cells

    def _lists(
        self, values: Sequence[Any], classes: Sequence[str], wrong: dict[int, str]
    ) -> list[str]:
        """Return lists as cells with semicolons."""
        cells = []
        for number, value in enumerate(values):
            cell = ""
            try:
                cell = _joined(value or (), classes)
            except ValueError as error:
                wrong.setdefault(number, str(error))
            # A dictionary may repeat a long text in every list, so each is counted by itself.
            self._count(len(cell))
            cells.append(cell)
        return cells

    def _count(self, characters: int) -> None:
        self._characters += characters
        if self._characters > _MOST_TEXT:
            raise DataError(f"{self.path}: holds more text than any list of clips; split it")


def values_of(array: Any) -> list[Any]:
    """Return the values of an array; those of dictionaries share their texts."""
    from pyarrow import types

    if types.is_dictionary(array.type):
        texts = array.dictionary.to_pylist()
        return [None if index is None else texts[index] for index in array.indices.to_pylist()]
    if types.is_list(array.type) or types.is_large_list(array.type):
        items = values_of(array.values)
        ends = array.offsets.to_pylist()
        present = array.is_valid().to_pylist()
        return [
            items[start:end] if valid else None
            for start, end, valid in zip(ends, ends[1:], present, strict=False)
        ]
    values: list[Any] = array.to_pylist()
    return values


def _texts(values: Sequence[Any], classes: Sequence[str], wrong: dict[int, str]) -> list[str]:
    """Return texts, numbers and classes as cells."""
    if not classes:
        cells = ["" if value is None else str(value) for value in values]
        if max(map(len, cells), default=0) <= _LONGEST_CELL:
            return cells
    cells = []
    for number, value in enumerate(values):
        cell = ""
        try:
            cell = _text(value, classes)
        except ValueError as error:
            wrong.setdefault(number, str(error))
        cells.append(cell)
    return cells


def _text(value: Any, classes: Sequence[str]) -> str:
    """Return a value as a cell.

    Raises:
        ValueError: it is too long, or the number of no class.
    """
    if value is None or value != value:
        return ""
    if classes and isinstance(value, int):
        if not _UNKNOWN_CLASS <= value < len(classes):
            known = f"0 to {len(classes) - 1}, the classes that the file names"
            raise ValueError(f"class {value}; allowed: {known}")
        return classes[value] if value != _UNKNOWN_CLASS else ""
    text = str(value)
    _require_short(len(text))
    return text


def _joined(values: Sequence[Any], classes: Sequence[str]) -> str:
    """Return a list as a cell.

    Raises:
        ValueError: it is too long, or has the number of no class.
    """
    cells = [one_label(_text(value, classes)) for value in values[:_LONGEST_CELL]]
    # Joined last: a dictionary may repeat a long text a million times.
    _require_short(sum(map(len, cells)) + len(cells))
    return ";".join(cells)


def _require_short(characters: int) -> None:
    """Raise ValueError if a cell is longer than any that lists clips."""
    if characters > _LONGEST_CELL:
        raise ValueError(f"a cell of more than {_LONGEST_CELL:,} characters")
