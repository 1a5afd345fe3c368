"""Where fetched data is kept, and how much of it: the user says so in environment variables."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from melpatch.errors import ConfigError
from melpatch.opening import read_text

CACHE_FOLDER = "MELPATCH_CACHE"
"""Environment variable with the folder of the cache."""
CACHE_LIMIT = "MELPATCH_CACHE_GIB"
"""Environment variable with its size in GiB."""
_DEFAULT_GIB = "20"
_RANGES = ".ranges"
# The folders of sets of shards, as remote.py names them. The user's own may lie beside them.
_SETS = "*-" + "[0-9a-f]" * 16
# File with the bytes that the cache takes at most.
_TAKEN = ".taken"
_TAKEN_BYTES = 100
# Bytes of a unit of st_blocks, whatever the blocks of the file system.
_UNIT = 512


def cache_root() -> Path:
    """Return the folder of the cache."""
    given = os.environ.get(CACHE_FOLDER)
    if given:
        return Path(given).absolute()
    return Path.home() / ".cache" / "melpatch"


def cache_limit() -> int:
    """Return the size limit of the cache in bytes."""
    given = os.environ.get(CACHE_LIMIT, _DEFAULT_GIB)
    try:
        gib = float(given)
    except ValueError:
        gib = 0.0
    if not gib > 0:
        raise ConfigError(f"{CACHE_LIMIT} = {given!r}; allowed: gibibytes above 0")
    # Infinity becomes 2^50 bytes.
    return int(min(gib, 1 << 20) * (1 << 30))


def ranges_file(shard: Path) -> Path:
    """Return the path of the clips of a shard that were fetched without the rest of it."""
    return shard.with_name(f"{shard.name}{_RANGES}")


def bytes_on_disk(file: Path) -> int:
    """Return what a file takes of the disk, of which holes are no part; 0 if there is none."""
    try:
        status = file.stat()
    except FileNotFoundError:
        return 0
    if not file.name.endswith(_RANGES) or not hasattr(status, "st_blocks"):
        return status.st_size
    return int(status.st_blocks * _UNIT)


def find_room(root: Path, needed: int) -> bool:
    """Return whether there is room for more bytes, as :func:`make_room`, mostly without counting.

    Files are counted only where the last count, and what was added since, leave too little.
    """
    limit = cache_limit()
    try:
        taken = int(read_text(root / _TAKEN, _TAKEN_BYTES))
    except (OSError, ValueError):
        taken = limit
    if taken + needed > limit:
        # More than is needed, so that the next clips find room without a count.
        return make_room(root, needed, spare=limit // 100)
    _note_taken(root, taken + needed)
    return True


def make_room(root: Path, needed: int, spare: int = 0) -> bool:
    """Delete the least recently used shards until there is room for more bytes in the cache.

    Return whether that was possible; if not, transfers of other processes must end first. The
    caller holds the lock of the cache.

    Args:
        root: folder of the cache.
        needed: bytes that will be added.
        spare: further bytes that are to be free, if that is possible.
    """
    limit = cache_limit() - needed
    # Transfers in progress reserve their full size, which is in the name of the temporary file.
    parts = [part for part in parts_in(root) if not _stale(part)]
    reserved = sum(int(part.suffixes[-2][1:]) for part in parts)
    shards = []
    for pattern in ("shard-*.tar", f"shard-*.tar{_RANGES}"):
        for file in root.glob(f"{_SETS}/{pattern}"):
            # Clips are deleted without this lock once their whole shard is there.
            with suppress(FileNotFoundError):
                shards.append((file.stat().st_mtime_ns, bytes_on_disk(file), file))
    shards.sort()
    taken = reserved + sum(size for _, size, _ in shards)
    for _, size, file in shards:
        if taken <= limit - spare:
            break
        file.unlink(missing_ok=True)
        taken -= size
    if taken > limit:
        return False
    _note_taken(root, taken + needed)
    return True


def parts_in(root: Path) -> Iterator[Path]:
    """Yield the temporary files of transfers; the name of each has the size of its shard."""
    return root.glob(f"{_SETS}/shard-*.*.part")


def _note_taken(root: Path, taken: int) -> None:
    """Write down what the cache takes; whoever adds to it holds its lock."""
    (root / _TAKEN).write_text(str(taken), encoding="utf-8")


def _stale(part: Path) -> bool:
    """Delete the temporary file of a transfer whose process has died; return whether it had."""
    # A process holds the lock of its shard for the whole transfer.
    shard = part.name.rsplit(".", 2)[0]
    try:
        with FileLock(part.with_name(f"{shard}.lock"), timeout=0):
            part.unlink(missing_ok=True)
            return True
    except Timeout:
        return False
