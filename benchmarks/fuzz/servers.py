"""Hostile web servers: endless, slow, broken, lying or compressed answers, redirections and errors.

python benchmarks/fuzz/servers.py --seed 0 --count 200
"""

import gzip
import random
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tiny
from answers import check_answers
from driver import Case, main
from mutations import damaged
from web import Handler, Server, send_file, within_cache

Misdeed = Callable[[Handler, Path], None]


def prepare(folder: Path) -> dict[str, Any]:
    """Make shards and a run."""
    data = tiny.sounds(folder / "sounds", 6)
    shards = folder / "shards"
    words = ("--sample-rate", tiny.RATE, "--shard-mib", 0.02, "--workers", 0)
    tiny.melpatch("pack", data, "--out", shards, *words)
    return {"shards": shards, "run": tiny.pretrained(folder / "run", "ssast", data)}


def case(rng: random.Random, base: dict[str, Any], folder: Path) -> Case:
    """Let a server misbehave for one of the files, always or for a few requests, and use it."""
    shards = base["shards"]
    wanted = rng.choice(("shards.json", "index.csv", "shard-000000.tar", ""))
    name, misdeed = rng.choice(sorted(MISDEEDS.items()))
    times = rng.choice((1, 2, 10**9))
    seed = rng.random()
    asked = [0]

    def answer(handler: Handler) -> None:
        if handler.path.endswith(wanted):
            asked[0] += 1
            if asked[0] <= times:
                handler.rng = random.Random(f"{seed} {asked[0]}")  # type: ignore[attr-defined]
                misdeed(handler, shards)
                return
        send_file(handler, shards)

    server = Server(answer)
    run, alone = base["run"], ("--workers", 0)
    uses: tuple[tuple[Any, ...], ...] = (
        ("pack", "--check", server.url),
        ("stats", server.url),
        ("prepare", server.url, "--out", folder / "o.csv", *alone),
        ("embed", run, server.url, "--out", folder / "o.npz", *alone),
        ("pretrain", "ssast", "--data", server.url, "--out", folder / "o", *tiny.TRAIN),
        (
            "finetune",
            "--init",
            run,
            "--data",
            server.url,
            "--out",
            folder / "o",
            "--steps",
            1,
            *alone,
        ),
    )
    words = tuple(map(str, rng.choice(uses)))

    def after() -> None:
        check_answers(folder)
        within_cache(folder)

    shown = f"{words[0]}: {name} for {wanted or 'any file'}, {times if times < 9 else 'all'} times"
    return Case(shown, words=words, before=partial(server.start, folder), after=after)


def _content(handler: Handler, shards: Path) -> bytes:
    path = shards / Path(handler.path).name
    return path.read_bytes() if path.is_file() else b"x" * 1000


def _endless(handler: Handler, shards: Path) -> None:
    handler.send(_content(handler, shards), Content_Length="")
    while True:
        handler.wfile.write(bytes(1 << 20))


def _endless_chunks(handler: Handler, shards: Path) -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.send(b"", Content_Length="", Transfer_Encoding="chunked")
    while True:
        handler.wfile.write(b"100000\r\n" + bytes(1 << 20) + b"\r\n")


def _trickle(handler: Handler, shards: Path) -> None:
    content = _content(handler, shards)
    handler.send(b"", Content_Length=str(len(content)))
    for byte in content * 1000:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.3)


def _bomb(handler: Handler, shards: Path) -> None:
    handler.send(gzip.compress(bytes(256 << 20), 1), Content_Encoding="gzip")


def _endless_bomb(handler: Handler, shards: Path) -> None:
    handler.send(b"", Content_Length="", Content_Encoding="deflate")
    packer = zlib.compressobj(9)
    while True:
        handler.wfile.write(packer.compress(bytes(16 << 20)))


def _headers(handler: Handler, shards: Path) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        handler.wfile.write(b"X-Header: " + b"x" * 1000 + b"\r\n")


def _raw(text: bytes) -> Misdeed:
    return lambda handler, shards: handler.wfile.write(text) and None


def _status(status: int, **headers: str) -> Misdeed:
    return lambda handler, shards: handler.send(b"no" * 5000, status, **headers)


def _redirect(to: str) -> Misdeed:
    return lambda handler, shards: handler.send(b"", 302, Location=to.format(path=handler.path))


def _damaged(handler: Handler, shards: Path) -> None:
    content, _ = damaged(handler.rng, _content(handler, shards))  # type: ignore[attr-defined]
    handler.send(content)


def _longer(handler: Handler, shards: Path) -> None:
    content = _content(handler, shards)
    handler.send(content, Content_Length=str(len(content) + 1000))


def _shorter(handler: Handler, shards: Path) -> None:
    content = _content(handler, shards)
    handler.send(content, Content_Length=str(len(content) // 2))


def _half(handler: Handler, shards: Path) -> None:
    content = _content(handler, shards)
    handler.send(content[: len(content) // 2], Content_Length=str(len(content)))


def _wrong_range(handler: Handler, shards: Path) -> None:
    content = _content(handler, shards)
    handler.send(content[7:], 206, Content_Range=f"bytes 7-{10**12}/{10**13}")


MISDEEDS: dict[str, Misdeed] = {
    "endless": _endless,
    "endless chunks": _endless_chunks,
    "a trickle": _trickle,
    "a bomb": _bomb,
    "an endless bomb": _endless_bomb,
    "endless headers": _headers,
    "nothing": lambda handler, shards: time.sleep(1000),
    "no answer": _raw(b""),
    "no HTTP": _raw(b"\0\xff\r\n\r\n" * 100),
    "no status": _raw(b"HTTP/1.1 abc\r\n\r\n"),
    "a broken chunk": _raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\nx\r\n"),
    "a broken length": _raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nxx"),
    "a huge length": _status(200, Content_Length="9" * 30),
    "a false encoding": _status(200, Content_Encoding="gzip"),
    "an unknown encoding": _status(200, Content_Encoding="rot13"),
    "no content": _status(204, Content_Length=""),
    "forbidden": _status(403),
    "missing": _status(404),
    "gone": _status(410),
    "too many requests": _status(429, Retry_After="1000000"),
    "an error": _status(500),
    "unavailable": _status(503, Retry_After="-1"),
    "an unknown status": _status(799),
    "a page": _status(200, Content_Type="text/html"),
    "no range": _status(416),
    "a loop": _redirect("{path}"),
    "to a file": _redirect("file:///etc/passwd"),
    "to nowhere": _redirect("http://127.0.0.1:1{path}"),
    "to nothing": _redirect(""),
    "damage": _damaged,
    "a longer length": _longer,
    "a shorter length": _shorter,
    "a half": _half,
    "a wrong range": _wrong_range,
}
"""What servers do, by its name."""


if __name__ == "__main__":
    raise SystemExit(main(prepare, case))
