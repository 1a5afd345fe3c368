"""Folders of shards: they train like their files, and damage is reported in one line."""

import csv
import json
import shutil
from itertools import islice

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_shards import RATE, content, packed, shards, write_sounds

from melpatch.counted import agreeing
from melpatch.data.leaks import find_leaks
from melpatch.data.loader import ClipDataset, ClipDraw, LoaderConfig, training_batches
from melpatch.data.manifest import Corpus, Rejected, load_corpus, write_corpus
from melpatch.data.shards import read_shard_set
from melpatch.data.sound import decode
from melpatch.data.verify import damaged_shards
from melpatch.errors import AudioError, ConfigError, DataError, MelpatchError

ANY_DAMAGE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def folder(whole, tmp_path):
    """Return shards that may be damaged."""
    return shutil.copytree(whole, tmp_path / "copy")


def batches(corpus, workers=0):
    config = LoaderConfig(batch_size=4, seconds=0.3, workers=workers)
    return list(islice(training_batches(corpus, config, RATE, seed=3, with_labels=True), 8))


# ----------------------------------------------------------------------------------------------------------- as corpora


@pytest.mark.parametrize(("codec", "workers"), [("flac", 0), ("pcm", 2)])
def test_training_batches_from_shards_equal_those_from_files(tmp_path, codec, workers):
    """Same clips, same crops, same samples to the last bit."""
    files = load_corpus([write_sounds(tmp_path / "sounds")])
    from_shards = load_corpus([packed(files, tmp_path / "shards", codec=codec)])
    assert {clip.path.suffix for clip in from_shards.clips} == {".tar"}
    for loaded, other in zip(batches(files), batches(from_shards, workers), strict=True):
        assert torch.equal(loaded.batch.wave, other.batch.wave)
        assert torch.equal(loaded.batch.keys, other.batch.keys)
        assert torch.equal(loaded.batch.lengths, other.batch.lengths)
        assert torch.equal(loaded.batch.targets, other.batch.targets)


def test_a_users_csv_can_list_shards(folder, tmp_path):
    corpus = load_corpus([folder])
    write_corpus(corpus, tmp_path / "mine.csv")
    assert load_corpus([tmp_path / "mine.csv"]).clips == corpus.clips
    with (folder / "index.csv").open(newline="") as file:
        rows = [row | {"label": "bird"} for row in csv.DictReader(file)]
    with (folder / "mine.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert load_corpus([folder / "mine.csv"]).labels == ("bird",)


def test_shards_and_files_make_a_union(folder, tmp_path, capsys):
    more = write_sounds(tmp_path / "more", seconds=(0.1, 0.2))
    corpus = load_corpus([folder, more])
    assert (corpus.name, len(corpus.clips), corpus.labels) == ("copy+more", 12, ("owl", "wren"))
    assert load_corpus([folder, folder]).clips == load_corpus([folder]).clips
    assert " clips are listed twice, such as" in capsys.readouterr().err


def test_identical_clips_in_two_splits_are_found(tmp_path):
    sounds = write_sounds(tmp_path / "sounds")
    shutil.copy(sounds / "wren" / "000.wav", sounds / "copy.wav")
    lines = [
        f"{path.relative_to(sounds)},{'test' if path.stem == 'copy' else 'train'}"
        for path in sounds.rglob("*.wav")
    ]
    (sounds / "list.csv").write_text("\n".join(["path,split", *lines]))
    files = load_corpus([sounds / "list.csv"])
    (group,) = find_leaks(load_corpus([packed(files, tmp_path / "shards")]))
    assert {clip.key for clip in group} == {clip.key for clip in find_leaks(files)[0]}


# --------------------------------------------------------------------------------------------------------------- damage


def read_all(corpus: Corpus) -> list[Rejected]:
    """Read every clip as a training does, and return those that cannot be."""
    items = ClipDataset(corpus.clips, RATE, 10.0, 0)
    return [
        item
        for item in (items[ClipDraw(at, 0)] for at in range(len(items)))
        if isinstance(item, Rejected)
    ]


@given(shard=st.integers(0, 2), place=st.integers(0, 10**6), bit=st.integers(0, 7))
@ANY_DAMAGE
def test_any_flipped_bit_damages_at_most_one_clip_and_is_reported(
    whole, tmp_path_factory, shard, place, bit
):
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("flipped") / "copy")
    path = folder / f"shard-{shard:06}.tar"
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << bit
    path.write_bytes(data)
    corpus = load_corpus([folder])
    hit = [
        clip
        for clip in corpus.clips
        if clip.path == path and 0 <= place % len(data) - clip.offset < clip.size
    ]
    lost = read_all(corpus)
    assert [one.path for one in lost] == [clip.location for clip in hit]
    assert all(one.reason.startswith("is damaged: the checksum of its ") for one in lost)
    (printed,) = damaged_shards(str(folder))
    held = sum(clip.path == path for clip in corpus.clips)
    verb = agreeing(len(hit), "is", "are")
    assert (
        f"{path}: has other bytes than were packed; {len(hit)} of {held} clips {verb} damaged"
        in printed
    )


@given(shard=st.integers(0, 2), kept=st.integers(0, 10**6))
@ANY_DAMAGE
def test_a_truncated_shard_loses_the_clips_beyond_its_end(whole, tmp_path_factory, shard, kept):
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("cut") / "copy")
    path = folder / f"shard-{shard:06}.tar"
    data = path.read_bytes()
    path.write_bytes(data[: kept % len(data)])
    before, corpus = load_corpus([whole]), load_corpus([folder])
    beyond = [
        c for c in before.clips if c.path.name == path.name and c.offset + c.size > kept % len(data)
    ]
    assert {clip.key for clip in before.clips} - {clip.key for clip in corpus.clips} == {
        clip.key for clip in beyond
    }
    assert [one.path.partition("[")[2] for one in corpus.rejected] == [
        c.location.partition("[")[2] for c in beyond
    ]
    assert read_all(corpus) == []
    assert len([*damaged_shards(str(folder))]) == 1


