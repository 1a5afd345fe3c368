"""Remote shards: those that are read whole are fetched into a bounded cache that processes share.

Where little of a shard is wanted, :mod:`melpatch.data.ranges` fetches single clips.

The cache has one folder per set of shards, named after its URL and a hash of its ``shards.json``,
so a set that was packed again is fetched again. The least recently used shards are deleted to make
room. Environment variables set the folder of the cache (``MELPATCH_CACHE``, by default
``~/.cache/melpatch``) and its size (``MELPATCH_CACHE_GIB``, by default 20). Credentials are those
of fsspec's own settings.

A server is not trusted: a shard is fetched up to the size that ``shards.json`` states, this and the
index up to fixed limits; all indices together take up to a quarter of the size of the cache.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import fsspec
from filelock import FileLock
from fsspec.implementations.local import LocalFileSystem

from melpatch.atomic import clear_partial, move_into_place
from melpatch.data import transfers
from melpatch.data.addresses import PROTOCOLS, is_shard_name, require_plain_url
from melpatch.data.bounded import CHECK_URL, BoundedTransfer, too_large
from melpatch.data.cache import (
    CACHE_FOLDER,
    CACHE_LIMIT,
    cache_limit,
    cache_root,
    make_room,
    parts_in,
    ranges_file,
)
from melpatch.data.shards import ABOUT, ABOUT_BYTES, INDEX, Shard, digest, read_shard_set
from melpatch.errors import AudioError, ConfigError, DataError, MelpatchError, UnreachableError
from melpatch.progress import notice

T = TypeVar("T")
_EXTRAS = {
    "hf": "hub",
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "http": "http",
    "https": "http",
}
# Seconds before each retry of a failed transfer.
_RETRY_AFTER = (1.0, 4.0, 15.0)
# Largest index that is fetched: about ten million clips.
_INDEX_BYTES = 2 << 30
# What all indices together may always take; a quarter of the cache where that is more.
_INDICES_BYTES = 64 << 20
# Seconds between checks for the transfers of other processes.
_POLL = 0.2


def is_url(source: str | Path) -> bool:
    """Return whether a source is a URL, such as ``s3://bucket/shards``."""
    return isinstance(source, str) and "://" in source


def mirror(url: str) -> tuple[Path, str]:
    """Return the cache folder of a remote folder of shards, with its index, and its URL.

    For a local URL, such as ``file:///data/shards``, return the folder itself and ``""``.

    Raises:
        DataError: there are no shards at that URL, it cannot be reached, or a library is missing.
    """
    return _mirror(url.rstrip("/"), cache_root())


def locate(url: str) -> tuple[Path, str]:
    """Return the path of a shard in the cache and its URL; ``""`` if it is local.

    Raises:
        DataError: as :func:`mirror`.
    """
    folder, _, name = url.rpartition("/")
    require_plain_url(url)
    if not is_shard_name(name):
        raise DataError(f"{url}: not a shard; a URL names one of melpatch pack, shard-NUMBER.tar")
    path, remote = mirror(folder)
    if not remote:
        return path / name, ""
    return path / name, f"{remote}/{name}"


def remote_sizes(url: str) -> dict[str, int] | None:
    """Return the sizes of the files in a remote folder by name; None if it cannot be listed."""
    # Over HTTP, each server lists its folders differently, if at all.
    if url.startswith(("http:", "https:")):
        return None
    system, place = filesystem(url)
    listed = with_retries(lambda: system.ls(place, detail=True), url)
    by_name = {entry["name"].rpartition("/")[2]: entry["size"] for entry in listed}
    if None in by_name.values():
        return None
    return by_name


