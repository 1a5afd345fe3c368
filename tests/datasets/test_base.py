"""The card's way to the clips: what lies there, what is missing, and lists that are not the release's."""

import os
from contextlib import suppress

import numpy as np
import pytest
import soundfile

from melpatch import registry
from melpatch.data.row import Row
from melpatch.datasets.base import Card, Entry, write_lines, write_noises
from melpatch.errors import DataError


def card(clips):
    about = dict.fromkeys(("name", "summary", "licence", "size", "metric", "download"), "x")
    return Card(
        **about | {"download": "fetch it"},
        splits=("train",),
        labels=(),
        clips=clips,
        fake=lambda root: None,
    )


def test_clips_become_rows_and_missing_ones_are_separate(tmp_path):
    write_noises(tmp_path, ["a/one.wav"])
    entries = [
        Entry("a/one.wav", "dog; cat", "train", 0.5, 1.0, "ann", "first"),
        Entry("a/two.wav", "dog", "train"),
        Entry("a/one.wav", "", "train"),
    ]
    present, missing = card(lambda root, subset: entries).look_up(tmp_path)
    path = tmp_path / "a" / "one.wav"
    assert present == [
        Row(path, "first", ("dog", "cat"), "train", 0.5, 1.0, None, "ann"),
        Row(path, "a/one.wav", (), "train"),
    ]
    assert missing == [Row(tmp_path / "a" / "two.wav", "a/two.wav", ("dog",), "train")]


def test_rows_have_absolute_paths(tmp_path, monkeypatch):
    write_noises(tmp_path, ["one.wav"])
    monkeypatch.chdir(tmp_path.parent)
    (row,), _ = card(lambda root, subset: [Entry("one.wav", "", "train")]).look_up(
        tmp_path.relative_to(tmp_path.parent)
    )
    assert row.path == tmp_path / "one.wav"


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (
            lambda root, subset: (root / "list.csv").read_text(),
            r"list\.csv: cannot be read \(No such file.*\); fetch it",
        ),
        (
            lambda root, subset: {}["fold"],
            r"its lists are not those of x \(KeyError: 'fold'\); fetch it",
        ),
        (
            lambda root, subset: [int("two")],
            r"its lists are not those of x \(ValueError: .*'two'\); fetch it",
        ),
        (lambda root, subset: [], "holds no list of clips, of x; fetch it"),
        (
            lambda root, subset: [Entry("a.wav", "", "")] * 1234,
            r"holds none of 1,234 clips, such as a\.wav, of x; fetch",
        ),
    ],
)
def test_a_folder_without_the_release_says_what_to_fetch(tmp_path, clips, message):
    with pytest.raises(DataError, match=message) as caught:
        card(clips).look_up(tmp_path)
    assert "\n" not in str(caught.value)


def test_noises_are_short_reproducible_and_different_for_each_path(tmp_path):
    for folder in ("here", "there"):
        write_noises(tmp_path / folder, ["a/x.wav", "b/x.flac"], seconds=0.25)
    waves = {
        path: soundfile.read(tmp_path / path)[0]
        for path in ("here/a/x.wav", "here/b/x.flac", "there/a/x.wav")
    }
    assert {len(wave) for wave in waves.values()} == {4000}
    np.testing.assert_array_equal(waves["here/a/x.wav"], waves["there/a/x.wav"])
    assert abs(waves["here/a/x.wav"] - waves["here/b/x.flac"]).max() > 0.1


def test_every_line_ends_with_a_newline(tmp_path):
    write_lines(tmp_path / "a" / "b.txt", "ä", "b")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "ä\nb\n".encode()


SOUNDS = (".wav", ".flac", ".mp3")


@pytest.mark.parametrize("name", [*registry.names("datasets")])
def test_lists_that_are_pipes_or_huge_are_not_read(name, tmp_path):
    release = registry.find("datasets", name)
    release.fake(tmp_path)
    lists = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix not in SOUNDS]
    for path in lists:
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        look_up_or_refuse(release, tmp_path)
        path.unlink()
        path.write_bytes(b"[" * 5000 + b"\0\xff,,\n" * 50)
        look_up_or_refuse(release, tmp_path)
        path.write_bytes(content)


def look_up_or_refuse(release, root):
    """Look a release up; it is a defect if that raises anything else, or waits."""
    with suppress(DataError):
        release.look_up(root)
