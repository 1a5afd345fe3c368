"""``melpatch calibrate``: what a classifier learns on validation clips after its training."""

import numpy as np
import pytest
from journeys.three_sounds import (
    LABELS,
    SHORT,
    melpatch,
    read_table,
    settings,
    write_corpus,
    write_folder,
    write_run,
    write_table,
)

from melpatch.cli import main
from melpatch.inference.calibration import CALIBRATION
from melpatch.inference.model import load


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"), per_class=24)


@pytest.fixture
def classifier(tmp_path):
    return write_run(tmp_path / "classifier", settings(LABELS))


def told(capsys):
    return " ".join(capsys.readouterr().err.split())


def test_it_learns_what_finetune_learns(corpus, tmp_path):
    run = tmp_path / "run"
    words = ("--steps", "2", "--no-probe", *SHORT, "--thresholds", "f1")
    melpatch(
        "finetune", "--data", corpus, "--init", "scratch", "--size", "nano", "--out", run, *words
    )
    expected = load(run).calibration
    melpatch("calibrate", run, "--data", corpus, "--thresholds", "f1", "--overwrite")
    learnt = load(run).calibration
    assert (learnt.temperature, learnt.clips) == (expected.temperature, expected.clips)
    assert learnt.threshold_rule == "f1"
    np.testing.assert_array_equal(learnt.thresholds, expected.thresholds)
    np.testing.assert_array_equal(learnt.novelty.held_out, expected.novelty.held_out)


def test_a_calibration_is_replaced_only_on_request(corpus, classifier, capsys):
    melpatch("calibrate", classifier, "--data", corpus)
    before = (classifier / CALIBRATION).read_bytes()
    assert main(["calibrate", str(classifier), "--data", str(corpus)]) == 2
    assert f"{classifier / CALIBRATION}: exists; give --overwrite" in told(capsys)
    assert (classifier / CALIBRATION).read_bytes() == before


def test_without_splits_all_clips_calibrate_and_novelty_is_not_known(tmp_path, classifier, capsys):
    sounds = write_folder(tmp_path / "sounds", per_class=2)
    melpatch("calibrate", classifier, "--data", sounds)
    calibration = load(classifier).calibration
    assert (calibration.clips, calibration.novelty) == (6, None)
    words = told(capsys)
    assert "has no splits; all 6 clips calibrate" in words
    assert "no clips of split train" in words


def relabelled(corpus, path, names):
    """Write the corpus with other names of its classes; return the CSV and its validation rows."""
    rows = read_table(corpus)
    for row in rows:
        row["path"] = str(corpus.parent / row["path"])
        row["label"] = names.get(row["label"], row["label"])
    write_table(path, rows[0], [row.values() for row in rows])
    return path, [row for row in rows if row["split"] == "val"]


def test_clips_of_other_classes_are_left_out(corpus, classifier, tmp_path, capsys):
    table, val = relabelled(corpus, tmp_path / "other.csv", {"noise": "wind"})
    melpatch("calibrate", classifier, "--data", table)
    known = [row for row in val if row["label"] != "wind"]
    assert load(classifier).calibration.clips == len(known)
    assert f"{len(val) - len(known)} of {len(val)} clips are left out" in told(capsys)


def test_clips_of_no_class_are_refused(corpus, classifier, tmp_path, capsys):
    table, _ = relabelled(corpus, tmp_path / "other.csv", dict.fromkeys(LABELS, "wind"))
    assert main(["calibrate", str(classifier), "--data", str(table)]) == 2
    error = told(capsys)
    assert "labels such as 'wind'; the classes are: high, low, noise" in error
    assert not (classifier / CALIBRATION).exists()


def test_clips_that_it_was_trained_on_are_told(corpus, tmp_path, capsys):
    run = tmp_path / "run"
    words = ("--steps", "2", "--no-probe", *SHORT)
    melpatch(
        "finetune", "--data", corpus, "--init", "scratch", "--size", "nano", "--out", run, *words
    )
    capsys.readouterr()
    melpatch("calibrate", run, "--data", corpus, "--val-fold", "train", "--overwrite")
    trained = sum(row["split"] == "train" for row in read_table(corpus))
    assert f"was trained on {trained} of the {trained} clips" in told(capsys)


@pytest.mark.parametrize("flag", ["--val-fold", "--train-fold"])
def test_a_split_that_does_not_exist_names_the_flag(flag, corpus, classifier, capsys):
    words = ["calibrate", str(classifier), "--data", str(corpus), flag, "dawn"]
    assert main(words) == 2
    error = told(capsys)
    assert "no split 'dawn'; there are: test (24 clips), train (36 clips), val (12 clips)" in error
    assert error.endswith(f"; name another with {flag}")


def test_an_encoder_has_nothing_to_calibrate(corpus, tmp_path, capsys):
    encoder = write_run(tmp_path / "encoder", settings())
    assert main(["calibrate", str(encoder), "--data", str(corpus)]) == 2
    assert "fine-tune it first" in told(capsys)
