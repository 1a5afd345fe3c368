"""One clip as a source lists it, and the columns of the CSV files that melpatch writes."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from melpatch.data.corpus import Rejected
from melpatch.data.split_roles import usual_names

COLUMNS = ("path", "label", "split", "start", "duration", "key", "group")
PATH, LABEL, SPLIT, START, DURATION, KEY, GROUP = COLUMNS
PACKED_COLUMNS = ("offset", "size", "crc32")
OFFSET, SIZE, CRC32 = PACKED_COLUMNS
END = "end"
EVENT_COLUMNS = (PATH, START, END, LABEL, "score")
"""The columns of a CSV file of events, as ``melpatch predict --events`` writes it."""
MEMBER = "member"

Line = tuple[int, list[str] | str]
"""The number of a line of a table, as an editor counts them, and its cells, or why it has none."""


class Table(NamedTuple):
    """The columns and lines of a list of clips.

    Attributes:
        header: names of the columns, without blanks around them.
        lines: the cells of each line.
        label: column of the labels where the user names none; ``""``: one of a usual name.
        split: split of lines that name none.
        remarks: sentences on what was recognised, and on what is not used.
        unit: what is numbered, such as ``line`` or ``row``.
        where: what the numbers of lines refer to, where that is another file.
        label_a_line: whether a stretch with several labels has a line for each.
    """

    header: list[str]
    lines: Iterator[Line]
    label: str = ""
    split: str = ""
    remarks: Sequence[str] = ()
    unit: str = "line"
    where: Path | None = None
    label_a_line: bool = False


class Row(NamedTuple):
    """One clip as its source lists it.

    Attributes:
        path: absolute path of the sound file or shard; for a remote shard, that of its local copy.
        name: path below the source with forward slashes, from which a missing key is made.
        labels: classes of the clip.
        split: split or fold of the clip.
        start: in seconds.
        duration: in seconds; None if the file must be probed.
        key: key of the clip, if the source lists it.
        group: the recording, speaker or patient that the clip belongs to.
        offset: first byte in a shard; in a Parquet file, its row.
        size: length in bytes in a shard or Parquet file; 0 for a file.
        crc32: checksum of these bytes.
        url: URL of a remote shard; ``""`` for a local one.
        line: line of the CSV file that lists the clip; 0 for a file of a folder.
    """

    path: Path
    name: str
    labels: tuple[str, ...] = ()
    split: str = ""
    start: float = 0.0
    duration: float | None = None
    key: int | None = None
    group: str = ""
    offset: int = 0
    size: int = 0
    crc32: int = 0
    url: str = ""
    line: int = 0


class Listing(NamedTuple):
    """What a source lists.

    Attributes:
        rows: its clips.
        rejected: lines of a CSV file that are malformed, and the reasons.
        remarks: sentences on what was recognised, and on what is not used.
    """

    rows: Sequence[Row]
    rejected: Sequence[Rejected] = ()
    remarks: Sequence[str] = ()


# Cached, because two million clips share a few thousand combinations of labels.
@lru_cache(1 << 16)
def split_labels(cell: str) -> tuple[str, ...]:
    """Return the labels of a cell, which are separated by semicolons."""
    return tuple(dict.fromkeys(label.strip() for label in cell.split(";") if label.strip()))


def one_label(name: str) -> str:
    """Return the name of a class as one label: ``;``, which separates labels, becomes ``,``."""
    return name.replace(";", ",")


def with_usual_splits(rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Return rows with the usual names of their splits, and in words which names these replace."""
    renamed, sentence = renamed_splits({row.split for row in rows})
    if not sentence:
        return list(rows), ""
    return [row._replace(split=renamed[row.split]) for row in rows], sentence


def renamed_splits(names: Iterable[str]) -> tuple[dict[str, str], str]:
    """Return the usual names of splits, and in words which names these replace; ``""``: none."""
    renamed = usual_names(sorted(names))
    changed = {name: new for name, new in renamed.items() if name != new}
    if not changed:
        return renamed, ""
    pairs = ", ".join(f"{name!r} is read as {new}" for name, new in changed.items())
    return renamed, f"split {pairs}"
