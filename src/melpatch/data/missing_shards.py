"""Find listed clips whose shard is missing or truncated, from the sizes of the shards alone."""

from collections import Counter
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from melpatch.counted import agreeing, counted
from melpatch.data.parquet import is_parquet
from melpatch.data.remote import remote_sizes
from melpatch.data.row import Row
from melpatch.errors import AudioError
from melpatch.progress import notice


class _ShardSize(NamedTuple):
    """The size of a shard in bytes, and the error of clips that lie beyond it."""

    size: float
    error: AudioError


def unavailable_rows(listed: Sequence[Row]) -> dict[int, AudioError]:
    """Return the errors of rows whose shard is missing or truncated, by number; warn per shard."""
    # Many rows share a shard, and shards a folder: each is looked up once.
    folders: dict[str, dict[str, int] | None] = {}
    shards: dict[str, _ShardSize] = {}
    errors: dict[int, AudioError] = {}
    for number, row in enumerate(listed):
        if row.size:
            shown = row.url or str(row.path)
            if shown not in shards:
                shards[shown] = _shard_size(row, shown, folders)
            if _end(row) > shards[shown].size:
                errors[number] = shards[shown].error
    for error, clips in Counter(errors.values()).items():
        lost = f"{counted(clips, 'clip')} in it {agreeing(clips, 'is', 'are')} left out"
        notice(f"{error.path}: {error.reason}; {lost}; {error.fix}")
    return errors


def _end(row: Row) -> int:
    """Return the end of a clip in its shard, in bytes; 1 in a Parquet file, whose rows are not bytes."""
    return 1 if is_parquet(row.path) else row.offset + row.size


def _shard_size(row: Row, shown: str, folders: dict[str, dict[str, int] | None]) -> _ShardSize:
    """Return the size of a row's shard, from the listing of its folder if it is remote."""
    size: float = 0
    if row.url:
        folder, _, name = row.url.rpartition("/")
        if folder not in folders:
            folders[folder] = remote_sizes(folder)
        listed = folders[folder]
        # If a store does not list sizes, the shard is assumed to be complete.
        size = inf
        if listed is not None:
            size = listed.get(name, 0)
    elif row.path.is_file():
        size = row.path.stat().st_size
    reason = "does not exist, or is empty"
    if size:
        reason = f"is truncated: only {size:.0f} bytes are there"
    return _ShardSize(size, AudioError(shown, reason, "copy it again, or pack it again"))
