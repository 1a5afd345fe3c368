"""A web server for fuzzers, in a thread of the case's own process, and what it may leave on the disk."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

CACHE = "cache"
MOST_MIB = 96
"""What a case may leave in its cache; its limit is 32 MiB, and indices may take 64 more."""
Answer = Callable[["Handler"], None]


class Server:
    """A server whose address is known before it starts.

    Args:
        answer: answers a request for a path.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/shards"

    def start(self, folder: Path, patience: float = 1.0) -> None:
        """Serve in a thread, and let this process keep its cache in a folder and soon lose patience.

        Args:
            folder: the folder of the case.
            patience: seconds that a client waits for a connection or the next bytes.
        """
        from melpatch.data import bounded, remote, transfers

        os.chdir(folder)
        os.environ["MELPATCH_CACHE"] = str(folder / CACHE)
        os.environ["MELPATCH_CACHE_GIB"] = "0.03125"
        remote._RETRY_AFTER = (0.01, 0.02, 0.05)
        transfers._CONNECT_SECONDS = transfers._READ_SECONDS = patience
        bounded._SLOW_SECONDS = 5 * patience
        handler = type("Handler", (Handler,), {"answer": staticmethod(self.answer)})
        server = ThreadingHTTPServer(self._socket.getsockname(), handler, bind_and_activate=False)
        server.socket.close()
        server.socket = self._socket
        server.server_name, server.server_port = "127.0.0.1", self._socket.getsockname()[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD by a function."""

    answer: Answer

    def do_GET(self) -> None:
        """Answer; a client that goes away is no concern."""
        with contextlib.suppress(OSError, ValueError):
            type(self).answer(self)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *values: object) -> None:
        """Say nothing."""

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        """Send an answer with its length, unless a header says otherwise."""
        self.send_response(status)
        fields = {"Content_Length": str(len(content))} | headers
        for name, value in fields.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def serving(folder: Path) -> Server:
    """Return a server of the files of a folder, ranges included."""
    return Server(lambda handler: send_file(handler, folder))


def send_file(handler: Handler, folder: Path) -> None:
    """Answer with a file of a folder, or the range of it that is asked for."""
    path = folder / Path(unquote(handler.path)).name
    if not path.is_file():
        handler.send(b"", 404)
        return
    size = path.stat().st_size
    start, end = 0, size
    wanted = handler.headers.get("Range", "")
    if wanted.startswith("bytes="):
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or size) + 1, size)
    with path.open("rb") as file:
        file.seek(start)
        content = file.read(min(end - start, 1 << 26))
    handler.send(content, 206 if wanted else 200)


def within_cache(folder: Path) -> None:
    """Raise AssertionError if more is in the cache than its limit, or anything of a shard outside it."""
    cache = folder / CACHE
    files = [path for path in cache.rglob("*") if path.is_file()]
    mib = sum(path.stat().st_size for path in files) / 2**20
    assert mib < MOST_MIB, f"{mib:.0f} MiB in the cache"
    for place in (folder, folder.parent, Path("/tmp")):
        for name in ("evil", "evil.tar", "shard-999999.tar"):
            assert not (place / name).exists(), f"{name} in {place}"
