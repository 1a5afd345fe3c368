"""Transfers from stores that are slow, break off, or are away."""

import http.server
import os
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import fsspec
import pytest
from tiny_runs import settings, with_loader
from tiny_shards import RATE, empty_cache, shards

from melpatch.data import transfers
from melpatch.data.manifest import load_corpus
from melpatch.data.sound import decode
from melpatch.errors import DataError, UnreachableError
from melpatch.inference.corpus import infer_clips
from melpatch.training.config import build
from melpatch.training.loop import fit
from melpatch.training.run import Run


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Give each test an empty cache; transfers are tried again at once."""
    monkeypatch.setenv("MELPATCH_PROTOCOLS", "memory")
    yield empty_cache(tmp_path, monkeypatch, retry_after=(0.0, 0.0, 0.0))
    transfers.forget_stores()


@contextmanager
def flaky_server(folder, most_bytes, ranges):
    """Serve a folder; shards break off after some bytes. Yield URL and the requests, as started."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            """Print nothing."""

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = folder / self.path.strip("/")
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            asked = self.headers.get("Range", "")
            requests.append((self.path, asked))
            start, end = 0, len(content)
            if ranges and asked:
                first, last = asked.removeprefix("bytes=").split("-")
                start, end = int(first), int(last) + 1
            self.send_response(206 if ranges and asked else 200)
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            if self.command == "GET":
                most = most_bytes if path.suffix == ".tar" else len(content)
                self.wfile.write(content[start:end][:most])
                self.wfile.flush()
                self.close_connection = True

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


def test_a_transfer_that_breaks_off_continues_by_range(local, monkeypatch):
    monkeypatch.setattr(transfers, "_PIECE", 1000)
    corpus = load_corpus([local])
    size = max(path.stat().st_size for path in local.glob("*.tar"))
    with flaky_server(local, size // 3 + 1, ranges=True) as (url, requests):
        there = load_corpus([url])
        assert decode(there.clips[0], RATE).tobytes() == decode(corpus.clips[0], RATE).tobytes()
    asked = [range_ for path, range_ in requests if path.endswith(".tar") and range_]
    assert asked
    assert all(not range_.startswith("bytes=0-") for range_ in asked)


def test_a_server_without_ranges_sends_the_file_again(local):
    tries = []
    shard = SimpleNamespace(
        cat_file=lambda place, start, end: (local / place).read_bytes(),
    )
    place = "shard-000000.tar"
    size = (local / place).stat().st_size
    part = local.parent / "part"
    part.write_bytes(b"x" * 10)
    transfers.continue_transfer(shard, place, part, size, lambda: tries.append(1))
    assert tries == [1]


def test_a_web_server_may_take_as_long_as_it_sends_bytes():
    settings = transfers.client_settings("https://a.b/c")["client_kwargs"]["timeout"]
    assert settings.total is None
    assert settings.sock_read == 60
    assert transfers.client_settings("s3://a/b") == {}


@pytest.fixture
def away(local, tmp_path, monkeypatch):
    """Return a corpus in a store that goes away once its index is read, and the tries."""
    url = f"memory://{tmp_path.name}/shards"
    memory = fsspec.filesystem("memory")
    memory.put(str(local), url, recursive=True)
    corpus = load_corpus([url])
    tries = []

    def offline(*_, **__):
        tries.append(1)
        raise TimeoutError("no answer")

    monkeypatch.setattr(type(memory), "get_file", offline)
    monkeypatch.setattr(type(memory), "cat_file", offline)
    return corpus, tries


def test_a_store_that_is_away_is_waited_for_once_not_for_every_clip(away):
    corpus, tries = away
    for clip in corpus.clips:
        with pytest.raises(
            UnreachableError, match=r"cannot be fetched \(TimeoutError: no answer\)"
        ):
            decode(clip, RATE)
    assert len(tries) == 4
    transfers.forget_stores()
    with pytest.raises(UnreachableError):
        decode(corpus.clips[0], RATE)
    assert len(tries) == 8


def test_scores_are_not_made_without_the_clips_of_a_store_that_is_away(away):
    corpus, _ = away
    with pytest.raises(UnreachableError, match="no answer"):
        infer_clips(lambda batch: batch.wave[:, :1], corpus.clips, sample_rate=RATE, seconds=1.0)


@pytest.mark.parametrize("workers", [0, 1])
def test_in_training_no_clip_is_bad_because_its_store_is_away(away, tmp_path, workers):
    corpus, _ = away
    config = with_loader(settings(), workers=workers)
    run = Run.create(tmp_path / "run", config)
    with pytest.raises(DataError, match=r"no answer.*continue with --resume"):
        fit(build(config), corpus, run)
    assert not (tmp_path / "run" / "rejected.csv").exists()


@pytest.fixture
def held(tmp_path, monkeypatch):
    """A lock that another thread holds until the event is set, and what is told."""
    monkeypatch.setattr(transfers, "_REPORT_SECONDS", 0.01)
    path = tmp_path / "shard.tar.lock"
    released = threading.Event()
    holds = threading.Event()
    notices = []
    monkeypatch.setattr(transfers, "notice", notices.append)

    def hold():
        with transfers.locked(path, "x"):
            holds.set()
            released.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(10)
    yield path, released, notices
    released.set()
    thread.join()


def test_a_wait_for_another_process_is_told(held, monkeypatch):
    path, released, notices = held
    monkeypatch.setattr(transfers, "notice", lambda text: (notices.append(text), released.set()))
    with transfers.locked(path, "x"):
        pass
    assert notices[0].startswith(f"x: waiting for process {os.getpid()} on ")
    assert not path.with_name("shard.tar.lock.holder").exists()


def test_a_wait_for_a_process_that_stands_still_is_given_up(held, monkeypatch):
    path, _, notices = held
    monkeypatch.setattr(transfers, "_ROOM_SECONDS", 0.1)
    part = path.with_name("shard.tar.9.part")

    # While bytes arrive, the wait goes on.
    def receive(text):
        notices.append(text)
        if len(notices) <= 30:
            part.write_bytes(b"x" * len(notices))

    monkeypatch.setattr(transfers, "notice", receive)
    with (
        pytest.raises(UnreachableError, match=rf"process {os.getpid()} on .* stood still for 0 s"),
        transfers.locked(path, "x"),
    ):
        pass
    assert len(notices) >= 30
