"""Sound within files: ranges of bytes in tar archives, and rows of Parquet files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from melpatch.audio.byte_range import ByteRange
from melpatch.data.clip import Clip
from melpatch.data.clip_columns import ClipColumns
from melpatch.data.parquet import is_parquet, opened_parquet
from melpatch.data.parquet_sound import ParquetRow
from melpatch.errors import DataError
from melpatch.faults import let_pass


def packed(path: Path, offset: int, size: int, crc32: int, name: str) -> ByteRange:
    """Return a sound file within a file.

    Args:
        path: the outer file, whose name says whether it is Parquet.
        offset: first byte; in a Parquet file the row.
        size: in bytes.
        crc32: checksum of the bytes.
        name: its name in messages.
    """
    kind = ParquetRow if is_parquet(path) else ByteRange
    return kind(path, offset, size, crc32, name)


def read_together(clip: Clip) -> str:
    """Return a name of what is read as a whole with a clip: its file, or its row group of Parquet.

    Of a Parquet file that cannot be read the whole file is named; its clips fail when they are
    read.
    """
    if not (clip.size and is_parquet(clip.path)):
        return str(clip.path)
    try:
        file = opened_parquet(clip.path, clip.path.stat().st_mtime_ns)
    except (DataError, OSError) as error:
        let_pass(error)
        return str(clip.path)
    return f"{clip.path}, row group {file.group_of(clip.offset)}"


def shard_numbers(
    clips: Sequence[Clip], order: Int[np.ndarray, " clip"]
) -> Int[np.ndarray, " clip"]:
    """Return the number of each clip's file or row group, counted in order of appearance.

    Args:
        clips: the clips.
        order: the order in which they appear, which is also that of the result.
    """
    if isinstance(clips, ClipColumns) and not any(is_parquet(Path(file)) for file in clips.files):
        files = clips.files.first_equal()[clips.file[order]]
        _, firsts, number = np.unique(files, return_index=True, return_inverse=True)
        appearance: np.ndarray = firsts.argsort().argsort()[number]
        return appearance
    numbers: dict[str, int] = {}
    names = (read_together(clips[index]) for index in order.tolist())
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
