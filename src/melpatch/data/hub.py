"""Data sets on the Hugging Face Hub: their Parquet or tar files are fetched once, into the cache.

A folder of shards of ``melpatch pack`` there is a remote folder like any other. The server is not
trusted: names are plain, no file is larger than was listed, and all of them together fit into the
cache (``MELPATCH_CACHE_GIB``).
"""

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from melpatch.atomic import move_into_place
from melpatch.data import transfers
from melpatch.data.cache import CACHE_FOLDER, CACHE_LIMIT, cache_limit, cache_root
from melpatch.data.remote import filesystem, get_file, with_retries
from melpatch.data.shards import ABOUT, digest
from melpatch.errors import AudioError, DataError, shortened
from melpatch.progress import track

PROTOCOL = "hf://"
_ENDINGS = (".parquet", ".tar")
_FOLDER = "hub"
_MOST_FILES = 100_000
_PLAIN = re.compile(r"[^/\\\0-\x1f]+(/[^/\\\0-\x1f]+)*")


class HubFile(NamedTuple):
    """A file of a data set.

    Attributes:
        place: its path on the Hub.
        name: its path below the data set.
        size: in bytes.
        sha256: of its content; ``""`` if the Hub does not say.
        version: changes with its content.
    """

    place: str
    name: str
    size: int
    sha256: str
    version: str


def is_hub(url: str) -> bool:
    """Return whether a URL is one of the Hub."""
    return url.startswith(PROTOCOL)


@lru_cache
def fetched_dataset(url: str) -> Path | None:
    """Return the folder in the cache with the files of a data set; None if it is one of shards.

    Args:
        url: such as ``hf://datasets/OWNER/NAME``, also with a folder behind it.

    Raises:
        DataError: it does not exist, cannot be reached, holds nothing that can be read, or is
            larger than the cache may be.
    """
    url = url.rstrip("/")
    system, place = filesystem(url)
    try:
        listed = with_retries(lambda: system.find(place, detail=True), url)
        if f"{place}/{ABOUT}" in listed:
            return None
        files = _files(url, place, listed)
        version = "\0".join(f"{file.name} {file.size} {file.version}" for file in files)
        identity = hashlib.blake2b(f"{url}\0{version}".encode(), digest_size=8).hexdigest()
        name = re.sub(r"[^\w.-]+", "-", url.removeprefix(PROTOCOL))[-60:]
        folder = cache_root() / _FOLDER / f"{name}-{identity}"
        _require_room(url, files, folder)
        for file in track(files, len(files), "fetching", "files"):
            _fetch(system, url, file, folder)
    except AudioError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        problem = f"cannot be stored in {cache_root()} ({error.strerror})"
        raise DataError(f"{url}: {problem}; let {CACHE_FOLDER} name another folder") from error
    return folder


def _files(url: str, place: str, listed: dict[str, Any]) -> list[HubFile]:
    """Return the files of the first kind that a data set holds.

    Raises:
        DataError: there is none, or a name leads elsewhere.
    """
    for ending in _ENDINGS:
        names = sorted(name for name in listed if name.lower().endswith(ending))
        if names:
            break
    else:
        raise DataError(
            f"{url}: holds no Parquet and no tar file; name a folder that does, or the copy that the "
            f"Hub makes of many data sets, {url}@refs/convert/parquet"
        )
    if len(names) > _MOST_FILES:
        raise DataError(f"{url}: holds {len(names):,} files; name a folder of it")
    # A revision is resolved, so that the names may begin otherwise than the place does.
    root = place
    if not all(name.startswith(f"{root}/") for name in names):
        root = os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120
    return [_file(url, name, name.removeprefix(f"{root}/"), listed[name]) for name in names]


def _file(url: str, place: str, name: str, about: dict[str, Any]) -> HubFile:
    size = about.get("size")
    parts = PurePosixPath(name).parts
    if not _PLAIN.fullmatch(name) or ".." in parts or name.startswith("/"):
        raise DataError(f"{url}: lists a file {shortened(name)}, which is no plain name")
    if not isinstance(size, int) or size < 0:
        raise DataError(f"{url}: does not state the size of {name}; download it yourself")
    lfs = about.get("lfs") or {}
    sha256 = lfs.get("sha256", "") if isinstance(lfs, dict) else getattr(lfs, "sha256", "")
    return HubFile(place, name, size, sha256 or "", str(about.get("blob_id") or sha256))


def _require_room(url: str, files: list[HubFile], folder: Path) -> None:
    """Raise DataError if the cache would hold more than it may of data sets of the Hub."""
    others = [
        path
        for path in folder.parent.rglob("*")
        if path.is_file() and not path.is_relative_to(folder)
    ]
    taken = sum(path.stat().st_size for path in others)
    wanted = sum(file.size for file in files)
    if wanted + taken > cache_limit():
        gib = f"{wanted / 2**30:.1f} GiB"
        if taken:
            gib += f" beside the {taken / 2**30:.1f} GiB of others in {folder.parent}"
        raise DataError(
            f"{url}: takes {gib}, but the cache keeps {cache_limit() / 2**30:.1f} GiB; name a folder "
            f"of it, delete what you no longer use, or raise {CACHE_LIMIT}"
        )


def _fetch(system: Any, url: str, file: HubFile, folder: Path) -> None:
    """Fetch a file unless it is there; processes wait for each other."""
    path = folder / file.name
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = f"{url}/{file.name}"
    # Hidden, so that neither is taken for a file of the data set.
    part = path.with_name(f".{path.name}.part")
    lock = path.with_name(f".{path.name}.lock")

    def check() -> None:
        size = part.stat().st_size
        if size != file.size or (file.sha256 and digest(part) != file.sha256):
            raise transfers.WrongContentError(f"received {size} bytes other than were listed")

    with transfers.locked(lock, shown):
        # Another process may have fetched it while this one waited for the lock.
        if not path.exists():
            get_file(system, file.place, part, shown, file.size, check)
            move_into_place(part, path)
