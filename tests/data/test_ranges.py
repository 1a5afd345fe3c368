"""Single clips of remote shards: fetched by range, checked, kept, and bit-equal to whole shards."""

import http.server
import os
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import torch
from tiny_shards import RATE, empty_cache, packed, write_sounds

from melpatch.data import cache as cache_module
from melpatch.data import ranges, remote, transfers
from melpatch.data.cache import bytes_on_disk
from melpatch.data.loader import LoaderConfig, training_batches
from melpatch.data.manifest import load_corpus
from melpatch.data.ranges import shards_to_fetch_whole
from melpatch.data.sound import decode
from melpatch.errors import AudioError, UnreachableError
from melpatch.inference.corpus import infer_clips

CLIPS = 100


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Return a folder of one shard of a hundred clips."""
    folder = tmp_path_factory.mktemp("many")
    sounds = write_sounds(folder / "sounds", (0.3,) * CLIPS)
    return packed(load_corpus([sounds]), folder / "shards", codec="pcm", shard_mib=100.0)


@pytest.fixture(scope="module")
def local_set(tmp_path_factory):
    """Return a folder of five shards of twenty clips."""
    folder = tmp_path_factory.mktemp("five")
    sounds = write_sounds(folder / "sounds", (0.3,) * CLIPS)
    settings = {"codec": "pcm", "shard_mib": 20 * 0.3 * 2 * RATE / 2**20}
    return packed(load_corpus([sounds]), folder / "shards", **settings)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Give each test an empty cache; requests cost nothing, and are tried again at once."""
    monkeypatch.setattr(ranges, "_REQUEST", 0)
    monkeypatch.setenv("MELPATCH_PROTOCOLS", "memory")
    yield empty_cache(tmp_path, monkeypatch, retry_after=(0.0, 0.0, 0.0))
    transfers.forget_stores()


@contextmanager
def counting_server(folder, change=lambda content, start, end: content[start:end], ranges=True):
    """Serve a folder, and count.

    Args:
        folder: what is served.
        change: from a shard and the range that is asked for to the bytes that are sent.
        ranges: whether the server knows ranges.

    Yields:
        URL, and of each request of a shard its range ("" for all of it) and the bytes sent.
    """
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            """Print nothing."""

        def do_GET(self):
            content = (folder / self.path.strip("/")).read_bytes()
            asked = self.headers.get("Range", "") if ranges else ""
            start, end = 0, len(content)
            if asked:
                first, last = asked.removeprefix("bytes=").split("-")
                start, end = int(first), int(last) + 1
            if start >= len(content):
                self.send_error(416)
                return
            end = min(end, len(content))
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            sent = content[start:end]
            if self.path.endswith(".tar"):
                sent = change(content, start, end)
                requests.append((asked, len(sent)))
            # The client may have seen enough.
            with suppress(OSError):
                self.wfile.write(sent)
            self.close_connection = True

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


def waves(clips):
    return [decode(clip, RATE).tobytes() for clip in clips]


def files(cache):
    return sorted(path.name for path in cache.glob("*/shard-*") if path.suffix != ".lock")


def test_three_clips_of_a_hundred_are_fetched_alone_and_once(local, cache):
    chosen = [0, 41, 99]
    here = load_corpus([local]).clips
    with counting_server(local) as (url, requests):
        there = load_corpus([url]).clips
        clips = [there[number] for number in chosen]
        for _ in range(2):  # a second epoch fetches nothing
            assert waves(clips) == waves(here[number] for number in chosen)
    expected = [(f"bytes={c.offset}-{c.offset + c.size - 1}", c.size) for c in clips]
    assert requests == expected
    assert files(cache) == ["shard-000000.tar.ranges"]


def test_more_than_a_quarter_fetches_the_shard_whole(local, cache):
    size = (local / "shard-000000.tar").stat().st_size
    with counting_server(local) as (url, requests):
        there = load_corpus([url]).clips
        assert waves(there) == waves(load_corpus([local]).clips)
    *alone, whole = requests
    assert whole == ("", size)
    assert all(asked for asked, _ in alone)
    assert 0.1 * size < sum(sent for _, sent in alone) <= size / 4
    assert files(cache) == ["shard-000000.tar"]


