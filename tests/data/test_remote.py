"""Remote shards: fetched once, bounded, shared by processes; errors name the URL."""

import functools
import http.server
import shutil
import threading
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest
import torch
from filelock import FileLock
from tiny_shards import RATE, empty_cache, packed, shards

from melpatch.atomic import file_state
from melpatch.cli import main
from melpatch.data import remote, sound, transfers
from melpatch.data.loader import LoaderConfig, training_batches
from melpatch.data.manifest import load_corpus, write_corpus
from melpatch.data.remote import fetch, mirror
from melpatch.data.shards import read_shard_set
from melpatch.data.sound import decode
from melpatch.data.verify import damaged_shards
from melpatch.errors import AudioError, ConfigError, DataError, UnreachableError
from melpatch.inference import windows


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return the folder of an empty cache; transfers are not tried again."""
    monkeypatch.setenv("MELPATCH_PROTOCOLS", "memory")
    return empty_cache(tmp_path, monkeypatch)


@pytest.fixture
def memory(local, tmp_path):
    """Return the URL of a copy of the shards in memory."""
    url = f"memory://{tmp_path.name}/shards"
    fsspec.filesystem("memory").put(str(local), url, recursive=True)
    return url


@pytest.fixture
def served(local, tmp_path):
    """Return the folder behind a web server, and its URL."""
    folder = shutil.copytree(local, tmp_path / "web" / "shards")
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/shards"
        server.shutdown()


def waves(corpus):
    return {clip.key: decode(clip, RATE).tobytes() for clip in corpus.clips}


def kept(cache):
    return sorted(path.name for path in cache.glob("*/*.tar"))


def limit(monkeypatch, byte_count):
    monkeypatch.setenv("MELPATCH_CACHE_GIB", repr(byte_count / 2**30))


def test_a_url_is_read_like_its_folder(local, memory, cache, tmp_path):
    here, there = load_corpus([local]), load_corpus([memory])
    assert [(c.key, c.duration, c.labels, c.split) for c in there.clips] == [
        (c.key, c.duration, c.labels, c.split) for c in here.clips
    ]
    assert kept(cache) == []  # nothing is fetched before it is wanted
    assert waves(there) == waves(here)
    assert kept(cache) == [f"shard-{number:06}.tar" for number in range(3)]
    assert there.clips[0].location.startswith(f"{memory}/shard-000000.tar[")
    write_corpus(there, tmp_path / "mine.csv")
    assert load_corpus([tmp_path / "mine.csv"]).clips == there.clips
    assert load_corpus([f"{memory}/"]).clips == there.clips


def test_a_local_url_needs_no_copy(local, cache):
    corpus = load_corpus([f"file://{local}"])
    assert corpus.clips == load_corpus([local]).clips
    assert not cache.exists()


def test_the_cache_stays_within_its_limit_and_keeps_the_last_used(
    local, memory, cache, monkeypatch
):
    sizes = [path.stat().st_size for path in sorted(local.glob("*.tar"))]
    limit(monkeypatch, sum(sizes) - 1)
    corpus = load_corpus([memory])
    firsts = {clip.path.name: clip for clip in reversed(corpus.clips)}
    a, b, c = (firsts[f"shard-{number:06}.tar"] for number in range(3))
    for clips, left in [([a, b, a, c], "02"), ([b], "12"), ([b, c], "12"), ([a], "02")]:
        for clip in clips:
            decode(clip, RATE)
            time.sleep(0.01)  # the clock of a file system ticks slowly
        assert kept(cache) == [f"shard-00000{number}.tar" for number in left]
    limit(monkeypatch, max(sizes))
    assert waves(corpus) == waves(load_corpus([local]))
    assert len(kept(cache)) == 1
    assert not [*cache.glob("*/*.part")]
    shutil.rmtree(cache)  # by somebody who needs the room
    assert waves(corpus) == waves(load_corpus([local]))
    limit(monkeypatch, 100)
    shutil.rmtree(cache)
    with pytest.raises(
        ConfigError,
        match=r"MELPATCH_CACHE_GIB = .*; allowed: at least the .* GiB of shard-00000\d.tar",
    ):
        waves(corpus)


def test_what_the_cache_did_not_fetch_is_not_deleted(local, memory, cache, monkeypatch):
    """The user may name a folder for it that holds other things."""
    (cache / "backup").mkdir(parents=True)
    (cache / "backup" / "photos.tar").write_bytes(bytes(1 << 20))
    (cache / "backup" / "shard-x.part").write_bytes(b"mine")
    shutil.copytree(local, cache / "my-shards")
    own = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    limit(monkeypatch, max(path.stat().st_size for path in local.glob("*.tar")))
    assert waves(load_corpus([memory])) == waves(load_corpus([local]))
    assert {path: path.read_bytes() for path in own} == own


def test_a_corpus_larger_than_the_cache_is_reported(memory, cache, monkeypatch, capsys):
    limit(monkeypatch, 50_000)
    load_corpus([memory])
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith(f"{memory}: holds ")
    assert "give --shards-at-once where you train, or raise MELPATCH_CACHE_GIB" in printed


@pytest.mark.parametrize("given", ["much", "0", "-1", "nan"])
def test_an_invalid_limit_is_rejected(memory, cache, monkeypatch, given):
    monkeypatch.setenv("MELPATCH_CACHE_GIB", given)
    with pytest.raises(
        ConfigError, match=f"MELPATCH_CACHE_GIB = '{given}'; allowed: gibibytes above 0"
    ):
        load_corpus([memory])


def test_shards_packed_again_at_the_same_url_are_fetched_again(memory, cache, tmp_path):
    waves(load_corpus([memory]))
    fetched = shards(tmp_path / "other", codec="pcm")
    fsspec.filesystem("memory").rm(memory, recursive=True)
    fsspec.filesystem("memory").put(str(fetched), memory, recursive=True)
    remote._mirror.cache_clear()  # as in a new process
    assert waves(load_corpus([memory])) == waves(load_corpus([fetched]))
    assert len(kept(cache)) == 6


def test_processes_share_a_cache_that_is_too_small_for_all_of_them(
    local, served, cache, monkeypatch
):
    """Two workers want other shards than each other all the time, and there is room for two at most."""
    sizes = sorted(path.stat().st_size for path in local.glob("*.tar"))
    limit(monkeypatch, sum(sizes[-2:]))
    config = LoaderConfig(batch_size=2, seconds=1.0, workers=2, bucket_steps=1)
    here, there = (
        islice(training_batches(load_corpus([s]), config, RATE, seed=0), 15)
        for s in (local, served[1])
    )
    for one, fetched in zip(here, there, strict=True):
        assert not fetched.rejected
        assert torch.equal(one.batch.wave, fetched.batch.wave)
        kept = [
            file_state(path) for path in cache.glob("*/*.tar")
        ]  # of which a worker may just have removed one
        assert sum(state[0] for state in kept if state) <= sum(sizes[-2:])


def test_files_of_a_killed_process_are_deleted(memory, cache, monkeypatch, local):
    sizes = [path.stat().st_size for path in sorted(local.glob("*.tar"))]
    limit(monkeypatch, sum(sizes))
    folder, url = mirror(memory)
    dead, alive = (
        folder / f"shard-000001.tar.{sizes[1]}.part",
        folder / f"shard-000002.tar.{sizes[2]}.part",
    )
    for part in (dead, alive):
        part.touch()
    own = folder / f"shard-000000.tar.{sizes[0]}.part"
    own.write_bytes(b"x")
    (folder / ".shards.json.part").touch()
    with FileLock(folder / "shard-000002.tar.lock"):
        fetch(f"{url}/shard-000000.tar", folder / "shard-000000.tar")
    assert [path.exists() for path in (own, dead, alive)] == [False, False, True]


def test_a_process_waits_for_the_room_of_another_transfer(memory, cache, monkeypatch, local):
    sizes = [path.stat().st_size for path in sorted(local.glob("*.tar"))]
    limit(monkeypatch, max(sizes))
    folder, url = mirror(memory)
    (folder / f"shard-000002.tar.{sizes[2]}.part").touch()
    lock = FileLock(folder / "shard-000002.tar.lock", thread_local=False)
    lock.acquire()
    waits = []

    def wait(seconds):
        # The other transfer ends during the third wait.
        waits.append(kept(cache))
        if len(waits) == 3:
            lock.release()

    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=wait))
    fetch(f"{url}/shard-000000.tar", folder / "shard-000000.tar")
    assert waits == [[], [], []]
    assert kept(cache) == ["shard-000000.tar"]


@pytest.fixture
def full_cache(memory, cache, monkeypatch, local):
    """The folder and URL of shards for which the transfer of another process leaves no room, and its part."""
    sizes = [path.stat().st_size for path in sorted(local.glob("*.tar"))]
    limit(monkeypatch, max(sizes))
    folder, url = mirror(memory)
    part = folder / f"shard-000002.tar.{sizes[2]}.part"
    part.touch()
    with FileLock(folder / "shard-000002.tar.lock", thread_local=False):
        yield folder, url, part


def clock(monkeypatch, at_sleep=lambda now: None):
    """Let an hour pass in no time: each sleep takes ten seconds."""
    seconds = [0.0]

    def sleep(_):
        seconds[0] += 10.0
        at_sleep(seconds[0])

    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(transfers, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    return seconds


def test_a_wait_for_room_says_so_and_ends(full_cache, monkeypatch, capsys):
    folder, url, _ = full_cache
    now = clock(monkeypatch)
    with pytest.raises(UnreachableError, match=r"shard-000000\.tar: finds no room: transfers of"):
        fetch(f"{url}/shard-000000.tar", folder / "shard-000000.tar")
    assert now[0] == transfers._ROOM_SECONDS
    notices = capsys.readouterr().err.splitlines()
    assert len(notices) == 10
    assert "waiting for room, since transfers of other processes reserve the" in notices[0]
    assert "giving up once these stand still for 300 s" in notices[0]


def test_a_wait_for_room_goes_on_while_the_other_transfer_does(full_cache, monkeypatch):
    folder, url, part = full_cache

    def receive(now):
        if now <= 1000.0:
            part.write_bytes(bytes(int(now)))

    now = clock(monkeypatch, receive)
    with pytest.raises(UnreachableError, match="finds no room"):
        fetch(f"{url}/shard-000000.tar", folder / "shard-000000.tar")
    assert now[0] == 1000.0 + transfers._ROOM_SECONDS


# --------------------------------------------------------------------------------------------------------------- damage


def test_missing_and_truncated_shards_are_left_out_if_the_store_lists_sizes(memory, cache, capsys):
    store = fsspec.filesystem("memory")
    store.rm(f"{memory}/shard-000000.tar")
    store.pipe(f"{memory}/shard-000001.tar", store.cat(f"{memory}/shard-000001.tar")[:2000])
    corpus = load_corpus([memory])
    assert {clip.path.name for clip in corpus.clips} == {"shard-000002.tar"}
    printed = capsys.readouterr().err
    assert (
        f"{memory}/shard-000000.tar: does not exist, or is empty; 4 clips in it are left out"
        in printed
    )
    assert f"{memory}/shard-000001.tar: is truncated: only 2000 bytes are there" in printed
    assert len([*damaged_shards(memory)]) == 2


def test_without_a_listing_clips_of_a_missing_shard_fail_when_they_are_read(served, cache):
    folder, url = served
    (folder / "shard-000000.tar").unlink()
    cut = folder / "shard-000001.tar"
    cut.write_bytes(cut.read_bytes()[:2000])
    clips = {clip.path.name: clip for clip in load_corpus([url]).clips}
    assert len(clips) == 3
    with pytest.raises(
        AudioError, match=rf"{url}/shard-000000\.tar: does not exist; check the URL"
    ):
        decode(clips["shard-000000.tar"], RATE)
    with pytest.raises(
        AudioError,
        match=r"/shard-000001\.tar: cannot be fetched \(received 2000 of \d+ bytes\)",
    ):
        decode(clips["shard-000001.tar"], RATE)
    decode(clips["shard-000002.tar"], RATE)
    assert kept(cache) == ["shard-000002.tar"]


def damaging(monkeypatch, name, times):
    """The first times that a file is fetched, a bit of it flips on the way; return the list of all fetches of it."""
    tries, whole = [], type(fsspec.filesystem("memory")).get_file

    def shaky(self, there, here, *arguments, **settings):
        whole(self, there, here, *arguments, **settings)
        if there.endswith(name):
            tries.append(there)
            if len(tries) <= times:
                data = bytearray(Path(here).read_bytes())
                data[600] ^= 4
                Path(here).write_bytes(data)

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", shaky)
    return tries


def test_a_shard_damaged_in_transfer_is_fetched_once_more(memory, cache, monkeypatch):
    tries, clip = damaging(monkeypatch, "shard-000000.tar", 1), load_corpus([memory]).clips[0]
    decode(clip, RATE)
    assert len(tries) == 2


def test_a_damaged_shard_is_reported_with_its_url_and_not_kept(memory, cache, monkeypatch):
    tries, clip = damaging(monkeypatch, "shard-000000.tar", 2), load_corpus([memory]).clips[0]
    with pytest.raises(
        AudioError,
        match=rf"^{memory}/shard-000000\.tar: is damaged: its checksum is not that in sh",
    ):
        decode(clip, RATE)
    assert (len(tries), kept(cache), [*cache.glob("*/*.part")]) == (2, [], [])
    decode(clip, RATE)  # it is well by now
    assert len(tries) == 3


def test_an_index_damaged_in_transfer_or_in_the_cache_is_fetched_again(memory, cache, monkeypatch):
    monkeypatch.setattr(remote, "_RETRY_AFTER", (0.0,))
    tries = damaging(monkeypatch, "index.csv", 3)
    with pytest.raises(
        DataError,
        match=rf"{memory}/index\.csv: cannot be fetched .*does not match the checksum in shards\.json",
    ):
        load_corpus([memory])
    transfers.forget_stores()
    whole = load_corpus([memory]).clips
    assert len(tries) == 4
    for spoil in (lambda path: path.write_text("x"), lambda path: path.unlink()):
        spoil(next(cache.glob("*/index.csv")))
        remote._mirror.cache_clear()  # as in a new process
        assert load_corpus([memory]).clips == whole
    next(cache.glob("*/shards.json")).write_text("{")
    remote._mirror.cache_clear()
    assert load_corpus([memory]).clips == whole
    assert len(tries) == 6


@pytest.mark.parametrize("start", [0.0, 0.1])
def test_a_shard_evicted_before_it_is_opened_is_fetched_again(memory, cache, monkeypatch, start):
    clip = max(load_corpus([memory]).clips, key=lambda clip: clip.duration)
    clip = replace(clip, start=start, duration=clip.duration - start)
    fetched = []

    def evicted(url, path):
        fetch(url, path)
        fetched.append(url)
        if len(fetched) % 2:
            path.unlink()  # by another process, which needs the room

    monkeypatch.setattr(sound, "fetch", evicted)
    *pieces, end = windows.read_windows([(0, clip)], windows.WindowSpec(0.2, 0.2, RATE))
    assert end.error is None
    assert torch.cat([piece.wave for piece in pieces]).tolist() == pytest.approx(
        decode(clip, RATE), abs=1e-6
    )


def test_prepare_says_that_clips_of_remote_shards_are_not_decoded(memory, cache, tmp_path, capsys):
    words = ["prepare", memory, "--workers", "0", "--out", str(tmp_path / "c.csv")]
    assert main(words) == 0
    told = capsys.readouterr()
    assert "the index of remote shards only" in told.out
    assert "10 clips of remote shards were not fetched and decoded" in " ".join(told.err.split())


def test_packing_stops_if_a_shard_is_unreachable(memory, cache, monkeypatch, tmp_path):
    corpus = load_corpus([memory])

    def offline(*_, **__):
        raise TimeoutError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(type(fsspec.filesystem("memory")), "get_file", offline)
        with pytest.raises(
            UnreachableError,
            match=r"shard-00000\d\.tar: cannot be fetched \(TimeoutError: no answer\)",
        ):
            packed(corpus, tmp_path / "again")
    transfers.forget_stores()
    packed(corpus, tmp_path / "again")
    assert read_shard_set(tmp_path / "again").rejected == 0


def test_a_transfer_that_breaks_begins_anew_where_the_server_knows_no_ranges(
    local, cache, monkeypatch
):
    monkeypatch.setattr(remote, "_RETRY_AFTER", (0.0, 0.0))
    asked = []

    class Breaking(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            """Say nothing."""

        def do_GET(self):
            content = (local / self.path.strip("/")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.path.endswith(".tar"):
                asked.append(self.path)
                if len(asked) == 1:
                    content = content[: int(0.7 * len(content))]
            self.wfile.write(content)
            self.close_connection = True

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        clip = load_corpus([f"http://127.0.0.1:{server.server_port}"]).clips[0]
        assert len(decode(clip, RATE))
        server.shutdown()
    assert len(asked) > 1


def test_failed_transfers_are_retried(memory, cache, monkeypatch):
    monkeypatch.setattr(remote, "_RETRY_AFTER", (0.0, 0.0))
    clip = load_corpus([memory]).clips[0]
    tries, whole = [], type(fsspec.filesystem("memory")).get_file

    def shaky(self, *arguments, **settings):
        tries.append(arguments)
        if len(tries) < 3:
            raise TimeoutError("no answer")
        return whole(self, *arguments, **settings)

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", shaky)
    decode(clip, RATE)
    assert len(tries) == 3


def test_a_cache_that_cannot_be_written_is_reported(memory, cache):
    cache.write_text("a file")
    with pytest.raises(
        DataError,
        match=rf"{memory}: cannot be stored in {cache} \(.*\); make room there, or let MELP",
    ):
        load_corpus([memory])
    cache.unlink()
    clip = load_corpus([memory]).clips[0]
    shutil.rmtree(cache)
    cache.write_text("a file")
    with pytest.raises(
        AudioError,
        match=rf"shard-000000\.tar: cannot be stored in {cache}/shards-\w+ \(.*; make room",
    ):
        decode(clip, RATE)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "memory://nowhere/shards",
            r"memory://nowhere/shards/shards\.json: does not exist; check the URL",
        ),
        (
            "http://127.0.0.1:9/shards",
            r"http://127\.0\.0\.1:9/shards/shards\.json: cannot be fetched \(",
        ),
        (
            "carrier://pigeon/shards",
            r"carrier://pigeon/shards: carrier:// is not opened; allowed: file, http, https, s3, .*MELPATCH_PROTOCOLS",
        ),
        ("file:///nowhere/shards", r"/shards\.json: cannot be read \(No such file or directory\)"),
    ],
)
def test_urls_without_shards_are_rejected(cache, url, message):
    with pytest.raises(DataError, match=message) as caught:
        load_corpus([url])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "extra"), [("s3://bucket/x", "s3"), ("gs://bucket/x", "gcs"), ("https://a.b/x", "http")]
)
def test_a_missing_library_is_named_with_its_install_command(cache, monkeypatch, url, extra):
    def missing(url, **settings):
        raise ImportError("Install it")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(
        DataError,
        match=rf"{url}: a library for .*:// is missing; pip install 'melpatch\[{extra}\]'",
    ):
        load_corpus([url])