def fetch(url: str, path: Path) -> None:
    """Fetch a shard into the cache unless it is there, and mark it as used.

    Processes wait for each other, so each shard is fetched once.

    Raises:
        UnreachableError: the shard cannot be fetched or stored.
        AudioError: the shard does not exist, or is damaged.
        ConfigError: the shard is larger than the cache may be.
    """
    try:
        # The time of the last use decides which shards are deleted first.
        try:
            os.utime(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            with transfers.locked(Path(f"{path}.lock"), url):
                # Another process may have fetched it while this one waited for the lock.
                if not path.exists():
                    _transfer(url, path)
    except OSError as error:
        raise storage_error(url, path.parent, error) from error


@lru_cache
def _mirror(url: str, root: Path) -> tuple[Path, str]:
    system, place = filesystem(url)
    if isinstance(system, LocalFileSystem):
        return Path(place), ""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root, prefix=".about-") as aside:
            about_file = Path(aside, ABOUT)
            get_file(system, f"{place}/{ABOUT}", about_file, f"{url}/{ABOUT}", ABOUT_BYTES)
            content = about_file.read_bytes()
            # Refused before anything is made of it.
            read_shard_set(Path(aside), url)
            identity = hashlib.blake2b(f"{url}\0".encode() + content, digest_size=8).hexdigest()
            name = re.sub(r"[^\w.-]+", "-", url.rpartition("/")[2])[:60]
            folder = root / f"{name}-{identity}"
            folder.mkdir(exist_ok=True)
            with transfers.locked(folder / ".lock", url):
                clear_partial(folder)
                move_into_place(about_file, folder / ABOUT)
                _fetch_index(system, place, url, folder)
    except OSError as error:
        raise DataError(str(storage_error(url, root, error))) from error
    except AudioError as error:
        raise DataError(str(error)) from error
    about = read_shard_set(folder, url)
    limit = cache_limit()
    for shard in about.shards:
        _require_room(shard, limit)
    if about.size > limit:
        gib = f"{about.size / 2**30:.1f} GiB, but the cache {root} keeps {limit / 2**30:.1f}"
        fix = f"give --shards-at-once where you train, or raise {CACHE_LIMIT}"
        notice(f"{url}: holds {gib}, so shards that are read whole are fetched repeatedly; {fix}")
    return folder, url


