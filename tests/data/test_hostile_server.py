"""What a list of clips and a server behind it cannot do: leak, leave the cache, or fill the disk."""

import contextlib
import hashlib
import http.server
import json
import re
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
from tiny_shards import empty_cache, shards

from melpatch.cli import main
from melpatch.data import bounded, remote, transfers
from melpatch.data.addresses import allowed_protocols
from melpatch.data.bounded import BoundedTransfer
from melpatch.data.manifest import load_corpus
from melpatch.data.sound import decode
from melpatch.errors import AudioError, ConfigError, DataError, UnreachableError

CHAINS = (
    "reference://set::{server}/refs.json/shard-000000.tar",
    "simplecache::{server}/shards/shard-000000.tar",
    "filecache://x::{server}/shards/shard-000000.tar",
    "zip://shard-000000.tar::{server}/shards.zip",
    "github://owner:repository@main/shard-000000.tar",
    "ftp://{host}/shards/shard-000000.tar",
    "memory://shards/shard-000000.tar",
    "dask://x/shard-000000.tar",
    "://shard-000000.tar",
    "HTTP://{host}/shards/shard-000000.tar",
    "http\t://{host}/shards/shard-000000.tar",
    "http://{host}/sha\trds/shard-000000.tar",
)
PLACES = (
    "/tmp/shard-000000.tar",
    "../../shard-000000.tar",
    "a/shard-000000.tar",
    "..",
    "shard-000000.tar/..",
    "shard-1.tar",
    "x.wav",
    ".ssh",
    "shard-000000.tar\\..\\x",
)


@pytest.fixture(scope="module")
def packed_shards(tmp_path_factory):
    return shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and the requests that no server has had yet."""
    return empty_cache(tmp_path, monkeypatch)


@contextmanager
def server(answers):
    """Serve bytes, or bytes without end where there is None, by path; yield the address and the requests."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            name = self.path.rpartition("/")[2]
            self.send_response(200 if name in answers else 404)
            content = answers.get(name, b"")
            if content is not None:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            try:
                self.wfile.write(content or b"")
                while content is None:
                    self.wfile.write(bytes(1 << 20))
            except OSError:
                pass

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{running.server_port}", asked
        running.shutdown()


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


def renamed(answers, name):
    """Return answers whose index names another place."""
    text = re.sub(r"shard-\d+\.tar", lambda _: name, answers["index.csv"].decode())
    index = text.encode()
    about = json.loads(answers["shards.json"]) | {"index": hashlib.sha256(index).hexdigest()}
    return answers | {"index.csv": index, "shards.json": json.dumps(about).encode()}


