"""Parquet, as of Hugging Face's datasets: sound files or their paths in rows, with their labels.

Sound is a column ``struct<bytes, path>``, or one of bytes. Numbers of classes are replaced by their
names, which stand in the schema (``ClassLabel``). A file is named after its split, as in
``train-00000-of-00002.parquet``, or lies in its folder. Parquet files without sound are tables like
any other, such as those of ``melpatch embed``.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from melpatch.data.columns import is_time, is_usual
from melpatch.data.file_names import path_text
from melpatch.data.formats.base import Format, split_of_file, visible_files
from melpatch.data.parquet import ENDING, MAGIC, is_parquet
from melpatch.data.parquet import Parquet as ParquetFile
from melpatch.data.parquet_cells import Cells, values_of
from melpatch.data.parquet_sound import SoundColumn, features_of, sound_column, sounds
from melpatch.data.row import LABEL, MEMBER, PACKED_COLUMNS, PATH, Line, Table, one_label
from melpatch.errors import DataError, shortened
from melpatch.progress import track

_PLACE_COLUMNS = (PATH, *PACKED_COLUMNS, MEMBER)
_PART = re.compile(r"(?P<split>[\w.-]+?)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?")
# Sound may take as many bytes, or as many times the size of the file; silence compresses well.
_SMALL_SOUND = 256 << 20
_COMPRESSION = 50


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
        remarks = [*_remarks(sound, known, label, columns), *_labels_not_read(file.schema, columns)]
        lines = _lines(file, sound, Cells(path, columns, classes))
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
        return _is_text(kind.value_type) or field.name in classes
    return not (types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


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


def _labels_not_read(schema: Any, columns: Sequence[str]) -> Iterator[str]:
    for field in schema:
        if is_usual(LABEL, field.name) and field.name not in columns:
            yield f"{field.name!r} is not read: it holds {field.type}, not texts or lists of texts"


def _lines(file: ParquetFile, sound: SoundColumn | None, cells: Cells) -> Iterator[Line]:
    """Yield the rows as texts, numbered from 1."""
    if sound is None:
        batches = chain.from_iterable(
            file.batches(group, cells.columns, texts=True) for group in file.groups
        )
        yield from enumerate(chain.from_iterable(map(cells.rows, batches)), 1)
        return
    for row, (own, name, content) in enumerate(_rows(file, sound, cells)):
        if isinstance(own, str):
            yield row + 1, own
            continue
        try:
            place = _place(file.path, row, name, content)
        except ValueError as error:
            yield row + 1, str(error)
        else:
            yield row + 1, [*place, *own]


def _rows(
    file: ParquetFile, sound: SoundColumn, cells: Cells
) -> Iterator[tuple[list[str] | str, Any, bytes | None]]:
    """Yield the cells of each row, or what is wrong with them, and the path and bytes of its sound.

    Raises:
        DataError: the sound is more than a file of this size can hold.
    """
    if not sound.bytes:
        for group in file.groups:
            for own, name in _cells_and_paths(file, group, cells, sound):
                yield own, name, None
        return
    total = 0
    for group in track(file.groups, len(file.groups), f"reading {file.path.name}", "row groups"):
        contents = sounds(file, group, sound.bytes)
        for (own, name), content in zip(
            _cells_and_paths(file, group, cells, sound), contents, strict=False
        ):
            yield own, name, content
            total += len(content or b"")
            if total > max(_SMALL_SOUND, _COMPRESSION * file.size):
                raise DataError(
                    f"{file.path}: {file.size:,} bytes become more than {total:,} of sound, "
                    "as no recordings do; do not use the file"
                )


def _cells_and_paths(
    file: ParquetFile, group: int, cells: Cells, sound: SoundColumn
) -> Iterator[tuple[list[str] | str, Any]]:
    """Yield the cells of each row of a row group, and the path of its sound; None without one."""
    wanted = [*cells.columns, sound.path] if sound.path else [*cells.columns]
    if not wanted:
        yield from repeat(([], None), file.starts[group + 1] - file.starts[group])
        return
    for batch in file.batches(group, wanted, texts=True):
        names: Iterable[Any] = repeat(None, len(batch))
        if sound.path:
            # The path may be a field of a structure.
            column = batch.column(sound.path.partition(".")[0])
            names = values_of(column.flatten()[0] if "." in sound.path else column)
        yield from zip(cells.rows(batch), names, strict=True)


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
