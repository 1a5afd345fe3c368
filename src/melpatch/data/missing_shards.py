"""Find listed clips whose shard is missing or truncated, from the sizes of the shards alone."""

from collections import Counter
from math import inf
from pathlib import Path
from typing import NamedTuple

import numpy as np

from melpatch.counted import agreeing, counted
from melpatch.data.parquet import is_parquet
from melpatch.data.remote import remote_sizes
from melpatch.data.row_columns import RowColumns
from melpatch.errors import AudioError
from melpatch.progress import notice


class _ShardSize(NamedTuple):
    """The size of a shard in bytes, and the error of clips that lie beyond it."""

    size: float
    error: AudioError


def unavailable_rows(rows: RowColumns) -> dict[int, AudioError]:
    """Return the errors of rows whose shard is missing or truncated, by number; warn per shard."""
    clips = rows.clips
    if clips.packed is None:
        return {}
    packed = np.flatnonzero(clips.packed[:, 1])
    # Many rows share a shard, and shards a folder: each is looked up once.
    folders: dict[str, dict[str, int] | None] = {}
    shards: dict[str, _ShardSize] = {}
    shown = [""] * len(clips.files)
    sizes = np.zeros(len(clips.files))
    units = np.zeros(len(clips.files), bool)
    _, firsts = np.unique(clips.file[packed], return_index=True)
    for file in clips.file[packed[firsts]].tolist():
        path, url = Path(clips.files[file]), clips.urls.get(file, "")
        shown[file] = url or str(path)
        if shown[file] not in shards:
            shards[shown[file]] = _shard_size(path, url, folders)
        sizes[file] = shards[shown[file]].size
        units[file] = is_parquet(path)
    # Rows of Parquet are no bytes: they need a file that is not empty.
    ends = np.where(units[clips.file], 1, clips.packed[:, 0] + clips.packed[:, 1])
    beyond = packed[ends[packed] > sizes[clips.file[packed]]]
    errors = {number: shards[shown[clips.file[number]]].error for number in beyond.tolist()}
    for error, count in Counter(errors.values()).items():
        lost = f"{counted(count, 'clip')} in it {agreeing(count, 'is', 'are')} left out"
        notice(f"{error.path}: {error.reason}; {lost}; {error.fix}")
    return errors


def _shard_size(path: Path, url: str, folders: dict[str, dict[str, int] | None]) -> _ShardSize:
    """Return the size of a shard, from the listing of its folder if it is remote."""
    size: float = 0
    if url:
        folder, _, name = url.rpartition("/")
        if folder not in folders:
            folders[folder] = remote_sizes(folder)
        listed = folders[folder]
        # If a store does not list sizes, the shard is assumed to be complete.
        size = inf
        if listed is not None:
            size = listed.get(name, 0)
    elif path.is_file():
        size = path.stat().st_size
    reason = "does not exist, or is empty"
    if size:
        reason = f"is truncated: only {size:.0f} bytes are there"
    return _ShardSize(size, AudioError(url or str(path), reason, "copy it again, or pack it again"))
