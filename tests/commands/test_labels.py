"""``melpatch labels``: labels of other programs in and out."""

import pytest
from journeys.three_sounds import melpatch, write_sound

from melpatch.data.answers import Answer, question
from melpatch.data.manifest import load_corpus
from melpatch.search.label_file import open_labels


@pytest.fixture
def labels(tmp_path):
    """Labels of two recordings of the same name."""
    asked = [
        (write_sound(tmp_path / folder / "a.wav", seconds=3.0), start, label)
        for folder, start, label in (("x", 0.0, "wren"), ("x", 1.0, "robin"), ("y", 0.5, "wren"))
    ]
    with open_labels(tmp_path / "labels.csv") as file:
        file.add(
            [
                Answer(question(str(path), start, start + 1, label), "train", "ann", "", "yes")
                for path, start, label in asked
            ]
        )
    return tmp_path / "labels.csv"


def stretches(*sources):
    clips = load_corpus(sources).clips
    return sorted((str(clip.path), clip.start, clip.duration, clip.labels) for clip in clips)


def test_selection_tables_of_raven_come_back(labels, tmp_path):
    melpatch("labels", labels, "--to", "raven", "--out", tmp_path / "raven")
    tables = sorted((tmp_path / "raven").iterdir())
    assert [table.name for table in tables] == [
        "a 2.Table.1.selections.txt",
        "a.Table.1.selections.txt",
    ]
    assert stretches(*tables) == stretches(labels)
    melpatch("labels", *tables, "--out", tmp_path / "again.csv", "--who", "bo")
    assert stretches(tmp_path / "again.csv") == stretches(labels)


def test_label_tracks_of_audacity_come_back_beside_the_sound(labels, tmp_path):
    melpatch("labels", labels, "--to", "audacity", "--out", tmp_path / "out")
    (tmp_path / "out" / "a.txt").rename(tmp_path / "x" / "a.txt")
    x = [stretch for stretch in stretches(labels) if "/x/" in stretch[0]]
    assert stretches(tmp_path / "x" / "a.txt") == x


def test_what_is_there_is_not_added_twice(labels, tmp_path, capsys):
    melpatch("labels", labels, "--out", tmp_path / "all.csv")
    melpatch("labels", labels, "--out", tmp_path / "all.csv")
    assert "0 labels added" in capsys.readouterr().err.splitlines()[-1]
    assert len(stretches(tmp_path / "all.csv")) == 3


def test_a_recording_by_another_way_is_the_same(labels, tmp_path, capsys):
    around = tmp_path / "around.csv"
    around.write_text(
        labels.read_text().replace("/a.wav", "/../x/a.wav").replace("/y/../x/", "/y/")
    )
    assert "/x/../x/a.wav" in around.read_text()
    melpatch("labels", labels, "--out", tmp_path / "all.csv")
    melpatch("labels", around, "--out", tmp_path / "all.csv")
    assert "0 labels added" in capsys.readouterr().err.splitlines()[-1]
