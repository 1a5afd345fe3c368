from pathlib import Path

import pytest

from melpatch.data.layouts import read_folder


def seen(*names):
    listing = read_folder(Path("set"), names)
    found = {row.name: (row.split, ";".join(row.labels)) for row in listing.rows}
    return [found[name] for name in names], " ".join(listing.remarks)


@pytest.mark.parametrize(
    ("names", "expected", "remark"),
    [
        (("dog/1", "cat/1"), [("", "dog"), ("", "cat")], ""),
        (
            ("train/dog/1", "Validation/dog/2", "test/cat/1"),
            [("train", "dog"), ("val", "dog"), ("test", "cat")],
            "read as splits (train, val, test), and the folders in them as 2 classes; "
            "split 'Validation' is read as val",
        ),
        (("train/1", "test/2"), [("train", ""), ("test", "")], "without classes"),
        (
            ("audio/dog/1", "audio/cat/1"),
            [("", "dog"), ("", "cat")],
            "the classes are the folders in audio/",
        ),
        (
            ("set/audio/train/dog/1", "set/audio/test/dog/2"),
            [("train", "dog"), ("test", "dog")],
            "read as splits",
        ),
        (("audio/fold1/a", "audio/fold2/b"), [("fold1", ""), ("fold2", "")], "splits"),
        (("train/dog/1", "train/cat/1"), [("train", "dog"), ("train", "cat")], "splits (train)"),
        # A class may be called train, or hold folders of its own.
        (("train/1", "car/1"), [("", "train"), ("", "car")], ""),
        (("wren/old/1",), [("", "wren")], ""),
        (("wren/old/1", "robin/new/1"), [("", "wren"), ("", "robin")], ""),
        (("1", "dog/2"), [("", ""), ("", "dog")], ""),
    ],
)
def test_usual_layouts_are_recognised_and_told(names, expected, remark):
    found, told = seen(*names)
    assert found == expected
    assert remark in told
    assert bool(told) == bool(remark)
