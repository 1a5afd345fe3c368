"""What is packed comes out again: the same bytes every time, with any number of processes and after a crash, and for
other people's tar readers."""

import io
import json
import os
import tarfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import deadly
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_shards import RATE, content, packed, shards, write_sounds
from two_processes import fork_workers

from melpatch.audio.files import read
from melpatch.data import archive, packing, scan
from melpatch.data.archive import Packing
from melpatch.data.clip import Clip, clip_key, member_name
from melpatch.data.corpus import Corpus
from melpatch.data.manifest import load_corpus, read_rejected
from melpatch.data.packing import pack
from melpatch.data.shards import read_shard_set
from melpatch.data.sound import decode
from melpatch.errors import ConfigError, DataError

WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/;\0"),
    min_size=1,
    max_size=8,
)
LABELS = WORDS.map(str.strip).filter(bool)
CLIPS = st.lists(
    st.tuples(
        WORDS,
        st.integers(20, 6000),
        st.sampled_from([8000, 16_000, 44_100]),
        st.lists(LABELS, max_size=3, unique=True),
        LABELS | st.just(""),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


def corpus_of(folder: Path, described) -> Corpus:
    """Return a corpus of clips as described: name, samples, rate, labels, split, and whether it is a part of a file."""
    clips = []
    for number, (name, samples, rate, labels, split, part) in enumerate(described):
        path = folder / f"{number}.wav"
        wave = np.random.default_rng(samples).uniform(-0.4, 0.4, (samples, 1 + number % 2))
        soundfile.write(path, wave, rate)
        start, duration = (
            (samples // 3 / rate, samples / 2 / rate) if part else (0.0, samples / rate)
        )
        key = clip_key("made up", f"{number} {name}", start)
        clips.append(Clip(path, key, start, duration, tuple(labels), split, name.strip()))
    closed = tuple(sorted({label for clip in clips for label in clip.labels}))
    return Corpus("made up", tuple(clips), closed, any(len(clip.labels) > 1 for clip in clips))


@pytest.mark.parametrize("codec", ["flac", "pcm"])
@given(described=CLIPS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
def test_a_packed_corpus_is_read_back(tmp_path_factory, codec, described):
    folder = tmp_path_factory.mktemp("any")
    corpus = corpus_of(folder, described)
    names = [name for name, *_ in described]
    pack(corpus, names, folder / "shards", Packing(sample_rate=RATE, codec=codec, shard_mib=0.01))
    from_shards = load_corpus([folder / "shards"])
    assert (from_shards.labels, from_shards.multi_label, from_shards.rejected) == (
        corpus.labels,
        corpus.multi_label,
        (),
    )
    assert [clip.key for clip in from_shards.clips] == sorted(clip.key for clip in corpus.clips)
    before = {clip.key: (clip, name) for clip, name in zip(corpus.clips, names, strict=True)}
    for clip in from_shards.clips:
        was, name = before[clip.key]
        assert (clip.labels, clip.split, clip.group, clip.start) == (
            was.labels,
            was.split,
            was.group,
            0.0,
        )
        wave, slow = (
            decode(clip, RATE),
            read(was.path, start=was.start, duration=was.duration, sample_rate=RATE)[0],
        )
        assert np.abs(wave - slow).max() <= 0.5001 / 2**15
        assert len(wave) == len(slow)
        assert abs(clip.duration - len(wave) / RATE) < 1 / RATE
        with tarfile.open(clip.path) as archive:
            about = json.load(archive.extractfile(f"{member_name(clip.key)}.json"))
            assert (about["key"], about["path"], about["labels"]) == (
                clip.key,
                name,
                list(clip.labels),
            )


def test_standard_readers_open_the_archives(tmp_path):
    """Each sample is two neighbouring members of one stem, as WebDataset has it, and the index points at the first."""
    folder = shards(tmp_path)
    by_place = {(clip.path.name, clip.offset): clip for clip in load_corpus([folder]).clips}
    assert len({clip.path for clip in by_place.values()}) == 3
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path, errorlevel=2) as archive:
            members = archive.getmembers()
            for sound, text in zip(members[::2], members[1::2], strict=True):
                stem, ending = sound.name.split(".")
                clip = by_place.pop((path.name, sound.offset_data))
                assert (stem, ending, text.name) == (member_name(clip.key), "flac", f"{stem}.json")
                assert (sound.mtime, sound.uid, sound.uname, sound.size) == (0, 0, "", clip.size)
                wave, rate = soundfile.read(
                    io.BytesIO(archive.extractfile(sound).read()), dtype="float32"
                )
                assert rate == RATE
                assert np.array_equal(wave, decode(clip, RATE))
    assert not by_place


def test_the_bytes_do_not_depend_on_workers_or_listing(tmp_path, monkeypatch):
    fork_workers(packing, monkeypatch)
    corpus = load_corpus([write_sounds(tmp_path / "sounds")])
    turned = Corpus(corpus.name, corpus.clips[::-1], corpus.labels, corpus.multi_label)
    alone, with_workers = (
        packed(corpus, tmp_path / "one"),
        packed(corpus, tmp_path / "two", workers=2),
    )
    assert content(alone) == content(with_workers) == content(packed(turned, tmp_path / "listed"))
    assert sorted(content(alone)) == [
        "index.csv",
        *(f"shard-{n:06}.tar" for n in range(3)),
        "shards.json",
    ]


def test_durations_are_kept_if_they_mean_the_same_samples(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(44_100 // 3), 44_100)
    soundfile.write(tmp_path / "b.wav", np.zeros(4000), 8000)
    path = tmp_path / "list.csv"
    path.write_text("path,duration\na.wav,\nb.wav,2.5\n")
    before = load_corpus([path])
    after = {
        clip.key: clip.duration for clip in load_corpus([packed(before, tmp_path / "shards")]).clips
    }
    assert [after[clip.key] for clip in before.clips] == [
        before.clips[0].duration,
        0.5,
    ]  # there is no more of b


class Killed(BaseException):
    """What ends a process on the spot."""


def test_packing_continues_after_an_interruption(tmp_path, monkeypatch):
    corpus = load_corpus([write_sounds(tmp_path / "sounds")])
    whole = content(packed(corpus, tmp_path / "whole"))
    for moment in range(0, 10, 2):
        decoded, out = [], tmp_path / f"cut_{moment}"

        def until(clip, rate, decoded=decoded, moment=moment):
            if len(decoded) == moment:
                raise Killed
            decoded.append(clip.key)
            return decode(clip, rate)

        monkeypatch.setattr(archive, "decode", until)
        with pytest.raises(Killed):
            packed(corpus, out)
        with pytest.raises(
            DataError, match="packing was not completed; run the same melpatch pack again"
        ):
            load_corpus([out])
        first = {path.name for path in out.glob("*.tar")}
        again = []
        monkeypatch.setattr(
            archive,
            "decode",
            lambda clip, rate, again=again: again.append(clip.key) or decode(clip, rate),
        )
        packed(corpus, out)
        assert content(out) == whole
        kept = {clip.key for clip in load_corpus([out]).clips if clip.path.name in first}
        assert kept == {*decoded} - {*again}
        packed(corpus, out)  # nothing is left to do
        assert len(again) == 10 - len(kept)


def test_a_finished_shard_that_was_damaged_is_written_again(tmp_path, monkeypatch):
    corpus = load_corpus([write_sounds(tmp_path / "sounds")])
    whole, out = content(packed(corpus, tmp_path / "whole")), tmp_path / "out"
    for damage in (
        lambda tar, note: tar.write_bytes(tar.read_bytes()[:-1] + b"x"),
        lambda tar, note: tar.unlink(),
        lambda tar, note: note.write_text("{"),
        lambda tar, note: note.write_text("{}"),
    ):
        seen = []

        def stop(clip, rate, seen=seen):
            seen.append(clip)
            if len(seen) == 9:
                raise Killed
            return decode(clip, rate)

        monkeypatch.setattr(archive, "decode", stop)
        with pytest.raises(Killed):
            packed(corpus, out)
        damage(out / "shard-000001.tar", out / ".packing" / "shard-000001.json")
        monkeypatch.setattr(archive, "decode", decode)
        packed(corpus, out)
        assert content(out) == whole
        for path in out.iterdir():
            path.unlink()


def test_continuing_with_other_settings_or_clips_is_rejected(tmp_path, monkeypatch):
    sounds = write_sounds(tmp_path / "sounds")
    corpus, out = load_corpus([sounds]), tmp_path / "out"
    fewer = Corpus(corpus.name, corpus.clips[1:], corpus.labels, corpus.multi_label)

    def killed(clip, rate):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(archive, "decode", killed)
        with pytest.raises(Killed):
            packed(corpus, out)
    with pytest.raises(
        ConfigError, match=r"codec = 'pcm'; allowed: 'flac', with which .*out is packed in part"
    ):
        packed(corpus, out, codec="pcm")
    with pytest.raises(
        ConfigError,
        match=r"allowed: another folder, for here another corpus, or this one before it ch",
    ):
        packed(fewer, out)
    packed(corpus, out)
    for other, changes in [(fewer, {}), (corpus, {"sample_rate": 4000})]:
        with pytest.raises(
            ConfigError,
            match=r"allowed: another folder, for here are shards of other clips or sett",
        ):
            packed(other, out, **changes)
    assert len(load_corpus([out]).clips) == 10


def test_clips_that_cannot_be_stored_are_listed_and_the_others_are_packed(tmp_path):
    sounds = write_sounds(tmp_path / "sounds")
    soundfile.write(sounds / "loud.wav", np.full(800, 30.0), RATE, subtype="FLOAT")
    overshoot = np.zeros(800)
    overshoot[7] = 1.1
    soundfile.write(sounds / "over.wav", overshoot, RATE, subtype="FLOAT")
    (sounds / "text.wav").write_text("no sound")
    corpus = load_corpus([sounds])
    (sounds / "owl" / "001.wav").write_text("damaged since")
    about = read_shard_set(packed(corpus, tmp_path / "shards"))
    assert (about.clips, about.clipped, about.rejected) == (10, 1, 3)
    reasons = {
        Path(file.path).name: file.reason
        for file in read_rejected(tmp_path / "shards" / "rejected.csv")
    }
    assert reasons["loud.wav"] == "has 100% of its samples beyond full scale, up to 30"
    assert {
        name: reasons[name].split(" (")[0] for name in ("text.wav", "001.wav")
    } == dict.fromkeys(["text.wav", "001.wav"], "is not sound that libsndfile decodes")
    assert len(load_corpus([tmp_path / "shards"]).clips) == 10
    for path in sounds.rglob("*.wav"):
        path.write_text("all damaged")
    with pytest.raises(
        DataError, match=r"sounds: no clip can be read; the first, .*, is not sound"
    ):
        packed(corpus, tmp_path / "none")


@pytest.mark.parametrize("codec", ["flac", "pcm"])
def test_long_clips_are_packed_piece_by_piece(tmp_path, monkeypatch, codec):
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, 600 * RATE)
    soundfile.write(sounds / "a.wav", noise, RATE)
    soundfile.write(sounds / "b.wav", noise[: 10 * RATE], 2 * RATE)
    part = Clip(sounds / "a.wav", 7, 1.5, 20.25)
    corpus = load_corpus([sounds])
    corpus = replace(corpus, clips=(*corpus.clips, part))
    at_once = load_corpus([packed(corpus, tmp_path / "at once", codec=codec)])
    monkeypatch.setattr(archive, "_LONG", 0.7)
    tracemalloc.start()
    by_pieces = load_corpus([packed(corpus, tmp_path / "by pieces", codec=codec)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * noise.astype(np.float32).nbytes
    for clip, by_piece in zip(at_once.clips, by_pieces.clips, strict=True):
        assert (clip.key, clip.duration) == (by_piece.key, by_piece.duration)
        difference = np.abs(decode(clip, RATE) - decode(by_piece, RATE)).max()
        assert difference <= (
            1 / 2**15 if clip.duration == 5.0 else 0
        )  # what was resampled may be rounded otherwise


def test_a_clip_too_long_for_wav_is_reported(tmp_path):
    sounds = write_sounds(tmp_path / "sounds")
    corpus = load_corpus([sounds])
    endless = replace(corpus.clips[0], duration=2.0**31 / RATE)
    packed(replace(corpus, clips=(*corpus.clips[1:], endless)), tmp_path / "shards", codec="pcm")
    (rejected,) = read_rejected(tmp_path / "shards" / "rejected.csv")
    assert rejected.reason == "is longer than a WAV file can be"


def test_only_one_process_packs_into_a_folder(tmp_path, monkeypatch):
    corpus = load_corpus([write_sounds(tmp_path / "sounds")])

    def meanwhile(clip, rate):
        with pytest.raises(ConfigError, match="another process packs there; wait until it ends"):
            packed(corpus, tmp_path / "out")
        return decode(clip, rate)

    monkeypatch.setattr(archive, "decode", meanwhile)
    packed(corpus, tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    corpus = load_corpus([write_sounds(tmp_path / "sounds")])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written .*choose another place"):
        packed(corpus, tmp_path / "file" / "out")


@pytest.mark.parametrize("name", ["shard-000001.tar", "index.csv"])
@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])]
)
def test_an_incomplete_finished_folder_is_packed_again(tmp_path, capsys, name, damage):
    corpus = load_corpus([write_sounds(tmp_path / "sounds")])
    out = packed(corpus, tmp_path / "out")
    whole = content(out)
    damage(out / name)
    packed(corpus, out)
    assert content(out) == whole
    assert f"{out / name}: missing, or not as it was packed" in capsys.readouterr().err


def test_a_source_file_with_another_time_counts_as_changed(tmp_path):
    corpus = load_corpus([write_sounds(tmp_path / "sounds")])
    out = packed(corpus, tmp_path / "out")
    os.utime(corpus.clips[0].path, ns=(1, 1))
    with pytest.raises(ConfigError, match="here are shards of other clips"):
        packed(corpus, out)
    assert not (out / ".packing").exists()


def test_an_error_before_packing_leaves_no_files(tmp_path):
    corpus = load_corpus([write_sounds(tmp_path / "sounds")])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shards.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        packed(corpus, tmp_path / "out")
    assert [*content(tmp_path / "out")] == ["shards.json"]


def test_a_clip_that_kills_its_process_is_named_and_left_out(tmp_path, monkeypatch, capsys):
    sounds = write_sounds(tmp_path / "sounds")
    victim = sorted(sounds.rglob("*.wav"))[1]
    victim.rename(victim.with_name(f"killer-{victim.name}"))
    corpus = load_corpus([sounds])
    fork_workers(packing, monkeypatch)
    fork_workers(scan, monkeypatch)
    monkeypatch.setattr(packing, "_work", deadly.pack)
    about = read_shard_set(packed(corpus, tmp_path / "out", workers=2))
    assert about.rejected == 1
    assert about.clips == len(corpus.clips) - 1
    listed = (tmp_path / "out" / "rejected.csv").read_text()
    assert f"killer-{victim.name}" in listed
    assert "was killed" in listed
    assert "going on with one process" in capsys.readouterr().err
