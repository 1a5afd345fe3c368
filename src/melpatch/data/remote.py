"""Shards that lie elsewhere: each is fetched whole when it is first wanted, into a bounded cache that processes share.

The cache has a folder for each set of shards, named after its URL and its ``shards.json``, so that what is packed anew
is fetched anew. Where room is needed, the shards that were used least lately go. Environment variables say where the
cache lies (``MELPATCH_CACHE``, by default ``~/.cache/melpatch``) and how large it may grow (``MELPATCH_CACHE_GIB``, by
default 20); fsspec's own settings say how a store is entered.
"""

import hashlib
import os
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

from melpatch.atomic import clear_partial, move_into_place, written_aside
from melpatch.data.shards import ABOUT, INDEX, Shard, digest, read_shard_set
from melpatch.errors import AudioError, ConfigError, DataError, UnreachableError
from melpatch.progress import notice

T = TypeVar("T")
_FOLDER, _LIMIT, _DEFAULT_GIB = "MELPATCH_CACHE", "MELPATCH_CACHE_GIB", "20"
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "http": "http", "https": "http"}
_PATIENCE = (1.0, 4.0, 15.0)  # seconds before each further try of a transfer that broke off
_POLL = 0.2  # seconds between looks whether other processes are done with their transfers


def is_url(source: str | Path) -> bool:
    """Return whether a source is named by a URL, such as ``s3://bucket/shards``."""
    return isinstance(source, str) and "://" in source


def mirror(url: str) -> tuple[Path, str]:
    """Return where the copies of a folder of shards are to lie, with their index there already, and its URL; of a URL
    of this machine, such as ``file:///data/shards``, the folder itself and ``""``.

    Raises:
        DataError: there are no shards at that URL, it cannot be reached, or a library is missing.
    """
    return _mirror(url.rstrip("/"), _root())


def locate(url: str) -> tuple[Path, str]:
    """Return where the copy of a shard is to lie, and its URL; ``""`` where it needs no copy.

    Raises:
        DataError: as :func:`mirror`.
    """
    folder, _, name = url.rpartition("/")
    path, kept = mirror(folder)
    return path / name, f"{kept}/{name}" if kept else ""


def remote_sizes(url: str) -> dict[str, int] | None:
    """Return the sizes of the files in a remote folder by their names, None where the store does not list them."""
    if url.startswith(("http:", "https:")):  # there may be a page of links, or none
        return None
    system, place = _filesystem(url)
    listed = _tried(lambda: system.ls(place, detail=True), url)
    found = {entry["name"].rpartition("/")[2]: entry["size"] for entry in listed}
    return None if None in found.values() else found


