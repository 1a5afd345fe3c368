"""ESC-50: its list, and the fifth of it that is ESC-10."""

import csv
from collections import defaultdict

from places import shared

from melpatch.datasets import esc50


def test_clips_have_the_fold_class_and_recording_of_the_list(tmp_path):
    esc50.fake(tmp_path)
    entries = esc50.clips(tmp_path, "50")
    assert entries[:2] == [
        ("audio/1-1001-A-0.wav", "dog", "1", 0.0, None, "1001", ""),
        ("audio/1-2001-B-47.wav", "airplane", "1", 0.0, None, "2001", ""),
    ]
    assert esc50.clips(tmp_path, "10") == entries[::2]


def test_labels_are_those_of_the_release():
    with shared("data/esc50/manifest.csv").open(encoding="utf-8", newline="") as file:
        assert esc50.CARD.labels == tuple(sorted({row["label"] for row in csv.DictReader(file)}))
    assert len(esc50.CARD.labels) == 50


def test_four_recordings_are_in_two_folds_with_two_classes():
    folds, classes = defaultdict(set), defaultdict(set)
    with shared("data/esc50/manifest.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            folds[row["source"]].add(row["split_or_fold"])
            classes[row["source"]].add(row["label"])
    assert [len(classes[source]) for source, found in folds.items() if len(found) > 1] == [
        2,
        2,
        2,
        2,
    ]
