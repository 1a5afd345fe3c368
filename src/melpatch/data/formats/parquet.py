"""Parquet, as of Hugging Face's datasets: sound files or their paths in rows, with their labels.

Sound is a column ``struct<bytes, path>``, or one of bytes. Numbers of classes are replaced by their
names, which stand in the schema (``ClassLabel``). A file is named after its split, as in
``train-00000-of-00002.parquet``, or lies in its folder. Parquet files without sound are tables like
any other, such as those of ``melpatch embed``.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from melpatch.data.columns import is_time, is_usual
from melpatch.data.file_names import path_text
from melpatch.data.formats.base import Format, split_of_file, visible_files
from melpatch.data.parquet import ENDING, MAGIC, is_parquet
from melpatch.data.parquet import Parquet as ParquetFile
from melpatch.data.parquet_sound import SoundColumn, features_of, sound_column, sounds
from melpatch.data.row import LABEL, MEMBER, PACKED_COLUMNS, PATH, Line, Table, one_label
from melpatch.errors import DataError, shortened
from melpatch.progress import track

_PLACE_COLUMNS = (PATH, *PACKED_COLUMNS, MEMBER)
_PART = re.compile(r"(?P<split>[\w.-]+?)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?")
_LONGEST_CELL = 1 << 20  # characters
_MOST_TEXT = 1 << 30  # characters of all cells
# Sound may take as many bytes, or as many times the size of the file; silence compresses well.
_SMALL_SOUND = 256 << 20
_COMPRESSION = 50
_UNKNOWN_CLASS = -1  # as datasets writes labels that are not known


class Parquet(Format):
    """Parquet files with sound, as of Hugging Face's datasets, or without."""

    what = "Parquet"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Return whether a file begins like Parquet."""
        return head.startswith(MAGIC)

    def files(self, folder: Path, names: Sequence[str]) -> Sequence[Path]:
        """Return the Parquet files with sound anywhere below a folder."""
        return [
            path
            for path in visible_files(folder, ENDING)
            if sound_column(path, ParquetFile(path).schema) is not None
        ]

    def table(self, path: Path) -> Table:
        """Return the columns of texts, numbers and classes, and where in the file the sound is."""
        file = ParquetFile(path)
        repeated = [name for name, count in Counter(file.schema.names).items() if count > 1]
        if repeated:
            raise DataError(f"{path}: column {repeated[0]!r} occurs twice; rename one of them")
        sound = sound_column(path, file.schema)
        classes = {
            name: known
            for name, feature in features_of(file.schema).items()
            if (known := _classes(feature))
        }
        columns = [field.name for field in file.schema if _is_cell(field, classes)]
        if sound is None and not any(is_usual(PATH, name) for name in columns):
            listed = ", ".join(f"{field.name!r} ({field.type})" for field in file.schema)
            raise DataError(
                f"{path}: no column holds sound files or their paths; found: {shortened(listed, typed=True)}; "
                "write them as datasets does with its feature Audio"
            )
        if sound is not None:
            columns = [name for name in columns if _is_about_sound(name, sound)]
        header = [*columns] if sound is None else [*_PLACE_COLUMNS, *columns]
        label = ""
        known = [name for name in columns if name in classes]
        if not any(is_usual(LABEL, name) for name in columns) and len(known) == 1:
            label = known[0]
        remarks = [*_remarks(sound, known, label, columns)]
        lines = _lines(file, sound, columns, classes)
        return Table(header, lines, label, _split_of(path), remarks, "row")


def _split_of(path: Path) -> str:
    """Return the split that a file's name or else its folder stands for; ``""`` for none."""
    part = _PART.fullmatch(path.stem)
    if part is not None:
        return part["split"]
    return split_of_file(path)


def _is_about_sound(name: str, sound: SoundColumn) -> bool:
    """Return whether a column is read beside sound.

    Times beside the bytes of a sound are those of the recording that it was cut from.
    """
    return name != sound.name and name not in _PLACE_COLUMNS and not (sound.bytes and is_time(name))


def _classes(feature: Any) -> list[str]:
    """Return the names of the classes in a column of class numbers, or of lists of them."""
    if isinstance(feature, list) and len(feature) == 1:
        return _classes(feature[0])
    if not isinstance(feature, dict):
        return []
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        return _classes(feature.get("feature"))
    known = feature.get("names")
    if feature.get("_type") != "ClassLabel" or not isinstance(known, list):
        return []
    return [one_label(str(name)) for name in known]


