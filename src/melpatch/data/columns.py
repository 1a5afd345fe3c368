"""Which column of a table holds what: columns by other names are recognised, unused ones named."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from melpatch.data.row import (
    CRC32,
    DURATION,
    END,
    GROUP,
    KEY,
    LABEL,
    MEMBER,
    OFFSET,
    PACKED_COLUMNS,
    PATH,
    SIZE,
    SPLIT,
    START,
)
from melpatch.errors import DataError

# Other names of columns, the most telling first. Units other than seconds are not taken.
_OTHER_NAMES = {
    PATH: (
        *("file_path", "filepath", "filename", "file_name", "file", "audio", "audio_path"),
        *("audio_file", "audio_filepath", "audio_filename", "sound_path", "sound_file", "wav"),
        *("wav_path", "wav_file", "recording_path", "slice_file_name", "clip_path", "fname"),
        *("relative_path", "rel_path", "begin_file"),
    ),
    LABEL: ("labels", "category", "class_name", "class", "class_label", "tags"),
    SPLIT: (
        *("splits", "split_or_fold", "split_name", "fold", "folds", "cv_fold", "partition"),
        *("subset", "dataset_split", "official_split"),
    ),
    START: (
        *("onset", "start_time", "start_s", "start_sec", "start_secs", "start_seconds", "begin"),
        *("begin_time", "begin_time_s", "start_time_s", "start_time_seconds", "onset_s"),
        *("tmin", "t_start"),
    ),
    END: (
        *("stop", "end_time", "end_s", "end_sec", "end_secs", "end_seconds", "end_time_s"),
        *("end_time_seconds", "stop_time", "offset_s", "tmax", "t_end"),
    ),
    DURATION: ("duration_s", "duration_sec", "duration_secs", "duration_seconds"),
    GROUP: (
        *("speaker", "speaker_id", "spk", "spk_id", "speakerid", "client_id", "patient"),
        *("patient_id", "subject", "subject_id"),
    ),
}
# Times that would have to be converted.
_OTHER_UNIT = re.compile(
    r"(start|begin|onset|end|stop|offset|duration|length)(_time)?(_in)?"
    r"_(ms|msec|milliseconds|samples?|frames?|minutes?)"
)
# Columns of an index of shards that only people read.
_FOR_PEOPLE = (MEMBER, "name")
_SHOWN = 8  # unused columns that are named


@dataclass(frozen=True)
class ColumnNames:
    """The columns that the user named; names other than these defaults must be in the table."""

    split: str = SPLIT
    label: str = LABEL
    group: str = GROUP

    def required(self) -> dict[str, str]:
        """Return the columns that must be there, by what they hold."""
        given = {SPLIT: self.split, LABEL: self.label, GROUP: self.group}
        return {role: name for role, name in given.items() if name != role}


@dataclass
class Columns:
    """The columns of a table.

    Attributes:
        header: their names.
        numbers: position of the column of each role, such as ``path`` or ``end``.
    """

    header: Sequence[str]
    numbers: dict[str, int] = field(default_factory=dict)

    def drop(self, role: str) -> None:
        """Leave a column unused after all."""
        self.numbers.pop(role, None)

    def remark(self) -> str:
        """Return in words which columns were recognised by other names, and which are not used."""
        parts = [
            f"{self.header[number]!r} is read as {role}"
            for role, number in self.numbers.items()
            if self.header[number] != role
        ]
        unused = [repr(name) for name in self._unused()]
        if unused:
            shown = ", ".join(islice(unused, _SHOWN))
            if len(unused) > _SHOWN:
                shown += f" and {len(unused) - _SHOWN} more"
            parts.append(f"columns that are not used: {shown}")
        if any(_OTHER_UNIT.fullmatch(_plain(name)) for name in self._unused()):
            parts.append("start, end and duration are read in seconds only")
        return "; ".join(parts)

    def _unused(self) -> Iterator[str]:
        used = {*self.numbers.values()}
        packed = SIZE in self.numbers
        for number, name in enumerate(self.header):
            if number not in used and name and not (packed and name in _FOR_PEOPLE):
                yield name


def recognise(where: object, header: Sequence[str], names: ColumnNames) -> Columns:
    """Return which columns of a table hold what.

    A column is recognised by its own name, or else by one of its other names, whatever their case
    and punctuation. A column that the user named must be there as it is written.

    Args:
        where: the table, for messages.
        header: the names of its columns.
        names: the columns that the user named.

    Raises:
        DataError: a column that is needed is missing, or occurs twice.
    """
    columns = Columns(header)
    required = names.required()
    for role, name in required.items():
        columns.numbers[role] = _exact(where, header, name)
    packed = {*PACKED_COLUMNS} <= {*header}
    for role in (PATH, LABEL, SPLIT, GROUP, START, END, DURATION, KEY):
        if role not in required:
            _take(where, columns, role, (role,))
    if packed:
        _take_packed(where, columns)
    for role, other_names in _OTHER_NAMES.items():
        if role not in columns.numbers:
            _take(where, columns, role, other_names)
    if not packed:
        _take_offset(where, columns)
    if PATH not in columns.numbers:
        listed = ", ".join(map(repr, header)) or "none"
        raise DataError(
            f"{where}: no column {PATH!r}; found: {listed}; "
            "the first line names the columns, separated by commas"
        )
    return columns


def _take_packed(where: object, columns: Columns) -> None:
    """Take the columns of where in its file a sound is, and its name there."""
    for role in PACKED_COLUMNS:
        columns.numbers[role] = _exact(where, columns.header, role)
    if MEMBER in columns.header:
        columns.numbers[MEMBER] = columns.header.index(MEMBER)


def _take_offset(where: object, columns: Columns) -> None:
    """Take a column ``offset``: the end beside ``onset``, else the start of a duration."""
    numbers = columns.numbers
    onset = START in numbers and _plain(columns.header[numbers[START]]) == "onset"
    if onset and END not in numbers:
        _take(where, columns, END, (OFFSET,))
    elif START not in numbers and DURATION in numbers:
        _take(where, columns, START, (OFFSET,))


def _take(where: object, columns: Columns, role: str, known: Sequence[str]) -> None:
    """Take the column of the first known name, exactly as it is written or in another spelling."""
    header = columns.header
    plain = [_plain(name) for name in header]
    used = {*columns.numbers.values()}
    for name in known:
        if name in header and header.index(name) not in used:
            columns.numbers[role] = _exact(where, header, name)
            return
        if name in plain and plain.index(name) not in used:
            columns.numbers[role] = plain.index(name)
            return


def _exact(where: object, header: Sequence[str], name: str) -> int:
    count = header.count(name)
    if count == 0:
        listed = ", ".join(map(repr, header)) or "none"
        raise DataError(
            f"{where}: no column {name!r}; found: {listed}; "
            "the first line names the columns, separated by commas"
        )
    if count > 1:
        raise DataError(f"{where}: column {name!r} occurs twice; rename or drop one of them")
    return header.index(name)


def _plain(name: str) -> str:
    """Return a column's name without case and punctuation: ``Begin Time (s)`` is begin_time_s."""
    # fileName and FileName are file_name too.
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    return re.sub(r"[^\w]+", "_", spaced).strip("_").casefold()


