"""List clips from a folder of sound files, a CSV file, or a local or remote folder of shards.

Every source is read as rows; no sound file is opened here.
"""

import csv
import math
import os
from collections.abc import Iterator
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from sys import intern
from typing import NamedTuple

from melpatch.data.file_names import path_of_url, readable
from melpatch.data.remote import is_url, locate, mirror
from melpatch.data.shards import is_shard_folder, verified_index
from melpatch.errors import DataError

COLUMNS = ("path", "label", "split", "start", "duration", "key", "group")
PATH, LABEL, SPLIT, START, DURATION, KEY, GROUP = COLUMNS
PACKED_COLUMNS = ("offset", "size", "crc32")
OFFSET, SIZE, CRC32 = PACKED_COLUMNS
# The column of groups if there is no column "group".
_SPEAKER = "speaker"
# Columns of other names were given by the user, so they must exist.
_OPTIONAL = {LABEL, SPLIT}
# Extensions of other formats, which often lie beside recordings.
_NOT_SOUND = frozenset(
    "bmp cfg csv db doc docx gif gz h5 hdf5 htm html ini ipynb jpeg jpg json jsonl lab log md"  # noqa: SIM905
    " mid midi npy npz parquet pdf pickle pkl png pt py rar rst safetensors sh srt svg tar"
    " textgrid tgz tif tiff toml tsv txt vtt xls xlsx xml yaml yml zip".split()
)


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
        offset: first byte in a shard.
        size: length in bytes in a shard; 0 for a file.
        crc32: checksum of these bytes.
        url: URL of a remote shard; ``""`` for a local one.
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


def dataset_name(source: str | Path) -> str:
    """Return the name of a source's folder, from which the keys of its clips are made."""
    source = _decoded(source)
    if is_url(source):
        return str(source).rstrip("/").rpartition("/")[2]
    folder = Path(source)
    if not folder.is_dir():
        folder = folder.parent
    return readable(folder.resolve().name)


def rows(source: str | Path, *, split_column: str, label_column: str) -> Iterator[Row]:
    """Yield the rows of a folder, CSV file, folder of shards or its URL.

    Raises:
        DataError: the source does not exist or is malformed.
    """
    source = _decoded(source)
    if is_url(source):
        folder, url = mirror(str(source))
        return _csv_rows(verified_index(folder, str(source)), split_column, label_column, url)
    source = Path(source)
    if is_shard_folder(source):
        return _csv_rows(verified_index(source), split_column, label_column)
    if source.is_dir():
        return _folder_rows(source)
    if not source.exists():
        raise DataError(f"{source}: no such folder or CSV file; check the path")
    if source.suffix.lower() != ".csv":
        fix = "give the folder that holds the sound"
        raise DataError(f"{source}: neither a folder nor a .csv file; {fix}")
    return _csv_rows(source, split_column, label_column)


def _decoded(source: str | Path) -> str | Path:
    """Return the path of a file URL with escaped bytes, as names that are not UTF-8 are written."""
    if isinstance(source, str) and "%" in source:
        return path_of_url(source) or source
    return source


# Cached, because two million clips share a few thousand combinations of labels.
@lru_cache(1 << 16)
def split_labels(cell: str) -> tuple[str, ...]:
    """Return the labels of a cell, which are separated by semicolons."""
    return tuple(dict.fromkeys(label.strip() for label in cell.split(";") if label.strip()))


def sound_files(folder: Path) -> Iterator[str]:
    """Yield relative paths of possible sound files below a folder, in a fixed order.

    The paths have forward slashes. Links are followed, but no folder is visited twice. Hidden files
    and files with extensions of other formats are skipped.

    Raises:
        DataError: a folder does not exist, or may not be listed.
    """
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(root)
        # A link may lead to a folder that was visited already.
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(root).relative_to(folder)
        prefix = f"{below.as_posix()}/" if below.parts else ""
        for file in sorted(files):
            if not file.startswith(".") and Path(file).suffix[1:].lower() not in _NOT_SOUND:
                yield prefix + file


def _folder_rows(folder: Path) -> Iterator[Row]:
    """Yield the possible sound files of a folder; the first sub-folder is the label."""
    for name in sound_files(folder):
        # Files of the folder itself have no label.
        label = name.partition("/")[0] if "/" in name else ""
        yield Row(folder.absolute() / name, name, split_labels(readable(label)))