def _fetch_index(system: Any, place: str, url: str, folder: Path) -> None:
    """Fetch the index into the cache unless the one there has the checksum in ``shards.json``."""
    wanted = read_shard_set(folder, url).index
    path = folder / INDEX
    aside = folder / f".{INDEX}.part"
    if path.exists() and digest(path) == wanted:
        return
    # Indices are never deleted to make room, so together they have a limit of their own.
    indices = sum(file.stat().st_size for file in folder.parent.glob(f"*/{INDEX}"))
    most = min(_INDEX_BYTES, max(_INDICES_BYTES, cache_limit() // 4) - indices)
    if most <= 0:
        raise DataError(
            f"{folder.parent}: the lists of clips in it take {indices / 2**20:,.0f} MiB; "
            "delete the "
            f"folders of shards that you no longer use, or raise {CACHE_LIMIT}"
        )

    def check() -> None:
        if digest(aside) != wanted:
            raise transfers.WrongContentError(f"does not match the checksum in {ABOUT}")

    try:
        get_file(system, f"{place}/{INDEX}", aside, f"{url}/{INDEX}", most, check)
        move_into_place(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and its path there."""
    protocol = require_plain_url(url)
    try:
        system, place = fsspec.core.url_to_fs(url, **transfers.client_settings(url))
    except ImportError as error:
        hint = f"install what fsspec needs for it ({error})"
        if protocol in _EXTRAS:
            hint = f"pip install 'melpatch[{_EXTRAS[protocol]}]'"
        raise DataError(f"{url}: a library for {protocol}:// is missing; {hint}") from error
    except ValueError as error:
        problem = f"not a URL that fsspec knows ({error})"
        raise DataError(f"{url}: {problem}; known: {', '.join(PROTOCOLS)}") from error
    return system, str(place).rstrip("/")


def get_file(
    system: Any,
    place: str,
    path: Path,
    url: str,
    most: int,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Fetch a file of at most ``most`` bytes, and check it; both are tried again after an error.

    Raises:
        AudioError: it does not exist, or is larger.
        UnreachableError: it cannot be fetched.
    """

    def copy() -> None:
        system.get_file(place, str(path), callback=BoundedTransfer(url, most))
        # Not every file system counts.
        if path.stat().st_size > most:
            raise too_large(url, most)
        check()

    try:
        with_retries(copy, url)
    except MelpatchError:
        path.unlink(missing_ok=True)
        raise


def with_retries(action: Callable[[], T], url: str) -> T:
    """Return the result of a transfer, which is retried when it breaks off."""
    transfers.require_present(url)
    for wait in (*_RETRY_AFTER, None):
        try:
            return action()
        except MelpatchError:
            raise
        except FileNotFoundError as error:
            raise AudioError(url, "does not exist", CHECK_URL) from error
        except PermissionError as error:
            raise UnreachableError(url, "may not be read", CHECK_URL) from error
        # Each store raises errors of its own.
        except Exception as error:
            fault = str(error)
            if not isinstance(error, transfers.WrongContentError):
                fault = f"{type(error).__name__}: {error}".removesuffix(": ")
            if wait is None:
                reason = f"cannot be fetched ({fault})"
                fix = "check the network and the room on your disk"
                away = UnreachableError(url, reason, fix)
                transfers.note_away(url, away, error)
                raise away from error
            if wait == _RETRY_AFTER[0]:
                seconds = sum(_RETRY_AFTER)
                notice(f"{url}: {fault}; trying again, and giving up after {seconds:.0f} s")
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def storage_error(url: str, folder: Path, error: OSError) -> UnreachableError:
    """Return the error for something fetched that the folder of the cache cannot take."""
    reason = f"cannot be stored in {folder} ({error.strerror})"
    return UnreachableError(
        url, reason, f"make room there, or let {CACHE_FOLDER} name another folder"
    )


def _transfer(url: str, path: Path) -> None:
    """Fetch a shard into the cache under a temporary name, and rename it once it is complete.

    This process holds the lock of the shard.
    """
    folder = url.rpartition("/")[0]
    # Someone may have emptied the cache in the meantime.
    if not (path.parent / ABOUT).exists():
        _mirror.cache_clear()
        mirror(folder)
    shard = next(
        (shard for shard in read_shard_set(path.parent, folder).shards if shard.name == path.name),
        None,
    )
    if shard is None:
        raise AudioError(
            url, f"is not in {ABOUT}", "take the list of clips that was packed with the shards"
        )
    system, place = filesystem(url)
    part = _reserve(url, path, shard)

    def whole() -> None:
        # Counted from 0 each time, since a server that cannot go on begins again.
        system.get_file(place, str(part), callback=BoundedTransfer(url, shard.size))

    def copy() -> None:
        transfers.fetch_in_parts(system, place, part, shard.size, whole)
        size = part.stat().st_size
        if size != shard.size:
            raise transfers.WrongContentError(f"received {size} of {shard.size} bytes")

    try:
        with transfers.reported(url, part, shard.size):
            with_retries(copy, url)
        # Fetched once more, in case the transfer damaged it.
        if digest(part) != shard.sha256:
            part.write_bytes(b"")
            with_retries(copy, url)
        if digest(part) != shard.sha256:
            reason = f"is damaged: its checksum is not that in {ABOUT}"
            raise AudioError(url, reason, "copy it there again or pack again")
        move_into_place(part, path)
        # The clips in it lie in the shard now.
        ranges_file(path).unlink(missing_ok=True)
    finally:
        part.unlink(missing_ok=True)


def _require_room(shard: Shard, limit: int) -> None:
    if shard.size > limit:
        wanted = f"at least the {shard.size / 2**30:.3g} GiB of {shard.name}"
        raise ConfigError(f"{CACHE_LIMIT} = {limit / 2**30:g}; allowed: {wanted}")


def _reserve(url: str, path: Path, shard: Shard) -> Path:
    """Make room for a shard and return its temporary file, whose name reserves the size.

    Raises:
        UnreachableError: the transfers of other processes take all room, and none of them advances.
    """
    limit = cache_limit()
    root = path.parent.parent
    _require_room(shard, limit)
    # This process holds the lock, so other temporary files are from processes that were killed.
    for stale in path.parent.glob(f"{path.name}.*.part"):
        stale.unlink()
    part = path.with_name(f"{path.name}.{shard.size}.part")
    wait = transfers.RoomWait(url, root, limit)
    while True:
        with FileLock(root / ".lock"):
            if make_room(root, shard.size):
                part.touch()
                return part
        received = sum(_size(other) for other in parts_in(root))
        wait.note(received)
        time.sleep(_POLL)


def _size(path: Path) -> int:
    """Return the size of a file, 0 if it has gone in the meantime."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
