"""Selection tables of Raven: columns between tabs, among them ``Begin Time (s)`` and ``End Time (s)``.

The sound is named by ``Begin Path`` or ``Begin File``, or else by the table's own name:
``dawn.Table.1.selections.txt`` is about ``dawn.wav`` or another sound file of that name beside it.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from melpatch.data.formats.base import Format, sound_beside, split_of_file
from melpatch.data.row import END, LABEL, PATH, START, Line, Table
from melpatch.opening import open_text

BEGIN, STOP = "Begin Time (s)", "End Time (s)"
_OFFSET = "File Offset (s)"
# What all views of a selection share, beside its number.
_PLACE = ("Begin Path", "Begin File", BEGIN, STOP)
# What people write into, the most telling first; without any, the last column of their own.
_LABELS = ("Label", "Species", "Annotation", "Common Name", "Class", "Call Type", "Tags")
_OF_RAVEN = (
    "Selection",
    "View",
    "Channel",
    "Notes",
    "Begin Path",
    "Begin File",
    "End Path",
    "End File",
)


class Raven(Format):
    """Selection tables of Raven, one selection a line."""

    what = "a selection table of Raven"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Return whether the first line has columns between tabs with Raven's names of times."""
        names = head.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].rstrip(b"\r").split(b"\t")
        return BEGIN.encode() in names and STOP.encode() in names

    def table(self, path: Path) -> Table:
        """Return file, times and label of each selection; of its several views the first."""
        with open_text(path) as file:
            header = next(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        header = [name.removeprefix("\ufeff").strip() for name in header]
        label = _label_column(header)
        remark = f"the label is the column {label!r}" if label else "no column of labels"
        lines = _lines(path, header, label)
        return Table(
            [PATH, START, END, LABEL],
            lines,
            split=split_of_file(path),
            remarks=[remark],
            label_a_line=True,
        )


def _label_column(header: list[str]) -> str:
    """Return the name of the column of labels; ``""`` if there is none."""
    by_case = {name.casefold(): name for name in header}
    for name in _LABELS:
        if name.casefold() in by_case:
            return by_case[name.casefold()]
    own = [name for name in header if name not in _OF_RAVEN and "(" not in name and name]
    return own[-1] if own else ""


def _lines(path: Path, header: list[str], label: str) -> Iterator[Line]:
    beside = sound_beside(path, path.name.partition(".Table.")[0])
    seen = set()
    with open_text(path) as file:
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(reader)
        for cells in reader:
            row = dict(zip(header, cells, strict=False))
            # A selection has a line for each view of it, waveform and spectrogram. In tables of
            # several recordings that were joined each recording has numbers of its own.
            number = row.get("Selection") or str(reader.line_num)
            selection = (number, *map(row.get, _PLACE))
            if not cells or selection in seen:
                continue
            seen.add(selection)
            yield reader.line_num, _cells(row, label, beside, path)


def _cells(row: dict[str, str], label: str, beside: str, table: Path) -> list[str] | str:
    """Return path, start, end and label of a selection, or why it has none."""
    file = row.get("Begin Path") or row.get("Begin File") or beside
    if not file:
        return f"names no file, and no sound {table.name.partition('.')[0]}.* lies beside it"
    try:
        start, end = float(row[BEGIN]), float(row[STOP])
        if row.get(_OFFSET) and (row.get("Begin Path") or row.get("Begin File")):
            # Times count through a list of files; the offset is that in the file named.
            start, end = float(row[_OFFSET]), float(row[_OFFSET]) + end - start
    except (KeyError, ValueError):
        return f"{BEGIN} = {row.get(BEGIN)!r}, {STOP} = {row.get(STOP)!r}; allowed: seconds"
    return [file, f"{start:.6f}", f"{end:.6f}", row.get(label, "").strip()]