def fetch(url: str, path: Path) -> None:
    """See that the copy of a shard lies in the cache, and note that it was used; processes wait for each other.

    Raises:
        UnreachableError: it cannot be fetched or kept.
        AudioError: it does not exist, or is damaged.
        ConfigError: it is larger than the cache may be.
    """
    try:
        try:
            os.utime(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not path.exists():
                    _transfer(url, path)
    except OSError as error:
        raise _unkept(url, path.parent, error) from error


@lru_cache
def _mirror(url: str, root: Path) -> tuple[Path, str]:
    system, place = _filesystem(url)
    if isinstance(system, LocalFileSystem):
        return Path(place), ""
    try:
        said = _tried(lambda: system.cat_file(f"{place}/{ABOUT}"), f"{url}/{ABOUT}")
        identity = hashlib.blake2b(f"{url}\0".encode() + said, digest_size=8).hexdigest()
        folder = root / f"{url.rpartition('/')[2]}-{identity}"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            clear_partial(folder)
            with written_aside(folder / ABOUT) as aside:
                aside.write_bytes(said)
            _keep_index(system, place, url, folder)
    except OSError as error:
        raise DataError(str(_unkept(url, root, error))) from error
    except AudioError as error:
        raise DataError(str(error)) from error
    about, limit = read_shard_set(folder, url), _limit()
    _require_room(max(about.shards, key=lambda shard: shard.size), limit)
    if about.size > limit:
        notice(
            f"{url}: holds {about.size / 2**30:.1f} GiB, but the cache {root} keeps {limit / 2**30:.1f}, so that "
            f"shards are fetched again and again; give --shards-at-once where you train, or raise {_LIMIT}"
        )
    return folder, url


def _keep_index(system: Any, place: str, url: str, folder: Path) -> None:
    """See that the index in the cache is the one that ``shards.json`` tells of; another one is fetched again."""
    wanted, path, aside = (
        read_shard_set(folder, url).index,
        folder / INDEX,
        folder / f".{INDEX}.part",
    )
    if path.exists() and digest(path) == wanted:
        return

    def copy() -> None:
        system.get_file(f"{place}/{INDEX}", str(aside))
        if digest(aside) != wanted:
            raise OSError(f"does not match {ABOUT}, by its checksum")

    try:
        _tried(copy, f"{url}/{INDEX}")
        move_into_place(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's way to a URL, and what it calls the place."""
    protocol = url.partition("://")[0]
    try:
        system, place = fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        hint = (
            f"pip install 'melpatch[{extra}]'"
            if extra
            else f"install what fsspec needs for it ({error})"
        )
        raise DataError(f"{url}: a library for {protocol}:// is missing; {hint}") from error
    except ValueError as error:
        raise DataError(
            f"{url}: not a URL that fsspec knows ({error}); known: {', '.join(_EXTRAS)}, file"
        ) from error
    return system, str(place).rstrip("/")


def _tried(action: Callable[[], T], url: str) -> T:
    """Return what an action brings from a URL; what breaks off is tried again."""
    for wait in (*_PATIENCE, None):
        try:
            return action()
        except (FileNotFoundError, PermissionError) as error:
            gone = isinstance(error, FileNotFoundError)
            kind, reason = (
                (AudioError, "does not exist") if gone else (UnreachableError, "may not be read")
            )
            raise kind(
                url, reason, "check the URL and your credentials, or copy it there again"
            ) from error
        except Exception as error:  # each store has errors of its own
            if wait is None:
                reason = f"cannot be fetched ({type(error).__name__}: {error})"
                raise UnreachableError(
                    url, reason, "check the network and the room on your disk"
                ) from error
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _unkept(url: str, folder: Path, error: OSError) -> UnreachableError:
    reason = f"cannot be kept in {folder} ({error.strerror})"
    return UnreachableError(url, reason, f"make room there, or let {_FOLDER} name another folder")


def _transfer(url: str, path: Path) -> None:
    """Fetch a shard, whose lock this process holds, beside its place in the cache, and move it there when it is
    whole."""
    folder = url.rpartition("/")[0]
    if not (path.parent / ABOUT).exists():  # somebody has emptied the cache meanwhile
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
    system, place = _filesystem(url)
    part = _reserve(path, shard)

    def copy() -> None:
        system.get_file(place, str(part))
        if (there := part.stat().st_size) != shard.size:
            raise OSError(f"{there} of {shard.size} bytes came")

    try:
        _tried(copy, url)
        if digest(part) != shard.sha256:
            _tried(copy, url)  # once more, for it may have been the way
        if digest(part) != shard.sha256:
            raise AudioError(
                url,
                f"is damaged: its checksum is not that in {ABOUT}",
                "copy it there again or pack anew",
            )
        move_into_place(part, path)
    finally:
        part.unlink(missing_ok=True)


def _require_room(shard: Shard, limit: int) -> None:
    if shard.size > limit:
        wanted = f"at least the {shard.size / 2**30:.3g} GiB of {shard.name}"
        raise ConfigError(f"{_LIMIT} = {limit / 2**30:g}; allowed: {wanted}")


def _reserve(path: Path, shard: Shard) -> Path:
    """Make room for a shard and return the file to fetch it into; its name tells the others how much it takes."""
    limit, root = _limit(), path.parent.parent
    _require_room(shard, limit)
    for stale in path.parent.glob(f"{path.name}.*.part"):
        stale.unlink()  # of a process that was killed, for this one holds the lock
    part = path.with_name(f"{path.name}.{shard.size}.part")
    while True:
        with FileLock(root / ".lock"):
            if _make_room(root, limit - shard.size):
                part.touch()
                return part
        time.sleep(_POLL)


def _make_room(root: Path, limit: int) -> bool:
    """Delete the shards that were used least lately until the cache takes no more than ``limit`` bytes; return whether
    that could be reached now, or only once the transfers of others are done."""
    coming = sum(
        int(part.suffixes[-2][1:]) for part in root.glob("*/shard-*.part") if not _stale(part)
    )
    kept = sorted(
        (file.stat().st_mtime_ns, file.stat().st_size, file) for file in root.glob("*/*.tar")
    )
    taken = coming + sum(size for _, size, _ in kept)
    for _, size, file in kept:
        if taken <= limit:
            break
        file.unlink(missing_ok=True)
        taken -= size
    return taken <= limit


def _stale(part: Path) -> bool:
    """Return whether a transfer's process has died; what it left is deleted then."""
    shard = part.name.rsplit(".", 2)[0]
    try:
        with FileLock(part.with_name(f"{shard}.lock"), timeout=0):
            part.unlink(missing_ok=True)
            return True
    except Timeout:
        return False


def _root() -> Path:
    given = os.environ.get(_FOLDER)
    return Path(given).absolute() if given else Path.home() / ".cache" / "melpatch"


def _limit() -> int:
    """Return how many bytes of shards the cache may keep."""
    given = os.environ.get(_LIMIT, _DEFAULT_GIB)
    try:
        gib = float(given)
    except ValueError:
        gib = 0.0
    if not gib > 0:
        raise ConfigError(f"{_LIMIT} = {given!r}; allowed: gibibytes above 0")
    return int(min(gib, 1 << 20) * (1 << 30))