def test_a_request_has_its_price(local, monkeypatch):
    size = (local / "shard-000000.tar").stat().st_size
    with counting_server(local) as (url, requests):
        there = load_corpus([url]).clips
        # Three requests at a sixteenth of the shard are cheap, the fourth is not, with the clips.
        monkeypatch.setattr(ranges, "_REQUEST", size // 16)
        assert (
            shards_to_fetch_whole(there[:3]) == shards_to_fetch_whole([*there[:3]]) == frozenset()
        )
        assert (
            len(shards_to_fetch_whole(there[:4])) == len(shards_to_fetch_whole([*there[:4]])) == 1
        )
        waves(there[:4])
    # A file system counts whole blocks, so that it may be fewer.
    assert [asked for asked, _ in requests].index("") in (2, 3)


def test_a_clip_in_a_file_system_without_holes_makes_the_next_fetch_the_shard(local, monkeypatch):
    monkeypatch.setattr(ranges, "bytes_on_disk", lambda file: file.exists() and 10**6)
    with counting_server(local) as (url, requests):
        there = load_corpus([url]).clips
        assert waves(there[:3]) == waves(load_corpus([local]).clips[:3])
    assert [asked != "" for asked, _ in requests] == [True, False]


def test_a_long_clip_fetches_its_shard(local, monkeypatch):
    monkeypatch.setattr(ranges, "_LONGEST", 100)
    with counting_server(local) as (url, requests):
        waves(load_corpus([url]).clips[:1])
    assert [asked for asked, _ in requests] == [""]


def test_a_server_without_ranges_sends_the_shard(local, cache):
    with counting_server(local, ranges=False) as (url, requests):
        there = load_corpus([url]).clips
        assert waves(there[:3]) == waves(load_corpus([local]).clips[:3])
    # The answer to the range is ended by its length, so only one was read.
    assert len(requests) == 2
    assert files(cache) == ["shard-000000.tar"]


def test_other_stores_are_read_by_range_too(local, tmp_path, cache):
    url = f"memory://{tmp_path.name}/shards"
    fsspec.filesystem("memory").put(str(local), url, recursive=True)
    assert waves(load_corpus([url]).clips[:3]) == waves(load_corpus([local]).clips[:3])
    assert files(cache) == ["shard-000000.tar.ranges"]


def test_a_damaged_clip_is_refused_and_the_others_are_not(local, cache):
    bad = load_corpus([local]).clips[7]

    def damage(content, start, end):
        data = bytearray(content)
        data[bad.offset + 60] ^= 4
        return bytes(data[start:end])

    with counting_server(local, damage) as (url, requests):
        there = load_corpus([url]).clips
        for _ in range(2):  # it is not kept
            with pytest.raises(AudioError, match=r"is damaged: the checksum of its \d+ bytes") as e:
                decode(there[7], RATE)
        assert str(e.value).startswith(f"{there[7].location}: ")
        assert "\n" not in str(e.value)
        assert not isinstance(e.value, UnreachableError)
        assert len(requests) == 4  # each time once more, in case the transfer damaged it
        waves([there[6], there[8]])
    assert files(cache) == ["shard-000000.tar.ranges"]


def test_a_clip_damaged_in_transfer_is_fetched_once_more(local):
    answers = iter([b"x"])

    def damage_once(content, start, end):
        first = next(answers, content[start : start + 1])
        return first + content[start + 1 : end]

    with counting_server(local, damage_once) as (url, requests):
        assert waves(load_corpus([url]).clips[:1]) == waves(load_corpus([local]).clips[:1])
    assert len(requests) == 2


def test_an_interrupted_transfer_leaves_nothing_and_is_tried_again(local, cache):
    lengths = iter([100, 0])

    def break_off(content, start, end):
        return content[start:end][: next(lengths, None)]

    with counting_server(local, break_off) as (url, requests):
        assert waves(load_corpus([url]).clips[:1]) == waves(load_corpus([local]).clips[:1])
    assert len(requests) == 3
    assert files(cache) == ["shard-000000.tar.ranges"]


def test_a_transfer_that_always_breaks_off_is_an_error_and_nothing_is_kept(local, cache):
    with (
        counting_server(local, lambda content, start, end: content[start : end - 1]) as (url, _),
        pytest.raises(UnreachableError, match=r"shard-000000\.tar: cannot be fetched \("),
    ):
        decode(load_corpus([url]).clips[0], RATE)
    assert files(cache) == []


@pytest.mark.parametrize("left", [0, 10, 3000])
def test_what_a_crash_left_in_the_cache_is_fetched_again(local, cache, left):
    with counting_server(local) as (url, requests):
        clip = load_corpus([url]).clips[3]
        before = waves([clip])
        (file,) = cache.glob("*/*.ranges")
        # The rest of the clip was not written.
        end = clip.offset + left
        with file.open("r+b") as torn:
            torn.seek(end)
            torn.write(bytes(clip.size - left))
        assert waves([clip]) == before == waves([clip])
        assert len(requests) == 2
        os.truncate(file, end)
        assert waves([clip]) == before
        assert len(requests) == 3


def test_the_cache_stays_within_its_limit_and_keeps_the_last_used(local_set, cache, monkeypatch):
    shards = sorted(local_set.glob("*.tar"))
    limit = max(shard.stat().st_size for shard in shards)
    monkeypatch.setenv("MELPATCH_CACHE_GIB", repr(limit / 2**30))
    taken = []
    with counting_server(local_set) as (url, requests):
        there = load_corpus([url]).clips
        by_shard = {}
        for clip in there:
            by_shard.setdefault(clip.path.name, []).append(clip)
        few = [clips[:3] for clips in by_shard.values()]
        assert len(few) == 5
        for _ in range(2):
            for clips in few:
                waves(clips)
                taken.append(sum(bytes_on_disk(file) for file in cache.glob("*/*.ranges")))
                time.sleep(0.01)  # the clock of a file system ticks slowly
        assert all(asked for asked, _ in requests)
        last = f"{few[-1][0].path.name}.ranges"
        assert last in files(cache)
        assert f"{few[-2][0].path.name}.ranges" in files(cache)
        # A whole shard makes room for itself.
        remote.fetch(few[0][0].url, few[0][0].path)
        assert files(cache) == [few[0][0].path.name]
    assert max(taken) <= limit
    assert max(taken) > limit / 4


def test_the_cache_is_counted_once_for_many_clips(local, local_set, cache, monkeypatch):
    counts = []

    def counted(root, needed, spare=0):
        counts.append(needed)
        return make_room(root, needed, spare)

    make_room = cache_module.make_room
    monkeypatch.setattr(cache_module, "make_room", counted)
    with counting_server(local) as (url, _):
        clips = load_corpus([url]).clips
        waves(clips[:12])
        assert len(counts) == 1
        (cache / ".taken").write_text("")  # torn by a crash
        waves(clips[12:14])
        assert len(counts) == 2
        taken = int((cache / ".taken").read_text())
        assert taken >= sum(bytes_on_disk(file) for file in cache.glob("*/*.ranges"))
    # What other transfers were given is counted, too.
    size = max(file.stat().st_size for file in local_set.glob("*.tar"))
    monkeypatch.setenv("MELPATCH_CACHE_GIB", repr((taken + size) / 2**30))
    with counting_server(local_set) as (url, _):
        first = load_corpus([url]).clips[0]
        remote.fetch(first.url, first.path)
        assert int((cache / ".taken").read_text()) > size
        assert len(files(cache)) == 2


def test_a_clip_is_read_but_not_kept_where_transfers_take_all_room(local, cache, monkeypatch):
    monkeypatch.setattr(ranges, "find_room", lambda root, needed: False)
    with counting_server(local) as (url, _):
        assert waves(load_corpus([url]).clips[:2]) == waves(load_corpus([local]).clips[:2])
    assert files(cache) == []


def test_a_cache_that_cannot_be_written_is_reported(local, cache, monkeypatch):
    def full(root, needed):
        raise OSError(28, "No space left on device")

    with counting_server(local) as (url, _):
        clip = load_corpus([url]).clips[0]
        monkeypatch.setattr(ranges, "find_room", full)
        with pytest.raises(UnreachableError, match=r"cannot be stored in .*No space left on dev"):
            decode(clip, RATE)


def test_a_store_that_is_away_is_one_line_and_not_asked_again(local, monkeypatch):
    with counting_server(local) as (url, _):
        there = load_corpus([url]).clips
        waves(there[:1])
    tries = []
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=tries.append))
    for clip in there[1:4]:
        with pytest.raises(UnreachableError, match=r"shard-000000\.tar: cannot be fetched") as e:
            decode(clip, RATE)
        assert "\n" not in str(e.value)
    assert len(tries) == 3  # those of the first clip
    waves(there[:1])  # which is in the cache


