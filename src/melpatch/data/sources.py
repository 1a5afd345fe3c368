"""Where clips are listed: a folder of sound, a CSV file, a folder of shards or the URL of one.

All become rows; no sound file is opened here.
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

from melpatch.data.remote import is_url, locate, mirror
from melpatch.data.shards import is_shard_folder, verified_index
from melpatch.errors import DataError

COLUMNS = ("path", "label", "split", "start", "duration", "key", "group")
PATH, LABEL, SPLIT, START, DURATION, KEY, GROUP = COLUMNS
PACKED_COLUMNS = ("offset", "size", "crc32")
OFFSET, SIZE, CRC32 = PACKED_COLUMNS
_SPEAKER = "speaker"  # taken for the group where there is no such column
_OPTIONAL = {LABEL, SPLIT}  # a column of another name has been asked for, and must exist
_NOT_SOUND = frozenset(
    "bmp cfg csv db doc docx gif gz h5 hdf5 htm html ini ipynb jpeg jpg json jsonl lab log md mid midi"  # noqa: SIM905
    " npy npz parquet pdf pickle pkl png pt py rar rst safetensors sh srt svg tar textgrid tgz tif tiff toml tsv txt"
    " vtt xls xlsx xml yaml yml zip".split()
)


class Row(NamedTuple):
    """One clip as its source lists it.

    Attributes:
        path: the sound file or shard, absolute; of a remote shard, where its copy is to lie.
        name: the path below the source, with forward slashes, from which a key is made where there is none.
        labels: its classes.
        split: its split or fold.
        start: in seconds.
        duration: in seconds; None where the file must be asked.
        key: the clip's number, where the source lists it.
        group: the recording, speaker or patient that the clip belongs to.
        offset: first byte in a shard.
        size: length in bytes in a shard; 0 for a file.
        crc32: checksum of these bytes.
        url: where the shard is fetched from, ``""`` where it lies here.
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
    """Return the name of a source's folder, from which its clips get their keys."""
    if is_url(source):
        return str(source).rstrip("/").rpartition("/")[2]
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    return folder.resolve().name


def rows(source: str | Path, *, split_column: str, label_column: str) -> Iterator[Row]:
    """Yield what a folder, CSV file, folder of shards or its URL lists.

    Raises:
        DataError: there is no such source, or it is not what it should be.
    """
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
        raise DataError(
            f"{source}: neither a folder nor a .csv file; give the folder that holds the sound"
        )
    return _csv_rows(source, split_column, label_column)


@lru_cache(1 << 16)  # the labels of two million clips are some thousand tuples
def split_labels(cell: str) -> tuple[str, ...]:
    """Return the labels of a cell, in which semicolons part them."""
    return tuple(dict.fromkeys(label.strip() for label in cell.split(";") if label.strip()))


def sound_files(folder: Path) -> Iterator[str]:
    """Yield the files below a folder that may be sound, as paths below it with forward slashes, in a fixed order.

    Links are followed, though to no folder twice. What is hidden is passed over, and files whose ending says that they
    are not sound.

    Raises:
        DataError: a folder does not exist, or may not be listed.
    """
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        if (real := os.path.realpath(root)) in seen:  # a link that leads back, or here again
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
    """Yield the files of a folder that may be sound; the first sub-folder is the label."""
    for name in sound_files(folder):
        first, slash, _ = name.partition("/")
        yield Row(folder.absolute() / name, name, split_labels(first if slash else ""))


def _raise(error: OSError) -> None:
    raise DataError(
        f"{error.filename}: the folder cannot be listed ({error.strerror}); check who may read it"
    ) from error


def _csv_rows(path: Path, split_column: str, label_column: str, url: str = "") -> Iterator[Row]:
    """Yield the rows of a CSV file whose paths are relative to its folder, or to the URL that it was fetched from."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _require_columns(path, header, split_column, label_column)
            read_row = _Reader(path.parent.absolute(), url, header, split_column, label_column)
            for cells in reader:
                if not any(cells) or not any(map(str.strip, cells)):
                    continue
                try:
                    yield read_row(cells)
                except ValueError as error:
                    raise DataError(f"{path}, line {reader.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text (byte {error.object[error.start]:#x}); save it as UTF-8"
        ) from error
    except csv.Error as error:
        raise DataError(
            f"{path}: not a CSV file ({error}); save it with commas and double quotes"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check who may read it"
        ) from error


def _require_columns(path: Path, found: list[str], split_column: str, label_column: str) -> None:
    wanted = [PATH, *({split_column, label_column} - _OPTIONAL)]
    for name in wanted:
        if name not in found:
            raise DataError(
                f"{path}: no column {name!r}; found: {', '.join(map(repr, found)) or 'none'}; "
                "the first line names the columns, parted by commas"
            )
    doubled = {name for name in found if found.count(name) > 1} & {*COLUMNS, *wanted}
    if doubled:
        raise DataError(f"{path}: column {min(doubled)!r} comes twice; rename or drop one of them")


class _Reader:
    """Makes a row of the cells of a line; a column that is not there is read as blank."""

    def __init__(
        self, folder: Path, url: str, header: list[str], split_column: str, label_column: str
    ) -> None:
        self.folder, self.url, self.width = folder, url, len(header)
        place = {name: number for number, name in enumerate(header)} | {
            "": len(header)
        }  # where a blank is put
        group = GROUP if GROUP in place else _SPEAKER
        names = (PATH, label_column, split_column, START, DURATION, KEY, group, OFFSET, SIZE, CRC32)
        self.columns = itemgetter(*(place.get(name, place[""]) for name in names))
        self.last, self.found = "", (folder, "")

    def __call__(self, cells: list[str]) -> Row:
        """Return the row; a ValueError says what is wrong with the line."""
        if len(cells) != self.width:
            raise ValueError(
                f"{len(cells)} cells, but the header has {self.width}; put cells with commas into double quotes"
            )
        cells.append("")
        file, label, split, start, duration, key, group, offset, size, crc32 = self.columns(cells)
        if not file.strip():
            raise ValueError("no path; fill it in, or drop the row")
        path, url = self._place(file)
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
            raise ValueError(
                "a part of a shard, but without its size or duration; take the row from the shard's index"
            )
        # Splits and groups come again and again: each text is held once.
        about = split_labels(label), intern(split.strip()), _number(start, START) or 0.0, seconds
        name = self._name(path) if number is None else file
        return Row(path, name, *about, number, intern(group.strip()), *packed, url)

    def _place(self, cell: str) -> tuple[Path, str]:
        """Return the file and its URL, if any; that of the line before, where it is the same shard."""
        if cell != self.last:
            url = f"{self.url}/{cell}" if self.url else ""
            self.last, self.found = (
                cell,
                locate(cell) if is_url(cell) else (self.folder / cell, url),
            )
        return self.found

    def _name(self, path: Path) -> str:
        return (
            path.relative_to(self.folder) if path.is_relative_to(self.folder) else path
        ).as_posix()


def _number(cell: str, column: str) -> float | None:
    """Return a cell in seconds, None where it is blank."""
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
    """Return a cell as a whole number from ``low`` to below ``high``, None where it is blank."""
    if not cell.strip():
        return None
    try:
        value = int(cell)
    except ValueError:
        value = high
    if not low <= value < high:
        allowed = (
            "a signed 64-bit number, or blank to have it made"
            if column == KEY
            else "as in the shard's index"
        )
        raise ValueError(f"{column} = {cell!r}; allowed: {allowed}")
    return value
