"""Whether the shards that clips are listed in are there, and whole: one look at each, nothing is read."""

from collections import Counter
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from melpatch.data.remote import remote_sizes
from melpatch.data.sources import Row
from melpatch.errors import AudioError
from melpatch.progress import notice


class _Seen(NamedTuple):
    """How many bytes a shard has, and what is to be said where that is too little."""

    size: float
    fault: AudioError


def unavailable_rows(listed: Sequence[Row]) -> dict[int, AudioError]:
    """Return what is wrong with rows whose shard does not exist, or ends before them, by their numbers; warn once for
    each such shard."""
    folders: dict[str, dict[str, int] | None] = {}
    shards: dict[str, _Seen] = {}
    found: dict[int, AudioError] = {}
    for number, row in enumerate(listed):
        if row.size:
            shown = row.url or str(row.path)
            seen = shards.get(shown) or shards.setdefault(shown, _look(row, shown, folders))
            if row.offset + row.size > seen.size:
                found[number] = seen.fault
    for fault, clips in Counter(found.values()).items():
        notice(f"{fault.path}: {fault.reason}; {clips:,} clips in it are left out; {fault.fix}")
    return found


def _look(row: Row, shown: str, folders: dict[str, dict[str, int] | None]) -> _Seen:
    if row.url:
        folder, _, name = row.url.rpartition("/")
        if folder not in folders:
            folders[folder] = remote_sizes(folder)
        there = folders[folder]
        size = (
            inf if there is None else there.get(name, 0)
        )  # a store that tells nothing is believed
    else:
        size = row.path.stat().st_size if row.path.is_file() else 0
    reason = (
        f"is truncated: only {size:.0f} bytes are there" if size else "does not exist, or is empty"
    )
    return _Seen(size, AudioError(shown, reason, "copy it again, or pack it anew"))