def taken(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("cell", CHAINS)
def test_a_list_opens_no_chain_and_no_other_protocol(cell, tmp_path, capsys):
    with server({}) as (host, asked):
        line = cell.format(server=f"http://{host}", host=host)
        (tmp_path / "evil.csv").write_text(f'path,duration,size\n"{line}",1,1\n')
        assert main(["prepare", str(tmp_path / "evil.csv"), "--out", str(tmp_path / "o.csv")]) == 2
        assert asked == []
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "not opened" in error or "'::'" in error or "control characters" in error


def test_the_user_adds_protocols(monkeypatch):
    assert "memory" not in allowed_protocols()
    monkeypatch.setenv("MELPATCH_PROTOCOLS", "memory, abfs")
    assert allowed_protocols()[-2:] == ("memory", "abfs")
    monkeypatch.setenv("MELPATCH_PROTOCOLS", "abfs://")
    with pytest.raises(ConfigError, match="names of protocols without ://"):
        allowed_protocols()


@pytest.mark.parametrize("name", PLACES)
def test_an_index_names_plain_shards_only(packed_shards, cache, name):
    answers = renamed(contents(packed_shards), name)
    with (
        server(answers) as (host, _),
        pytest.raises(DataError, match=r"allowed: shard-NUMBER\.tar, without a folder"),
    ):
        load_corpus([f"http://{host}/shards"])
    assert {path.name for path in cache.rglob("*") if path.is_file()} <= {
        "shards.json",
        "index.csv",
        ".lock",
    }


@pytest.mark.parametrize("name", PLACES)
def test_a_set_holds_plain_shards_only(packed_shards, cache, name):
    answers = contents(packed_shards)
    about = json.loads(answers["shards.json"])
    about["shards"][0]["name"] = name
    answers["shards.json"] = json.dumps(about).encode()
    with (
        server(answers) as (host, _),
        pytest.raises(DataError, match=r"allowed: shard-NUMBER\.tar"),
    ):
        load_corpus([f"http://{host}/shards"])
    assert taken(cache) == 0


@pytest.mark.parametrize("endless", ["shards.json", "index.csv", "shard-000000.tar"])
def test_no_answer_is_longer_than_stated(packed_shards, cache, endless, monkeypatch):
    monkeypatch.setattr(remote, "ABOUT_BYTES", 1 << 20)
    monkeypatch.setattr(remote, "_INDEX_BYTES", 1 << 20)
    largest = []
    count = bounded.BoundedTransfer.relative_update

    def counted(self, inc=1):
        largest.append(taken(cache))
        count(self, inc)

    monkeypatch.setattr(bounded.BoundedTransfer, "relative_update", counted)

    def read_all(host):
        for clip in load_corpus([f"http://{host}/shards"]).clips:
            decode(clip, 8000)

    with (
        server(contents(packed_shards) | {endless: None}) as (host, _),
        pytest.raises((AudioError, DataError), match=r"is larger than the .* bytes that it may"),
    ):
        read_all(host)
    # A transfer is counted after each block of 5 MiB.
    assert max(largest) < 16 << 20
    assert taken(cache) < 1 << 20


@pytest.mark.parametrize("ranged", [206, 200])
def test_a_transfer_that_goes_on_is_bounded_too(tmp_path, monkeypatch, ranged):
    monkeypatch.setattr(transfers, "_PIECE", 1 << 10)
    size = 1 << 20
    part = tmp_path / "shard.part"
    part.write_bytes(bytes(size // 2))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(ranged)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(1 << 20))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{running.server_port}/shard"
        system, place = fsspec.core.url_to_fs(url)
        whole = partial(system.get_file, place, str(part), callback=BoundedTransfer(url, size))
        with pytest.raises(AudioError, match="is larger than the 1,048,576 bytes"):
            transfers.fetch_in_parts(system, place, part, size, whole)
        running.shutdown()
    assert part.stat().st_size < 16 << 20


def test_all_indices_together_are_limited(packed_shards, monkeypatch):
    monkeypatch.setattr(remote, "_INDICES_BYTES", 2 * len(contents(packed_shards)["index.csv"]))
    monkeypatch.setattr(remote, "cache_limit", lambda: 0)
    monkeypatch.setattr(remote, "_require_room", lambda *_: None)
    with server(contents(packed_shards)) as (host, _):
        for number in range(2):
            load_corpus([f"http://{host}/{number}"])
        with pytest.raises(
            DataError, match=r"lists of clips in it take .* raise MELPATCH_CACHE_GIB"
        ):
            load_corpus([f"http://{host}/2"])


def test_a_server_that_sends_hardly_anything_is_given_up(monkeypatch):
    seconds = [0.0]
    monkeypatch.setattr(bounded, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    slow, fast = (
        BoundedTransfer("http://x/slow", 1 << 30),
        BoundedTransfer("http://x/fast", 1 << 30),
    )

    def send():
        for _ in range(1000):
            seconds[0] += 1.0
            fast.relative_update(2048)
            slow.relative_update(10)

    with pytest.raises(UnreachableError, match=r"slow: comes too slowly, fewer than 300 KiB in"):
        send()
    assert seconds[0] == 300.0
