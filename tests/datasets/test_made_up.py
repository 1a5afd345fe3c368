"""Folders of made-up corpora: whole or absent, never overwritten, the same for the same settings."""

import numpy as np
import pytest
import soundfile

from melpatch.datasets import made_up
from melpatch.datasets.base import Entry
from melpatch.errors import ConfigError, DataError

ENTRIES = [
    Entry("audio/000000.flac", "dog", "train"),
    Entry("audio/000001.flac", "dog;cat", "test"),
    Entry("audio/000002.flac", "", "pretrain"),
]


def wave(number):
    return np.random.default_rng(number).uniform(-0.5, 0.5, 800)


def make(root, *, settings=(1, 0.5), entries=ENTRIES, wave=wave):
    return made_up.make_corpus(root, settings, entries, wave)


def test_files_and_manifest_hold_what_was_asked(tmp_path):
    manifest = make(tmp_path / "deep" / "corpus")
    root = tmp_path / "deep" / "corpus"
    assert manifest == root / "corpus.csv"
    assert made_up.read_entries(root) == ENTRIES
    assert manifest.read_text().splitlines()[:2] == [
        "path,label,split",
        "audio/000000.flac,dog,train",
    ]
    for number, entry in enumerate(ENTRIES):
        samples, rate = soundfile.read(root / entry.path)
        assert rate == 16_000
        np.testing.assert_allclose(samples, wave(number), atol=2**-15)


def test_groups_have_a_column_if_there_are_any(tmp_path):
    entries = [entry._replace(group=f"g{number}") for number, entry in enumerate(ENTRIES)]
    manifest = make(tmp_path / "corpus", entries=entries)
    assert made_up.read_entries(tmp_path / "corpus") == entries
    assert manifest.read_text().startswith("path,label,split,group")


def test_a_complete_corpus_is_left_as_it_is(tmp_path):
    def never(number):
        raise AssertionError(number)

    make(tmp_path / "corpus")
    make(tmp_path / "corpus", wave=never)


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "corpus").mkdir()
    assert make(tmp_path / "corpus").exists()


def test_another_corpus_is_not_overwritten(tmp_path):
    make(tmp_path / "corpus")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match="name another folder"):
        make(tmp_path / "corpus", settings=(1, 0.6))
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("spoil", ["folder", "file", "lost clip", "lost manifest"])
def test_an_incomplete_corpus_is_rejected(tmp_path, spoil):
    root = tmp_path / "corpus"
    if spoil == "file":
        root.touch()
    elif spoil == "folder":
        root.mkdir()
        (root / "mine.txt").touch()
    else:
        make(root)
        lost = {"lost clip": ENTRIES[1].path, "lost manifest": "corpus.csv"}[spoil]
        (root / lost).unlink()
    with pytest.raises(DataError, match="corpus: is not the whole corpus"):
        make(root)


def test_an_interrupted_generation_leaves_nothing(tmp_path):
    def failing(number):
        if number == 2:
            raise KeyboardInterrupt
        return wave(number)

    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "corpus", wave=failing)
    assert list(tmp_path.iterdir()) == []


def test_the_slower_of_two_processes_uses_the_corpus_of_the_faster(tmp_path):
    root = tmp_path / "corpus"

    def overtaken(number):
        make(root)
        return wave(number) / 2

    assert make(root, wave=overtaken).exists()
    assert list(tmp_path.iterdir()) == [root]
    samples, _ = soundfile.read(root / ENTRIES[0].path)
    np.testing.assert_allclose(samples, wave(0), atol=2**-15)


def test_a_corpus_can_be_made_where_nothing_is(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    free = {name: made_up.is_free(tmp_path / name) for name in ("absent", "empty", "file", ".")}
    assert free == {"absent": True, "empty": True, "file": False, ".": False}


def test_of_ten_blocks_six_are_for_training_and_three_for_the_test():
    splits = [made_up.split_of(block) for block in range(20)]
    assert splits[:10] == splits[10:]
    assert {name: splits[:10].count(name) for name in splits} == {"train": 6, "test": 3, "val": 1}
    assert set(splits[:4]) == {"train", "val", "test"}


@pytest.mark.parametrize("counts", [(-1, 5, 0), (0, 0, 0), (5, -1, 0), (5, 5, -1)])
def test_numbers_out_of_range_are_rejected(counts):
    with pytest.raises(ConfigError, match="allowed: 0 or more"):
        made_up.check_counts(*counts)