def is_time(name: str) -> bool:
    """Return whether a column has a usual name of a start, end or duration, in whatever unit."""
    plain = _plain(name)
    usual = {START, END, DURATION, OFFSET, *_OTHER_NAMES[START], *_OTHER_NAMES[END]}
    return plain in usual or plain in _OTHER_NAMES[DURATION] or bool(_OTHER_UNIT.fullmatch(plain))


def is_usual(role: str, name: str) -> bool:
    """Return whether a column has a usual name for what it holds, such as ``category`` for labels."""
    return _plain(name) in (role, *_OTHER_NAMES[role])


RESERVED = frozenset(
    {PATH, LABEL, SPLIT, START, END, DURATION, KEY, GROUP, OFFSET, SIZE, CRC32, *_FOR_PEOPLE}
    | {name for names in _OTHER_NAMES.values() for name in names}
)
"""Names that mean something in a table; a class of such a name gets a prefix there."""
CLASS_PREFIX = "probability:"


def class_columns(labels: Sequence[str], taken: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the columns of classes: their labels, or ``probability:LABEL`` where needed.

    A class called ``label`` or ``split`` would otherwise be read back as something else.

    Args:
        labels: the classes.
        taken: names of other columns of the table.
    """
    others = {_plain(name) for name in taken}

    def name(label: str) -> str:
        plain = _plain(label)
        if plain in RESERVED or plain in others or label.startswith(CLASS_PREFIX):
            return CLASS_PREFIX + label
        return label

    return tuple(map(name, labels))