def test_a_truncated_shard_is_reported_as_when_it_is_fetched_whole(local, tmp_path):
    folder = tmp_path / "cut"
    folder.mkdir()
    for file in local.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "shard-000000.tar").write_bytes((local / "shard-000000.tar").read_bytes()[:20_000])
    with counting_server(folder) as (url, _):
        there = load_corpus([url]).clips
        waves(there[:1])
        with pytest.raises(AudioError, match=r"cannot be fetched \(received 20000 of \d+ bytes\)"):
            decode(there[-1], RATE)


def test_a_file_that_is_no_sound_is_reported_and_not_fetched_for_ever(local):
    with counting_server(local) as (url, requests):
        clip = load_corpus([url]).clips[0]
        tar = (local / "shard-000000.tar").read_bytes()
        other = replace(clip, offset=0, size=300, crc32=zlib.crc32(tar[:300]))
        with pytest.raises(AudioError, match=r"not a sound file|format|decode"):
            decode(other, RATE)
    assert len(requests) == 1


# ------------------------------------------------------------------------------- lists of clips


@pytest.mark.parametrize(
    "stated", [{"size": 0}, {"size": -4}, {"size": 1 << 40}, {"offset": -1}, {"offset": 1 << 40}]
)
def test_a_place_that_an_index_states_wrongly_is_not_asked_for(local, stated):
    with counting_server(local) as (url, requests):
        clip = load_corpus([url]).clips[0]
        asked = len(requests)
        assert ranges.fetched_alone(replace(clip, **stated)) is None
        assert len(requests) == asked