def _is_cell(field: Any, classes: dict[str, list[str]]) -> bool:
    """Return whether a column becomes cells: of texts and numbers, and lists of texts or classes."""
    from pyarrow import types

    kind = field.type
    if types.is_list(kind) or types.is_large_list(kind):
        return types.is_string(kind.value_type) or field.name in classes
    return not (types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _remarks(
    sound: SoundColumn | None, classes: Sequence[str], label: str, columns: Sequence[str]
) -> Iterator[str]:
    if sound is not None and sound.others:
        yield f"the sound is column {sound.name!r}; not used: {', '.join(sound.others)}"
    if label:
        yield f"{label!r} is read as {LABEL}"
    elif len(classes) > 1 and not any(is_usual(LABEL, name) for name in columns):
        listed = ", ".join(classes)
        yield f"several columns hold classes ({listed}); --label-column names one of them"


def _lines(
    file: ParquetFile,
    sound: SoundColumn | None,
    columns: Sequence[str],
    classes: dict[str, list[str]],
) -> Iterator[Line]:
    """Yield the rows as texts, numbered from 1."""
    known = [classes.get(name, []) for name in columns]
    characters = 0
    for row, (values, path, content) in enumerate(_rows(file, sound, columns)):
        try:
            cells = [_cell(value, names) for value, names in zip(values, known, strict=True)]
            characters += sum(map(len, cells))
            if sound is not None:
                cells = [*_place(file.path, row, path, content), *cells]
        except ValueError as error:
            yield row + 1, str(error)
        else:
            yield row + 1, cells
        if characters > _MOST_TEXT:
            raise DataError(f"{file.path}: holds more text than any list of clips; split it")


def _rows(
    file: ParquetFile, sound: SoundColumn | None, columns: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], Any, bytes | None]]:
    """Yield the values of each row, and the path and the bytes of its sound.

    Raises:
        DataError: the sound is more than a file of this size can hold.
    """
    if sound is None or not sound.bytes:
        for group in file.groups:
            for values, path in _values(file, group, columns, sound):
                yield values, path, None
        return
    total = 0
    for group in track(file.groups, len(file.groups), f"reading {file.path.name}", "row groups"):
        contents = sounds(file, group, sound.bytes)
        for (values, path), content in zip(
            _values(file, group, columns, sound), contents, strict=False
        ):
            yield values, path, content
            total += len(content or b"")
            if total > max(_SMALL_SOUND, _COMPRESSION * file.size):
                raise DataError(
                    f"{file.path}: {file.size:,} bytes become more than {total:,} of sound, "
                    "as no recordings do; do not use the file"
                )


def _place(path: Path, row: int, name: Any, content: bytes | None) -> list[str]:
    """Return the cells that say where the sound of a row is.

    Raises:
        ValueError: there is no sound.
        DataError: the file has another ending than Parquet's.
    """
    if content:
        # By its name a clip is known to be a row, not a range of bytes.
        if not is_parquet(path):
            raise DataError(f"{path}: holds sound as Parquet; rename it to end in {ENDING}")
        place = [row, len(content), zlib.crc32(content), row]
        return [path_text(path.absolute()), *map(str, place)]
    if not isinstance(name, str) or not name:
        raise ValueError("holds neither the bytes nor the path of a sound file")
    return [name, "", "", "", ""]


def _cell(value: Any, classes: Sequence[str]) -> str:
    """Return a value as a cell; a list has semicolons.

    Raises:
        ValueError: it is too long, or the number of no class.
    """
    if value is None:
        return ""
    if isinstance(value, list):
        cells = [one_label(_cell(item, classes)) for item in value[:_LONGEST_CELL]]
        length = sum(map(len, cells)) + len(cells)
    elif classes and isinstance(value, int):
        if not _UNKNOWN_CLASS <= value < len(classes):
            known = f"0 to {len(classes) - 1}, the classes that the file names"
            raise ValueError(f"class {value}; allowed: {known}")
        return classes[value] if value != _UNKNOWN_CLASS else ""
    else:
        cells = [str(value)]
        length = len(cells[0])
    # Joined last: a dictionary may repeat a long text a million times.
    if length > _LONGEST_CELL:
        raise ValueError(f"a cell of more than {_LONGEST_CELL:,} characters")
    return ";".join(cells)


def _values(
    file: ParquetFile, group: int, columns: Sequence[str], sound: SoundColumn | None
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the values of each row of a row group, and the path of its sound; None without one.

    Equal texts are one object.
    """
    path = "" if sound is None else sound.path
    wanted = [*columns, path] if path else [*columns]
    if not wanted:
        yield from repeat(((), None), file.starts[group + 1] - file.starts[group])
        return
    for batch in file.batches(group, wanted, texts=True):
        rows = zip(*(_objects(batch.column(name)) for name in columns), strict=True)
        values = rows if columns else repeat((), len(batch))
        if not path:
            yield from ((row, None) for row in values)
            continue
        # The path may be a field of a structure.
        names = batch.column(path.partition(".")[0])
        if "." in path:
            names = names.flatten()[0]
        yield from zip(values, _objects(names), strict=True)


def _objects(array: Any) -> list[Any]:
    """Return the values of an array; those of dictionaries share their texts."""
    from pyarrow import types

    if types.is_dictionary(array.type):
        texts = array.dictionary.to_pylist()
        return [None if index is None else texts[index] for index in array.indices.to_pylist()]
    if types.is_list(array.type) or types.is_large_list(array.type):
        items = _objects(array.values)
        ends = array.offsets.to_pylist()
        present = array.is_valid().to_pylist()
        return [
            items[start:end] if valid else None
            for start, end, valid in zip(ends, ends[1:], present, strict=False)
        ]
    values: list[Any] = array.to_pylist()
    return values
