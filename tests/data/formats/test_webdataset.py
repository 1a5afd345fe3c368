"""WebDataset's archives of other tools: samples of a sound and what is known of it, read where they lie."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_shards import shards
from tiny_wav import RATE, wav

from melpatch.data.manifest import load_corpus, write_corpus
from melpatch.data.sound import decode
from melpatch.errors import DataError


def archive(path, members, form=tarfile.PAX_FORMAT):
    """Write pairs of names and contents as an archive, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as file:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            file.addfile(header, io.BytesIO(content))
    return path


def sample(number, **about):
    facts = {"speaker": f"s{number % 2}", "duration": 99.0, "key": str(number)} | about
    return [
        (f"{number:06}.json", json.dumps(facts).encode()),
        (f"{number:06}.wav", wav(number)),
        (f"{number:06}.cls", str(number % 3).encode()),
    ]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples_are_read_where_they_lie(tmp_path, capsys, form):
    long = f"{'deep/' * 30}é"
    members = [*sample(0), *sample(1), ("readme.md", b"x")]
    if form != tarfile.USTAR_FORMAT:
        members += [(f"{long}.flac", wav(2)), (f"{long}.txt", b"an owl")]
    path = archive(tmp_path / "train-000000.tar", members, form)
    corpus = load_corpus([path])
    for number, clip in enumerate(corpus.clips[:2]):
        assert (clip.labels, clip.group, clip.split) == ((str(number),), f"s{number}", "train")
        # The length is that of the sound, whatever the JSON says of the recording.
        assert clip.duration == 0.2
        expected, _ = soundfile.read(io.BytesIO(wav(number)), dtype="float32")
        np.testing.assert_array_equal(decode(clip, RATE), expected)
    assert "read as WebDataset" in capsys.readouterr().err
    if form != tarfile.USTAR_FORMAT:
        assert load_corpus([path], label_column="txt").labels == ("an owl",)


def test_a_folder_of_archives_has_splits_and_can_be_listed_once(tmp_path):
    folder = tmp_path / "set"
    archive(folder / "train-000000.tar", sample(0))
    archive(folder / "train-000001.tar", sample(1))
    archive(folder / "val" / "000000.tar", sample(0))
    corpus = load_corpus([folder])
    assert corpus.splits == {"train": 2, "val": 1}
    assert len({clip.key for clip in corpus.clips}) == 3
    write_corpus(corpus, folder / "list.csv")
    assert load_corpus([folder / "list.csv"]).clips == corpus.clips


def test_shards_of_melpatch_without_their_index_are_read_too(tmp_path):
    packed = shards(tmp_path)
    known = {clip.duration: clip.labels for clip in load_corpus([packed]).clips}
    for name in ("index.csv", "shards.json"):
        (packed / name).unlink()
    corpus = load_corpus([packed])
    assert {clip.duration: clip.labels for clip in corpus.clips} == known


def test_bad_samples_are_named_and_the_others_are_taken(tmp_path):
    members = [
        *sample(0),
        ("1.json", b"{broken"),
        ("1.wav", wav(1)),
        ("2.json", b"[3]"),
        ("2.wav", wav(2)),
        ("3.txt", b"no sound"),
        ("4.a.wav", wav(4)),
        ("4.b.wav", wav(5)),
        ("5.wav", b""),
        *sample(0),
        ("6.wav", b"RIFF, but no more"),
        ("7.json", b"[" * 200_000),
        ("7.wav", wav(7)),
    ]
    path = archive(tmp_path / "x.tar", members)
    corpus = load_corpus([path])
    assert len(corpus.clips) == 1
    reasons = [(bad.path, bad.reason) for bad in corpus.rejected]

    # The sound of the eighth sample, which only begins like one, is named by its place.
    lines = [place for place, _ in reasons[:-1]]
    assert lines == [f"{path}, sample {number}" for number in (2, 3, 4, 5, 6, 7, 9)]
    assert reasons[-1][0].startswith(f"{path}[")
    assert [reason[:40] for _, reason in reasons[:6]] == [
        "1.json is not JSON (Expecting property n"[:40],
        "2.json is not JSON (a list, not an objec"[:40],
        "sample '3' has no sound; a sample has on"[:40],
        "sample '4' has 4.a.wav, 4.b.wav; a sampl"[:40],
        "5.wav is empty (0 bytes)",
        "sample '000000' occurs again; keep one",
    ]


def test_archives_compressed_as_a_whole_are_refused(tmp_path):
    path = archive(tmp_path / "x.tar", sample(0))
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=r"compressed as a whole, .*; unpack it with gunzip"):
        load_corpus([tmp_path / "x.tar.gz"])


def test_links_and_devices_in_an_archive_are_no_sound(tmp_path):
    (tmp_path / "secret.wav").write_bytes(wav(1))
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE)):
            header = tarfile.TarInfo(f"{number}.wav")
            header.type = kind
            header.linkname = str(tmp_path / "secret.wav")
            file.addfile(header)
    with pytest.raises(DataError, match="lists no sound files"):
        load_corpus([tmp_path / "x.tar"])


def test_what_lies_before_the_damage_is_read(tmp_path):
    members = [pair for number in range(4) for pair in sample(number)]
    content = archive(tmp_path / "x.tar", members).read_bytes()
    broken = content.index(b"000002.json")
    (tmp_path / "x.tar").write_bytes(content[:broken] + b"\xff" * 600 + content[broken + 600 :])
    corpus = load_corpus([tmp_path / "x.tar"])
    assert len(corpus.clips) == 2
    assert "damaged (no header at byte" in corpus.rejected[0].reason
    (tmp_path / "x.tar").write_bytes(content[: content.index(b"000003.wav") + 2000])
    corpus = load_corpus([tmp_path / "x.tar"])
    assert len(corpus.clips) == 3
    assert "000003.wav is not whole" in corpus.rejected[0].reason


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_archive_never_gives_other_sound(tmp_path, data):
    members = [*sample(0), *sample(1)]
    content = bytearray(archive(tmp_path / "good.tar", members).read_bytes())
    good = {clip.crc32 for clip in load_corpus([tmp_path / "good.tar"]).clips}
    # Headers, which are where damage matters.
    starts = [content.index(name.encode()) for name, _ in members]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(starts)) + data.draw(st.integers(0, 511))
        content[place] = data.draw(st.integers(0, 255))
    (tmp_path / "bad.tar").write_bytes(content)
    try:
        clips = load_corpus([tmp_path / "bad.tar"]).clips
    except DataError:
        return
    assert {clip.crc32 for clip in clips} <= good
