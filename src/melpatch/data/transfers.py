"""Transfers that go on where they broke off, say what they wait for, and give up in a stated time.

A store that is away fails one transfer after all its retries. For half a minute after that, every
other transfer from it fails at once: a corpus has more clips than anybody has patience.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from melpatch.data.bounded import BoundedTransfer, TooLargeError
from melpatch.errors import MelpatchError, UnreachableError
from melpatch.opening import read_text
from melpatch.progress import notice

# Seconds for which a store that did not answer is not asked again.
_AWAY_SECONDS = 30.0
# Seconds between reports of a transfer, or of a wait for another process.
_REPORT_SECONDS = 30.0
# Seconds that the transfers of other processes that are waited for may stand still.
_ROOM_SECONDS = 300.0
_HOLDER_BYTES = 1000  # of a file that names a process
# Bytes that are asked for at a time when a transfer continues.
_PIECE = 1 << 20
# Seconds that a web server may take to accept a connection, and to send its next bytes. The time
# of a whole transfer is not limited, because it depends on the size.
_CONNECT_SECONDS = 30.0
_READ_SECONDS = 60.0
_BEYOND_END = 416  # the status in answer to a range that begins behind the end of a file

# Stores that are away, and files that are damaged there: until when they are not asked for again,
# and why.
_away: dict[str, tuple[float, UnreachableError]] = {}


class WrongContentError(OSError):
    """A store answered, but with something else than it should."""


def store_of(url: str) -> str:
    """Return the part of a URL that names the server or bucket."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def require_present(url: str) -> None:
    """Raise the error of the last transfer of a URL or its store, if that was a moment ago."""
    for key in (url, store_of(url)):
        until, error = _away.get(key, (0.0, None))
        if error is not None and time.monotonic() < until:
            raise UnreachableError(url, error.reason, error.fix)


def note_away(url: str, error: UnreachableError, cause: Exception) -> None:
    """Remember for half a minute that a store cannot be reached, or what it has is damaged."""
    key = url if isinstance(cause, WrongContentError) else store_of(url)
    _away[key] = (time.monotonic() + _AWAY_SECONDS, error)


def forget_stores() -> None:
    """Ask all stores again."""
    _away.clear()


def client_settings(url: str) -> dict[str, Any]:
    """Return fsspec's settings for a URL: web servers may take as long as they send bytes."""
    if not url.startswith(("http:", "https:")):
        return {}
    # Imported only here: it is an extra, whose absence fsspec reports.
    import aiohttp

    patience = aiohttp.ClientTimeout(
        total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS
    )
    return {"client_kwargs": {"timeout": patience}}


def is_beyond_end(error: Exception) -> bool:
    """Return whether a web server answered that a file ends before a range of it."""
    return getattr(error, "status", None) == _BEYOND_END


def fetch_in_parts(
    system: Any, place: str, part: Path, size: int, whole: Callable[[], None]
) -> None:
    """Fetch a file, going on where it breaks off as long as each try brings more bytes.

    Args:
        system: fsspec's file system.
        place: the file there.
        part: where it is written; what an earlier try has fetched is kept.
        size: of the whole file, in bytes.
        whole: fetches the whole file.
    """
    while True:
        before = _size(part)
        try:
            continue_transfer(system, place, part, size, whole)
            return
        except MelpatchError:
            raise
        # Each store raises errors of its own.
        except Exception:
            if _size(part) <= before:
                raise


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def continue_transfer(
    system: Any, place: str, part: Path, size: int, whole: Callable[[], None]
) -> None:
    """Fetch what a file lacks, or all of it.

    Args:
        system: fsspec's file system.
        place: the file there.
        part: what has been fetched; an empty or missing file is fetched from its beginning.
        size: of the whole file, in bytes.
        whole: fetches the whole file.
    """
    received = _size(part)
    if not 0 < received < size:
        whole()
        return
    if place.startswith(("http:", "https:")):
        _continue_download(system, place, part, size, whole)
        return
    with part.open("ab") as file:
        while received < size:
            end = min(received + _PIECE, size)
            piece = system.cat_file(place, start=received, end=end)
            if len(piece) != end - received:
                break
            file.write(piece)
            received = end
    # A server that does not know ranges sends the file from its beginning.
    if received < size:
        whole()


