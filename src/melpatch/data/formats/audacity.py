"""Label tracks of Audacity: start, end and label between tabs, without a header.

The sound is named by the track's own name: ``dawn.txt`` is about ``dawn.wav`` or another sound file
of that name beside it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from melpatch.data.formats.base import Format, sound_beside, split_of_file
from melpatch.data.row import END, LABEL, PATH, START, Line, Table
from melpatch.opening import open_text

_FIRST = re.compile(rb"(?:\xef\xbb\xbf)?\d+\.\d+\t\d+\.\d+(?:\t[^\t\r\n]*)?\r?(?:\n|$)")


class Audacity(Format):
    """Label tracks of Audacity, one label a line."""

    what = "a label track of Audacity"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Return whether the first line holds two decimal numbers and a text between tabs."""
        return _FIRST.match(head) is not None

    def table(self, path: Path) -> Table:
        """Return times and label of each line; those of frequencies belong to the line before."""
        columns = [PATH, START, END, LABEL]
        return Table(columns, _lines(path), split=split_of_file(path), label_a_line=True)


def _lines(path: Path) -> Iterator[Line]:
    sound = sound_beside(path, path.stem)
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            cells = line.removeprefix("\ufeff").rstrip("\r\n").split("\t")
            if cells == [""] or cells[0] == "\\":
                continue
            if not sound:
                yield number, f"no sound {path.stem}.* lies beside the track; name both alike"
            elif len(cells) < 2:
                yield number, "allowed: start, end and label between tabs"
            elif cells[0] == cells[1]:
                yield number, "a label of a point in time, not of a stretch; widen it"
            else:
                yield number, [sound, cells[0], cells[1], "".join(cells[2:3]).strip()]
