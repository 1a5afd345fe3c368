"""Single clips of remote shards, fetched by range where little of a shard is wanted.

A clip costs its bytes and 256 KiB for its request, during which a connection could send about that
much. Clips are fetched alone as long as those fetched so far cost at most a quarter of their shard;
the next one fetches the shard whole. Whoever reads a list of clips that cost more than a quarter of
a shard fetches that shard whole at once (:func:`shards_to_fetch_whole`). Both rules need only the
cache and the list, so they hold over any number of processes, and whoever reads all of a shard
without a list fetches at most a quarter more than the shard.

The fetched clips of a shard lie in one file of the cache, each at its offset in the shard, with
holes between them. No list says which are there: a clip is there if its checksum is right. What an
interrupted process or a crash leaves is therefore fetched again.
"""

import os
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from filelock import FileLock

from melpatch.data.bounded import BoundedTransfer, TooLargeError
from melpatch.data.cache import bytes_on_disk, find_room, ranges_file
from melpatch.data.clip import Clip
from melpatch.data.clip_columns import ClipColumns
from melpatch.data.remote import filesystem, storage_error, with_retries
from melpatch.data.shards import ABOUT, read_shard_set
from melpatch.data.transfers import is_beyond_end
from melpatch.errors import AudioError, DataError
from melpatch.faults import let_pass

# A shard of which more than this share would be spent on clips is fetched whole.
_WHOLE_SHARE = 0.25
# Cost of a request, in bytes. Latency times rate, divided by the processes that read at a time, is
# 50 KB (20 ms at 10 MB/s over 4) to 1 MB (30 ms at 100 MB/s over 3).
_REQUEST = 1 << 18
# Longest clip that is fetched alone, in bytes, because it is held in memory.
_LONGEST = 64 << 20
# What a file system may round the beginning and the end of a clip to, in bytes.
_PAGE = 1 << 12
_COPY_AGAIN = "copy the shard there again, or pack again"


def fetched_alone(clip: Clip) -> bytes | None:
    """Return the bytes of a clip of a remote shard; None if the shard is to be read whole.

    Raises:
        UnreachableError: the clip cannot be fetched or stored.
        AudioError: the shard does not exist, or the clip is damaged there.
    """
    if clip.path.exists():
        return None
    shard_bytes = _shard_sizes(clip.path.parent).get(clip.path.name, 0)
    within = 0 <= clip.offset <= shard_bytes - clip.size
    if not (0 < clip.size <= _LONGEST and within):
        # What an index states of a clip that is too long or not there is told of the whole shard.
        return None
    content = _kept(clip)
    if content is not None:
        return content
    # Clips of a shard are about as long as each other, so those before cost their size likewise.
    fetched = bytes_on_disk(ranges_file(clip.path)) + clip.size
    if fetched * (1 + _REQUEST / clip.size) > _WHOLE_SHARE * shard_bytes:
        return None
    try:
        content = _fetched(clip)
    except TooLargeError as error:
        # The server does not know ranges, and would send the file from its beginning.
        let_pass(error)
        return None
    if content is not None:
        _keep(clip, content, shard_bytes)
    return content


def shards_to_fetch_whole(clips: Sequence[Clip]) -> frozenset[str]:
    """Return the URLs of the remote shards of which the clips of a list cost more than a quarter.

    A clip that is listed twice counts twice.
    """
    costs: Counter[tuple[str, Path]] = Counter()
    if not isinstance(clips, ClipColumns):
        for clip in clips:
            if clip.url:
                costs[clip.url, clip.path] += clip.size + _REQUEST
    elif clips.packed is not None and clips.urls:
        totals = np.bincount(clips.file, clips.packed[:, 1] + _REQUEST, len(clips.files))
        for number, url in clips.urls.items():
            costs[url, Path(clips.files[number])] += int(totals[number])
    return frozenset(
        url
        for (url, path), cost in costs.items()
        if cost > _WHOLE_SHARE * _shard_sizes(path.parent).get(path.name, 0)
    )


def _shard_sizes(folder: Path) -> Mapping[str, int]:
    """Return the sizes of shards in bytes by name; none where somebody has emptied the cache."""
    if not (folder / ABOUT).exists():
        return {}
    try:
        return _stated_sizes(folder)
    except DataError as error:
        let_pass(error)
        return {}


@lru_cache(maxsize=16)
def _stated_sizes(folder: Path) -> Mapping[str, int]:
    # The name of the folder contains a hash of this file, which therefore never changes.
    return {shard.name: shard.size for shard in read_shard_set(folder).shards}


def _kept(clip: Clip) -> bytes | None:
    """Return the bytes of a clip from the cache, and mark them as used; None if they are not there."""
    file = ranges_file(clip.path)
    try:
        with file.open("rb") as ranges:
            ranges.seek(clip.offset)
            content = ranges.read(clip.size)
        if not _is_intact(clip, content):
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(clip.url, file.parent, error) from error
    # The time of the last use decides what is deleted first; that may have happened by now.
    with suppress(OSError):
        os.utime(file)
    return content


def _keep(clip: Clip, content: bytes, shard_bytes: int) -> None:
    """Write a clip into the cache, unless the transfers of other processes take all room."""
    root = clip.path.parent.parent
    needed = len(content) + 2 * _PAGE
    try:
        with FileLock(root / ".lock"):
            if clip.path.exists() or not find_room(root, needed):
                return
            file = ranges_file(clip.path)
            file.touch()
            with file.open("r+b") as ranges:
                # At its full size from the start: no file system reserves room behind its end then.
                ranges.truncate(shard_bytes)
                ranges.seek(clip.offset)
                ranges.write(content)
    except OSError as error:
        raise storage_error(clip.url, clip.path.parent, error) from error


def _is_intact(clip: Clip, content: bytes) -> bool:
    return len(content) == clip.size and zlib.crc32(content) == clip.crc32


def _fetched(clip: Clip) -> bytes | None:
    """Return the bytes of a clip from its store; None if the shard ends before the clip does."""
    # Fetched once more, in case the transfer damaged it.
    for _ in range(2):
        content = with_retries(lambda: _request(clip), clip.url)
        if len(content) != clip.size:
            return None
        if _is_intact(clip, content):
            return content
    reason = f"is damaged: the checksum of its {clip.size} bytes is wrong"
    raise AudioError(clip.location, reason, _COPY_AGAIN)


def _request(clip: Clip) -> bytes:
    """Return what a store answers to a request of the bytes of a clip."""
    system, place = filesystem(clip.url)
    end = clip.offset + clip.size
    if not place.startswith(("http:", "https:")):
        content: bytes = system.cat_file(place, start=clip.offset, end=end)
        return content
    received = BytesIO()
    try:
        system.get_file(
            place,
            received,
            callback=BoundedTransfer(clip.url, clip.size),
            headers={"Range": f"bytes={clip.offset}-{end - 1}"},
        )
    # Each store raises errors of its own.
    except Exception as error:
        if not is_beyond_end(error):
            raise
        let_pass(error)
        return b""
    return received.getvalue()