def _continue_download(
    system: Any, url: str, part: Path, size: int, whole: Callable[[], None]
) -> None:
    """Fetch what a file lacks from a web server, which may send anything in answer to a range."""
    received = _size(part)
    try:
        with part.open("ab") as file:
            system.get_file(
                url,
                file,
                callback=BoundedTransfer(url, size - received),
                headers={"Range": f"bytes={received}-{size - 1}"},
            )
        if _size(part) == size:
            return
    except TooLargeError:
        pass
    # Each store raises errors of its own.
    except Exception as error:
        if not is_beyond_end(error):
            raise
    # A server that does not know ranges sends the file from its beginning.
    whole()


@contextmanager
def reported(url: str, part: Path, size: int) -> Iterator[None]:
    """Say every half minute how far a transfer into a file has come, while the body makes it."""
    ended = Event()

    def report() -> None:
        while not ended.wait(_REPORT_SECONDS):
            received = _size(part)
            notice(f"fetching {url}: {received / 2**20:.1f} of {size / 2**20:.1f} MiB")

    Thread(target=report, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


class RoomWait:
    """A wait for room in the cache, which the transfers of other processes take.

    It says every half minute what is waited for, and gives up once they stand still for minutes.

    Args:
        url: the file that is to be fetched.
        cache: the folder of the cache.
        limit: what the cache may take, in bytes.
    """

    def __init__(self, url: str, cache: Path, limit: int) -> None:
        self.url = url
        self.room = f"the {limit / 2**30:.3g} GiB of {cache}"
        self.received = -1
        self.advanced = time.monotonic()
        # Others that are nearly done need no notice.
        self.reported = self.advanced - _REPORT_SECONDS + 1.0

    def note(self, received: int) -> None:
        """Note that there is no room yet, and what the other transfers have received in all.

        Raises:
            UnreachableError: that has not changed for too long.
        """
        now = time.monotonic()
        if received != self.received:
            self.received = received
            self.advanced = now
        if now - self.advanced >= _ROOM_SECONDS:
            raise UnreachableError(
                self.url,
                f"finds no room: transfers of other processes reserve {self.room}, and have stood "
                f"still for {_ROOM_SECONDS:.0f} s",
                "end these processes, or raise MELPATCH_CACHE_GIB",
            )
        if now - self.reported >= _REPORT_SECONDS:
            self.reported = now
            notice(
                f"{self.url}: waiting for room, since transfers of other processes reserve "
                f"{self.room}; giving up once these stand still for {_ROOM_SECONDS:.0f} s"
            )


@contextmanager
def locked(path: Path, url: str) -> Iterator[None]:
    """Hold the lock of what is fetched from a URL in the body, once other processes have released it.

    It says every half minute who is waited for, and gives up once that process has fetched nothing
    for minutes.

    Args:
        path: the lock, which ends in ``.lock``; the names of parts of files begin as its own does.
        url: what is fetched.

    Raises:
        UnreachableError: the other process stands still.
    """
    lock = FileLock(path)
    holder = path.with_name(f"{path.name}.holder")
    received = -1
    advanced = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=_REPORT_SECONDS)
            break
        except Timeout:
            now = time.monotonic()
            before = received
            received = _received(path)
            if received != before:
                advanced = now
            who = _read(holder) or "another process"
            if now - advanced >= _ROOM_SECONDS:
                raise UnreachableError(
                    url,
                    f"is being fetched by {who}, which has stood still for {_ROOM_SECONDS:.0f} s",
                    f"end that process; if there is none, remove {path}",
                ) from None
            notice(
                f"{url}: waiting for {who}, which fetches it; giving up once that stands still "
                f"for {_ROOM_SECONDS:.0f} s"
            )
    try:
        # Others only read it in a message.
        with suppress(OSError):
            holder.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _received(lock: Path) -> int:
    """Return the bytes that the holder of a lock has fetched so far."""
    parts = lock.parent.glob(f"{escape(lock.name.removesuffix('.lock'))}*.part")
    return sum(map(_size, parts))


def _read(holder: Path) -> str:
    try:
        return read_text(holder, _HOLDER_BYTES)
    except (OSError, ValueError):
        return ""