def test_truncated_and_missing_shards_are_reported_once_with_the_fix(folder, capsys):
    first, second, third = sorted(folder.glob("*.tar"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:2000])
    corpus = load_corpus([folder])
    printed = capsys.readouterr().err.splitlines()
    assert [line.split("; ")[::2] for line in printed] == [
        [f"{first}: does not exist, or is empty", "copy it again, or pack it again"],
        [f"{second}: is truncated: only 2000 bytes are there", "copy it again, or pack it again"],
    ]
    assert {one.reason.split(":")[0] for one in corpus.rejected} == {
        "does not exist, or is empty",
        "is truncated",
    }
    assert len(corpus.rejected) + len(corpus.clips) == 10
    assert [
        line.rpartition("; ")[2].split(", such")[0] for line in damaged_shards(str(folder))
    ] == [
        f"{sum(str(first) in one.path for one in corpus.rejected)} clips are lost",
        "3 of 3 clips are damaged",
    ]
    for path in (second, third):
        path.unlink()
    with pytest.raises(
        DataError,
        match=r"none of its 10 files can be used; the first, .*000000\.tar\[.*, does not exi",
    ):
        load_corpus([folder])


def test_a_shard_deleted_during_training_loses_its_clips(folder):
    corpus = load_corpus([folder])
    (folder / "shard-000001.tar").unlink()
    assert {one.reason for one in read_all(corpus)} == {"does not exist"}


def edited(name, change):
    def edit(folder):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return edit


def about(**changes):
    return edited("shards.json", lambda data: json.dumps(json.loads(data) | changes).encode())


REFUSED = {
    "index cut": (
        edited("index.csv", lambda data: data[:-30]),
        r"index\.csv: does not match the checksum in shards\.json",
    ),
    "index edited": (
        edited("index.csv", lambda data: data.replace(b"owl", b"elk")),
        r"give a CSV file of another name",
    ),
    "index gone": (
        lambda folder: (folder / "index.csv").unlink(),
        r"index\.csv: cannot be read \(No such file",
    ),
    "about cut": (
        edited("shards.json", lambda data: data[:50]),
        r"shards\.json: damaged, or not of melpatch pack",
    ),
    "about no text": (
        edited("shards.json", lambda data: b"\xff\xfe"),
        r"shards\.json: damaged, or not of melpatch pack",
    ),
    "about a list": (
        edited("shards.json", lambda data: b"[]"),
        r"shards\.json: damaged, or not of melpatch pack",
    ),
    "about lacks": (
        edited("shards.json", lambda data: b'{"layout": 1}'),
        r"shards\.json: .*copy or fetch the folder",
    ),
    "layout": (
        about(layout=2),
        r"shards\.json: layout = 2; allowed: 1; update melpatch, or pack again",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_lists_that_are_damaged_or_of_other_shards_are_rejected(folder, case):
    damage, message = REFUSED[case]
    damage(folder)
    with pytest.raises(DataError, match=message) as caught:
        load_corpus([folder])
    assert "\n" not in str(caught.value)


ROWS = {
    "offset": ("-1,9,9,1", "offset = '-1'; allowed: as in the shard's index"),
    "size": ("0,x,9,1", "size = 'x'; allowed: as in the shard's index"),
    "checksum": ("0,9,4294967296,1", "crc32 = '4294967296'; allowed: as in"),
    "no size": (
        "512,,9,1",
        "a part of a shard, but without its size or duration; take the row from",
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_with_an_incomplete_byte_range_are_rejected(tmp_path, case):
    cells, message = ROWS[case]
    (tmp_path / "x.csv").write_text(f"path,offset,size,crc32,duration\na.tar,{cells}\n")
    with pytest.raises(DataError, match=f"x.csv, line 2: {message}"):
        load_corpus([tmp_path / "x.csv"])


def test_rows_with_a_wrong_byte_range_are_reported_when_they_are_read(folder):
    (clip, *_) = load_corpus([folder]).clips
    (folder / "x.csv").write_text(
        f"path,offset,size,crc32,duration\n{clip.path.name},700,{clip.size},{clip.crc32},1\n"
    )
    (moved,) = load_corpus([folder / "x.csv"]).clips
    with pytest.raises(
        AudioError, match=r"at byte 700\]: is damaged: the checksum of its .*; copy the file again"
    ):
        decode(moved, RATE)


def test_only_shards_are_checked_and_intact_ones_pass(whole, tmp_path):
    assert [*damaged_shards(str(whole))] == []
    assert read_shard_set(whole).size == sum(
        len(data) for name, data in content(whole).items() if name.endswith("tar")
    )
    with pytest.raises(
        ConfigError, match="allowed: with --check, folders that melpatch pack wrote, or their URLs"
    ):
        [*damaged_shards(str(tmp_path))]


@given(st.sampled_from(["index.csv", "shards.json"]), st.integers(0, 10**6), st.integers(0, 7))
@ANY_DAMAGE
def test_no_damage_to_a_list_causes_a_crash(whole, tmp_path_factory, name, place, bit):
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("lists") / "copy")
    data = bytearray((folder / name).read_bytes())
    data[place % len(data)] ^= 1 << bit
    (folder / name).write_bytes(data)
    printed = ""
    try:
        assert len(load_corpus([folder]).clips) == 10
    except MelpatchError as error:
        printed = str(error)
    assert "\n" not in printed
    assert printed or name == "shards.json"  # where a count may be wrong that nothing hangs on
