"""Speech Commands: the release's rule of splits, the twelve classes, and silence cut from noise."""

import csv
import hashlib
import shutil
from collections import Counter
from fractions import Fraction

import pytest
from places import shared

from melpatch.datasets import speech_commands
from melpatch.datasets.base import write_noises
from melpatch.errors import DataError


def slow_split(speaker):
    """The rule as the release states it, in fractions: a percentage of 2^27 - 1, from the digest's digits."""
    number = 0
    for digit in hashlib.sha1(speaker.encode()).hexdigest():
        number = 16 * number + "0123456789abcdef".index(digit)
    percentage = Fraction(100 * (number % 2**27), 2**27 - 1)
    return "val" if percentage < 10 else "test" if percentage < 20 else "train"


def test_the_split_rule_is_that_of_the_release():
    speakers = [f"{number:08x}" for number in range(3000)]
    assert [speech_commands.split_of(name) for name in speakers] == [
        slow_split(name) for name in speakers
    ]
    shares = Counter(map(speech_commands.split_of, speakers))
    assert all(
        abs(shares[split] / 3000 - share) < 0.03
        for split, share in [("train", 0.8), ("val", 0.1), ("test", 0.1)]
    )


def test_the_split_rule_gives_the_official_sets():
    official = {"training": "train", "validation": "val", "testing": "test"}
    with shared("data/speech_commands_9/manifest.csv").open(encoding="utf-8", newline="") as file:
        known = {row["speaker"]: official[row["official_set"]] for row in csv.DictReader(file)}
    assert len(known) == 478
    assert {speaker: speech_commands.split_of(speaker) for speaker in known} == known


@pytest.fixture
def root(tmp_path):
    speech_commands.fake(tmp_path)
    return tmp_path


def test_version_2_splits_by_its_lists(root):
    entries = {
        entry.path.partition("/")[2]: entry for entry in speech_commands.clips(root, "v2-35")
    }
    assert len(entries) == 12
    for name, split in [
        ("cat/00000000", "val"),
        ("up/00000002", "test"),
        ("yes/00000001", "train"),
    ]:
        entry = entries[f"{name}_nohash_0.wav"]
        assert (entry.label, entry.group, entry.split) == (*name.split("/"), split)


def test_version_1_has_ten_words_and_the_rest_is_unknown(root):
    entries = [
        entry for entry in speech_commands.clips(root, "v1-12") if entry.label != "_silence_"
    ]
    expected = {
        (
            f"speech_commands_v0.01/{word}/{speaker}_nohash_0.wav",
            "_unknown_" if word == "cat" else word,
            split,
            speaker,
        )
        for word in ("cat", "up", "yes")
        for speaker, split in [("00000000", "val"), ("00000001", "train"), ("00000003", "train")]
    } | {
        ("speech_commands_test_set_v0.01/yes/00000002_nohash_1.wav", "yes", "test", "00000002"),
        ("speech_commands_test_set_v0.01/_unknown_/1.wav", "_unknown_", "test", ""),
    }
    assert {(entry.path, entry.label, entry.split, entry.group) for entry in entries} == expected


def test_silence_is_every_whole_second_of_the_noise_the_last_tenth_for_validation(root):
    write_noises(root, ["speech_commands_v0.01/_background_noise_/running_tap.wav"], seconds=21.9)
    cuts = [entry for entry in speech_commands.clips(root, "v1-12") if "running_tap" in entry.path]
    assert [(cut.start, cut.duration) for cut in cuts] == [(second, 1.0) for second in range(21)]
    assert [cut.split for cut in cuts] == ["train"] * 18 + ["val"] * 3
    assert {(cut.label, cut.group) for cut in cuts} == {("_silence_", "")}


def test_a_missing_noise_file_is_listed_as_missing(root):
    (root / "speech_commands_v0.01/_background_noise_/pink_noise.wav").unlink()
    _, missing = speech_commands.CARD.look_up(root, "v1-12")
    assert [row.path.name for row in missing] == ["pink_noise.wav"]


@pytest.mark.parametrize("part", ["speech_commands_v0.01", "speech_commands_test_set_v0.01"])
def test_a_missing_part_says_what_to_fetch(root, part):
    shutil.rmtree(root / part)
    with pytest.raises(
        DataError, match=rf"{part}: cannot be read \(No such file or directory\); fetch http"
    ):
        speech_commands.CARD.look_up(root, "v1-12")
