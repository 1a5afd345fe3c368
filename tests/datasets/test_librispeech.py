"""LibriSpeech: which parts train, and which may be absent."""

import shutil

import pytest

from melpatch.datasets import librispeech
from melpatch.errors import DataError


@pytest.fixture
def root(tmp_path):
    librispeech.fake(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("subset", "parts"), [("960", 3), ("100", 1)])
def test_a_subset_is_a_set_of_training_parts(root, subset, parts):
    train = [entry for entry in librispeech.clips(root, subset) if entry.split == "train"]
    assert len({entry.path.partition("/")[0] for entry in train}) == parts
    assert train[0] == ("train-clean-100/100/7/100-7-0000.flac", "", "train", 0.0, None, "100", "")


def test_validation_and_test_parts_may_be_missing_but_not_training_parts(root):
    for part in ("dev-clean", "test-other"):
        shutil.rmtree(root / part)
    assert [entry.split for entry in librispeech.clips(root, "100")] == ["train"] * 2 + [
        "val"
    ] * 2 + ["test"] * 2
    shutil.rmtree(root / "train-clean-360")
    with pytest.raises(
        DataError, match=r"train-clean-360: cannot be read .*; fetch train-clean-100"
    ):
        librispeech.CARD.look_up(root, "960")
    assert librispeech.CARD.look_up(root, "100")[1] == []