def test_of_a_list_only_shards_of_which_it_takes_a_quarter_are_fetched_whole(local_set):
    assert shards_to_fetch_whole(load_corpus([local_set]).clips) == frozenset()
    with counting_server(local_set) as (url, _):
        there = load_corpus([url]).clips
        every = {f"{url}/{path.name}" for path in local_set.glob("*.tar")}
        assert shards_to_fetch_whole(there) == shards_to_fetch_whole([*there]) == every
        first = there[0].url
        of_first = np.array([clip.url == first for clip in there])
        some = there.take(np.flatnonzero(of_first | (np.arange(CLIPS) % 10 == 0)))
        assert shards_to_fetch_whole(some) == shards_to_fetch_whole([*some]) == {first}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", [1, 12])
def test_a_training_is_the_same_from_whole_shards_and_from_clips(local, workers, step):
    config = LoaderConfig(batch_size=4, seconds=0.2, workers=workers, bucket_steps=1)

    def batches(source):
        corpus = load_corpus([source])
        corpus = replace(corpus, clips=corpus.clips[::step])
        return [*islice(training_batches(corpus, config, RATE, seed=0), 6)]

    with counting_server(local) as (url, requests):
        for here, there in zip(batches(local), batches(url), strict=True):
            assert not there.rejected
            assert torch.equal(here.batch.wave, there.batch.wave)
    assert len(requests) >= 1
    # All clips: the shard at once. Every twelfth: no shard.
    assert {asked != "" for asked, _ in requests} == {step > 1}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", [1, 12])
def test_inference_is_the_same_from_whole_shards_and_from_clips(local, workers, step):
    how = {"sample_rate": RATE, "seconds": 0.3, "batch_size": 4, "workers": workers}

    def rows(source):
        clips = load_corpus([source]).clips[::step]
        return infer_clips(lambda batch: batch.wave, clips, **how).rows

    with counting_server(local) as (url, requests):
        assert np.array_equal(rows(local), rows(url))
    assert {asked != "" for asked, _ in requests} == {step > 1}