def _raise(error: OSError) -> None:
    problem = f"the folder cannot be listed ({error.strerror})"
    raise DataError(f"{error.filename}: {problem}; check who may read it") from error


def _csv_rows(path: Path, split_column: str, label_column: str, url: str = "") -> Iterator[Row]:
    """Yield the rows of a CSV file; its paths are relative to its folder, or to its URL."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _require_columns(path, header, split_column, label_column)
            read_row = _RowReader(path.parent.absolute(), url, header, split_column, label_column)
            for cells in reader:
                if not any(cells) or not any(map(str.strip, cells)):
                    continue
                try:
                    yield read_row(cells)
                except ValueError as error:
                    raise DataError(f"{path}, line {reader.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#x}"
        raise DataError(f"{path}: not UTF-8 text ({byte}); save it as UTF-8") from error
    except csv.Error as error:
        fix = "save it with commas and double quotes"
        raise DataError(f"{path}: not a CSV file ({error}); {fix}") from error
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise DataError(f"{path}: {problem}; check who may read it") from error


def _require_columns(path: Path, header: list[str], split_column: str, label_column: str) -> None:
    wanted = [PATH, *({split_column, label_column} - _OPTIONAL)]
    for name in wanted:
        if name not in header:
            columns = ", ".join(map(repr, header)) or "none"
            raise DataError(
                f"{path}: no column {name!r}; found: {columns}; "
                "the first line names the columns, separated by commas"
            )
    repeated = {name for name in header if header.count(name) > 1} & {*COLUMNS, *wanted}
    if repeated:
        name = min(repeated)
        raise DataError(f"{path}: column {name!r} occurs twice; rename or drop one of them")


class _RowReader:
    """Makes rows from the cells of lines; missing columns are blank."""

    def __init__(
        self, folder: Path, url: str, header: list[str], split_column: str, label_column: str
    ) -> None:
        self.folder = folder
        self.url = url
        self.width = len(header)
        numbers = {name: number for number, name in enumerate(header)}
        group = GROUP if GROUP in numbers else _SPEAKER
        names = (PATH, label_column, split_column, START, DURATION, KEY, group, OFFSET, SIZE, CRC32)
        # Missing columns refer to a blank cell that is appended to each line.
        self.columns = itemgetter(*(numbers.get(name, self.width) for name in names))
        # The file of the previous line, as successive lines often share a shard.
        self.last_cell = ""
        self.last_file = (folder, "")

    def __call__(self, cells: list[str]) -> Row:
        """Return the row of a line.

        Raises:
            ValueError: the line is malformed.
        """
        if len(cells) != self.width:
            problem = f"{len(cells)} cells, but the header has {self.width}"
            raise ValueError(f"{problem}; put cells with commas into double quotes")
        cells.append("")
        file, label, split, start, duration, key, group, offset, size, crc32 = self.columns(cells)
        if not file.strip():
            raise ValueError("no path; fill it in, or drop the row")
        path, url = self._locate(file)
        seconds = _number(duration, DURATION)
        if seconds == 0:
            raise ValueError("duration = 0; allowed: seconds above 0, or blank")
        number = _whole(key, KEY, -(1 << 63), 1 << 63)
        packed = (
            _whole(offset, OFFSET) or 0,
            _whole(size, SIZE) or 0,
            _whole(crc32, CRC32, 0, 1 << 32) or 0,
        )
        if any(packed) and not (packed[1] and seconds):
            problem = "a part of a shard, but without its size or duration"
            raise ValueError(f"{problem}; take the row from the shard's index")
        name = self._name(path) if number is None else file
        labels = split_labels(label)
        # Splits and groups recur on many lines; interning keeps one copy of each text.
        split = intern(split.strip())
        group = intern(group.strip())
        begin = _number(start, START) or 0.0
        return Row(path, name, labels, split, begin, seconds, number, group, *packed, url)

    def _locate(self, cell: str) -> tuple[Path, str]:
        """Return the file of a line and its URL, ``""`` for a local one."""
        if cell != self.last_cell:
            self.last_cell = cell
            local = path_of_url(cell)
            if local is not None:
                self.last_file = (local, "")
            elif is_url(cell):
                self.last_file = locate(cell)
            elif self.url:
                self.last_file = (self.folder / cell, f"{self.url}/{cell}")
            else:
                self.last_file = (self.folder / cell, "")
        return self.last_file

    def _name(self, path: Path) -> str:
        if path.is_relative_to(self.folder):
            path = path.relative_to(self.folder)
        return path.as_posix()


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
