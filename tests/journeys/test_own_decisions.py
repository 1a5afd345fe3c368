"""A classifier is calibrated, scored and used: what the scores say of its labels is what predict then writes."""

import json

import numpy as np
import pytest
import soundfile
from journeys.three_sounds import (
    LABELS,
    melpatch,
    read_table,
    settings,
    write_corpus,
    write_run,
    write_table,
)

from melpatch.evaluation.intervals import wilson

ODD = 6


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A corpus whose test split has steps and silence that are called by a class, too."""
    root = tmp_path_factory.mktemp("sounds")
    rows = [(row["path"], row["label"], row["split"]) for row in read_table(write_corpus(root, 42))]
    for number in range(ODD):
        path = root / f"odd{number}.wav"
        soundfile.write(path, np.full(16000, 0.1 * (number % 3)), 16000)
        rows.append((path.name, LABELS[number % 2], "test"))
    return root, rows


def listed(sounds, *, multi_label):
    root, rows = sounds
    if multi_label:
        rows = [
            (path, label if label == "noise" else f"{label};tone", split)
            for path, label, split in rows
        ]
    return write_table(root / f"several-{multi_label}.csv", ("path", "label", "split"), rows)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("flags", [(), ("--threshold", "0.3", "--false-alarms", "0.2")])
def test_scores_and_answers_agree_clip_by_clip(sounds, tmp_path, multi_label, flags, capsys):
    corpus = listed(sounds, multi_label=multi_label)
    labels = (*LABELS, "tone") if multi_label else LABELS
    run = write_run(tmp_path / "run", settings(labels, multi_label=multi_label))
    melpatch("calibrate", run, "--data", corpus, "--thresholds", "f1")
    out = tmp_path / "scores"
    words = ("--data", corpus, "--out", out, "--no-floors", "--no-pictures", *flags)
    capsys.readouterr()
    melpatch("evaluate", run, *words)
    shown = " ".join(capsys.readouterr().err.split())
    melpatch("predict", run, corpus, "--out", tmp_path / "p.csv", "--precision", "32-true", *flags)
    answers = {row["path"]: row for row in read_table(tmp_path / "p.csv")}
    scored = read_table(out / "as_trained" / "predictions.csv")
    unlike = []
    given = []
    for row in scored:
        answer = answers[row["path"]]
        assert row["given"] == answer["label"]
        assert row["novelty"] == answer["novelty"]
        unlike.append("none of these" in answer["note"])
        given.append({*filter(None, answer["label"].split(";"))})
    assert ODD - 2 <= sum(unlike) < len(scored) / 2
    decisions = json.loads((out / "as_trained" / "scores.json").read_text())["decisions"]
    assert decisions["none_of_these"]["clips"] == sum(unlike)
    assert decisions["none_of_these"]["interval_95"] == pytest.approx(
        [*wilson(np.mean(unlike), float(len(scored)))]
    )
    assert decisions["without_label"] == sum(not names for names in given)
    assert (decisions["threshold_rule"], decisions["false_alarms"]) == (
        ("threshold=0.3", 0.2) if flags else ("f1", 0.05)
    )
    for row in decisions["per_class"]:
        true = np.array([row["label"] in scores["label"].split(";") for scores in scored])
        guessed = np.array([row["label"] in names for names in given])
        assert (row["positives"], row["given"]) == (true.sum(), guessed.sum())
        assert row["recall"] == pytest.approx((true & guessed).sum() / true.sum())
        assert row["none_of_these"]["clips"] == (true & unlike).sum()
    assert f"{sum(unlike)} of {len(scored)} clips of the known classes" in shown
    assert f"as predict gives labels (thresholds: {decisions['threshold_rule']})" in shown


def test_few_validation_clips_are_said_to_be_too_few(sounds, tmp_path, capsys):
    corpus = listed(sounds, multi_label=False)
    rows = read_table(corpus)
    few = [row for row in rows if row["split"] != "val"]
    few += [row for row in rows if row["split"] == "val"][::2]
    table = write_table(corpus.with_name("few.csv"), rows[0], [row.values() for row in few])
    run = write_run(tmp_path / "run", settings(LABELS))
    melpatch("calibrate", run, "--data", table)
    melpatch("evaluate", run, "--data", table, "--no-floors", "--no-pictures")
    shown = " ".join(capsys.readouterr().err.split())
    assert f"nothing is called none of these: {run} was calibrated on 11 clips" in shown
    (path,) = run.rglob("scores.json")
    decisions = json.loads(path.read_text())["decisions"]
    assert (decisions["none_of_these"], decisions["novelty_clips"]) == (None, 11)


def test_a_run_that_was_not_calibrated_has_no_decisions_of_its_own(sounds, tmp_path):
    corpus = listed(sounds, multi_label=False)
    run = write_run(tmp_path / "run", settings(LABELS))
    melpatch("evaluate", run, "--data", corpus, "--no-floors", "--no-pictures")
    (path,) = run.rglob("scores.json")
    assert json.loads(path.read_text())["decisions"] is None
    assert "given" not in read_table(path.with_name("predictions.csv"))[0]
