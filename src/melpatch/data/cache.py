"""Where fetched data is kept, and how much of it: the user says so in environment variables."""

import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from melpatch.errors import ConfigError

CACHE_FOLDER = "MELPATCH_CACHE"
"""Environment variable with the folder of the cache."""
CACHE_LIMIT = "MELPATCH_CACHE_GIB"
"""Environment variable with its size in GiB."""
_DEFAULT_GIB = "20"
_RANGES = ".ranges"
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


def make_room(root: Path, limit: int) -> bool:
    """Delete the least recently used shards until the cache takes at most ``limit`` bytes.

    Return whether that was possible; if not, transfers of other processes must end first. The
    caller holds the lock of the cache.
    """
    # Transfers in progress reserve their full size, which is in the name of the temporary file.
    parts = [part for part in root.glob("*/shard-*.part") if not _stale(part)]
    reserved = sum(int(part.suffixes[-2][1:]) for part in parts)
    shards = []
    for pattern in ("*/*.tar", f"*/*.tar{_RANGES}"):
        for file in root.glob(pattern):
            # Clips are deleted without this lock once their whole shard is there.
            with suppress(FileNotFoundError):
                shards.append((file.stat().st_mtime_ns, bytes_on_disk(file), file))
    shards.sort()
    taken = reserved + sum(size for _, size, _ in shards)
    for _, size, file in shards:
        if taken <= limit:
            break
        file.unlink(missing_ok=True)
        taken -= size
    return taken <= limit


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
