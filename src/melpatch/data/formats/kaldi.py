"""Kaldi's data folders: ``wav.scp`` and, where they are there, ``segments``, ``utt2spk``, ``text`` and others.

A file ``utt2NAME`` becomes a column NAME, so ``utt2label`` holds the labels, ``utt2spk`` the
speakers and ``utt2split`` the splits, and ``--label-column lang`` or ``text`` takes another one.
Entries of ``wav.scp`` that are commands are refused: nothing in a list of clips is run.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from melpatch.data.formats.base import Format
from melpatch.data.row import END, PATH, START, Line, Table
from melpatch.data.split_roles import usual_split
from melpatch.errors import shortened
from melpatch.opening import LOG_BYTES, read_text

_FILES = "wav.scp"
_SEGMENTS = "segments"
_TEXT = "text"
_TO_THE_END = "-1"  # as the end of a segment
# Of utt2NAME: what other files say.
_NOT_FACTS = (PATH, START, END, "dur", "num_frames")
_IN_ARCHIVE = re.compile(r"\.ark:\d+$")


class Kaldi(Format):
    """Kaldi's data folders, whose commands are never run."""

    what = "Kaldi's data folder"
    beside_sound = True

    def recognises(self, path: Path, head: bytes) -> bool:
        """Return whether this is the list of files of a data folder, by its name."""
        return path.name == _FILES

    def files(self, folder: Path, names: Sequence[str]) -> Sequence[Path]:
        """Return the lists of files of all data folders below a folder."""
        return [folder / name for name in names if name.rpartition("/")[2] == _FILES]

    def table(self, path: Path) -> Table:
        """Return the file, the times and what else is known of each utterance."""
        folder = path.parent
        recordings = _read(path)
        files = [*sorted(folder.glob("utt2*")), folder / _TEXT]
        facts = {
            file.name.removeprefix("utt2"): _read(file)
            for file in files
            if file.is_file() and file.name.removeprefix("utt2") not in _NOT_FACTS
        }
        segments = folder / _SEGMENTS
        utterances = [
            _Utterance(number, key, key, "", "")
            for key, numbers in recordings.numbers.items()
            for number in numbers
        ]
        where = path
        if segments.is_file():
            utterances = [*_segments(segments)]
            where = segments
        lines = _lines(utterances, recordings, facts)
        split = usual_split(folder.name) or ""
        return Table([PATH, START, END, *facts], lines, "", split, where=where)


class _Utterance(NamedTuple):
    """A line of ``segments``, or of ``wav.scp`` without them; times are texts.

    Attributes:
        number: of the line.
        key: name of the utterance.
        recording: name of its recording; ``""`` for a malformed line.
        start: in seconds.
        end: in seconds; ``""``: that of the recording.
    """

    number: int
    key: str
    recording: str
    start: str
    end: str


class _Map:
    """A file of keys and values, one of each a line.

    Attributes:
        name: the file's.
        values: the values by their keys, the first of each.
        numbers: the lines of each key.
        contradictory: keys of several lines with different values.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: dict[str, str] = {}
        self.numbers: dict[str, list[int]] = {}
        self.contradictory: set[str] = set()

    def add(self, number: int, key: str, value: str) -> None:
        """Take a line."""
        if self.values.setdefault(key, value) != value:
            self.contradictory.add(key)
        self.numbers.setdefault(key, []).append(number)

    def of(self, key: str, missing: str | None = None) -> str:
        """Return the value of a key.

        Raises:
            ValueError: there are several, or none and no ``missing`` one is given.
        """
        if key in self.contradictory:
            lines = " and ".join(map(str, self.numbers[key][:2]))
            raise ValueError(f"{key!r} has several values in {self.name}, lines {lines}; keep one")
        value = self.values.get(key, missing)
        if value is None:
            raise ValueError(f"{key!r} is not in {self.name}; add it there, or drop the line")
        return value


def _read(path: Path) -> _Map:
    entries = _Map(path.name)
    for number, line in enumerate(read_text(path, LOG_BYTES).split("\n"), 1):
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if key:
            entries.add(number, key, value.strip())
    return entries


def _segments(path: Path) -> Iterator[_Utterance]:
    for number, line in enumerate(read_text(path, LOG_BYTES).split("\n"), 1):
        fields = line.split()
        if len(fields) == 4:
            utterance, recording, start, end = fields
            yield _Utterance(number, utterance, recording, start, "" if end == _TO_THE_END else end)
        elif fields:
            yield _Utterance(number, fields[0], "", "", "")


def _lines(
    utterances: Sequence[_Utterance], recordings: _Map, facts: dict[str, _Map]
) -> Iterator[Line]:
    """Yield the cells of each utterance."""
    seen: dict[str, int] = {}
    for utterance in utterances:
        number, key = utterance.number, utterance.key
        try:
            if not utterance.recording:
                raise ValueError("not a segment: utterance, recording, start and end")
            if seen.setdefault(key, number) != number:
                raise ValueError(f"utterance {key!r} is in line {seen[key]} already; drop one")
            file = _file(recordings.of(utterance.recording))
            # An utterance of which a file says nothing has a blank cell.
            cells = [values.of(key, missing="") for values in facts.values()]
        except ValueError as error:
            yield number, str(error)
        else:
            yield number, [file, utterance.start, utterance.end, *cells]


def _file(entry: str) -> str:
    """Return the file of an entry of ``wav.scp``.

    Raises:
        ValueError: it is a command, which is never run, or a part of an archive.
    """
    if entry.endswith("|") or entry.startswith("|"):
        shown = shortened(entry, 60, typed=True)
        raise ValueError(f"a command ({shown}), which is never run; write its sound to a file")
    if _IN_ARCHIVE.search(entry):
        raise ValueError(f"a part of an archive of Kaldi ({entry}); write its sound to a file")
    return entry
