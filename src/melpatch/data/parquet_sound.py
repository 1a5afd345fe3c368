"""Sound files in the rows of Parquet files, as of Hugging Face's datasets: ``struct<bytes, path>``.

A row group is decoded as a whole, so the last ones stay in memory: in the order of the file each
is decoded once, and in a random order once per clip.
"""

import io
import json
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from melpatch.audio.byte_range import ByteRange
from melpatch.data.parquet import SMALLER_GROUPS, Parquet, opened_parquet
from melpatch.errors import AudioError, DataError

# Decoded row groups that a process keeps, in bytes; the last one is always kept.
_KEPT_BYTES = 256 << 20
# Sound of one row group that is decoded, in bytes.
_MOST_SOUND = 1 << 30
_COPY_AGAIN = "copy the file again, or list its clips again with melpatch prepare"
# Usual names of a column of the bytes of sound files.
_BYTES_NAMES = ("audio", "bytes", "audio_bytes", "wav", "flac", "mp3", "sound")
_HUGGING_FACE = b"huggingface"
# What is stored like sound, as bytes and path, but is none.
_OTHER_MEDIA = ("Image", "Video", "Pdf", "Mesh", "Nifti")


class SoundColumn(NamedTuple):
    """Where the sound of a table is.

    Attributes:
        name: the column.
        bytes: what holds the bytes of sound files, the column or a field of it; ``""``: nothing.
        path: what holds their paths; ``""``: nothing.
        others: further columns of sound.
    """

    name: str
    bytes: str
    path: str
    others: tuple[str, ...] = ()


def features_of(schema: Any) -> dict[str, Any]:
    """Return Hugging Face's description of the columns by their names; ``{}`` without one."""
    about = (schema.metadata or {}).get(_HUGGING_FACE, b"{}")
    try:
        features = json.loads(about)["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def sound_column(path: Path, schema: Any) -> SoundColumn | None:
    """Return the column of sound of a table; None if there is none.

    Raises:
        DataError: there is sound, but as samples.
    """
    features = features_of(schema)
    columns = []
    for field in schema:
        feature = features.get(field.name)
        kind = feature.get("_type") if isinstance(feature, dict) else None
        column = None
        if kind not in _OTHER_MEDIA:
            column = _sound(path, field, kind == "Audio")
        if column is not None:
            columns.append(column)
    # The column that is called audio is the sound of the row; others may be prompts or noises.
    columns.sort(key=lambda column: column.name != "audio")
    if not columns:
        return None
    return columns[0]._replace(others=tuple(column.name for column in columns[1:]))


def _sound(path: Path, field: Any, is_audio: bool) -> SoundColumn | None:
    """Return a column if it holds sound files or, as the file says, their paths."""
    from pyarrow import types

    name = field.name
    kind = field.type
    if types.is_struct(kind):
        fields = {
            kind.field(number).name: kind.field(number).type for number in range(kind.num_fields)
        }
        if "array" in fields and "sampling_rate" in fields:
            fix = "write sound files, as datasets does with its feature Audio"
            raise DataError(f"{path}: column {name!r} holds samples, not sound files; {fix}")
        has_bytes = _is_binary(fields.get("bytes"))
        if not (has_bytes or is_audio):
            return None
        return SoundColumn(
            name,
            f"{name}.bytes" if has_bytes else "",
            f"{name}.path" if "path" in fields else "",
        )
    if _is_binary(kind) and (is_audio or name.lower() in _BYTES_NAMES):
        return SoundColumn(name, name, "")
    if is_audio and (types.is_string(kind) or types.is_large_string(kind)):
        return SoundColumn(name, "", name)
    return None


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    if kind is None:
        return False
    if types.is_dictionary(kind):
        kind = kind.value_type
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def sounds(file: Parquet, group: int, column: str) -> Iterator[bytes | None]:
    """Yield the sound files in a row group; None for rows without one.

    Args:
        file: the Parquet file.
        group: number of the row group.
        column: what holds their bytes.

    Raises:
        DataError: the file is damaged, or the row group would fill the memory.
    """
    total = 0
    for batch in file.batches(group, [column]):
        values = batch.column(0)
        if "." in column:
            values = values.flatten()[0]
        for value in values:
            content = value.as_py()
            total += len(content or b"")
            if total > _MOST_SOUND:
                raise DataError(
                    f"{file.path}: row group {group} holds more than {_MOST_SOUND >> 30} GiB of "
                    f"sound; {SMALLER_GROUPS}"
                )
            yield content


class ParquetRow(ByteRange):
    """A sound file in a row of a Parquet file; ``offset`` is the number of the row, from 0."""

    __slots__ = ()

    def content(self) -> bytes:
        """Return its bytes.

        Raises:
            AudioError: there is no such row, or it holds something else.
            OSError: the file cannot be opened.
        """
        try:
            content = _content(self.path, self.offset)
        except DataError as error:
            raise AudioError(self, f"cannot be read ({error})", _COPY_AGAIN) from error
        if content is None or len(content) != self.size or zlib.crc32(content) != self.crc32:
            reason = f"is damaged: the row does not hold the {self.size} bytes that were listed"
            raise AudioError(self, reason, _COPY_AGAIN)
        return content

    def open(self) -> io.BytesIO:
        """Open the bytes as a separate file.

        Raises:
            AudioError: as :meth:`content`.
            OSError: the file cannot be opened.
        """
        return io.BytesIO(self.content())


_Place = tuple[Path, int, int]
"""A file, the time of its modification, and the number of a row group."""
_kept: "OrderedDict[_Place, list[bytes | None]]" = OrderedDict()


def _content(path: Path, row: int) -> bytes | None:
    """Return the bytes in a row; None if there are none."""
    modified = path.stat().st_mtime_ns
    file = opened_parquet(path, modified)
    if row >= file.starts[-1]:
        return None
    group = file.group_of(row)
    first: int = file.starts[group]
    return _group(file, group, modified)[row - first]


def _group(file: Parquet, group: int, modified: int) -> list[bytes | None]:
    """Return the sound files in a row group, of which the last ones are kept."""
    place = file.path, modified, group
    values = _kept.pop(place, None)
    if values is None:
        column = sound_column(file.path, file.schema)
        if column is None or not column.bytes:
            raise DataError(f"{file.path}: has no column of sound files")
        values = [*sounds(file, group, column.bytes)]
    _kept[place] = values
    kept = sum(_size(others) for others in _kept.values())
    while kept > _KEPT_BYTES and len(_kept) > 1:
        _, oldest = _kept.popitem(last=False)
        kept -= _size(oldest)
    return values


def _size(values: list[bytes | None]) -> int:
    return sum(len(value or b"") for value in values)
