"""Data that lie elsewhere, in other layouts or under other names than when a run was started."""

import json
import shutil
from pathlib import Path

import pytest
from journeys.three_sounds import SHORT, melpatch, settings, write_run, write_sound

from melpatch.cli import main

HERE = ("--steps", "1", *SHORT, "--workers", "0")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """An audio folder of splits and classes; the class noise has no training clip."""
    root = tmp_path_factory.mktemp("here") / "sounds"
    for split, labels in {"train": ("low", "high"), "Test": ("low", "high", "noise")}.items():
        for label in labels:
            for number in range(2):
                seed = 10 * len(split) + number
                write_sound(root / split / label / f"{number}.wav", label, 0.6, seed=seed)
    return root


@pytest.fixture(scope="module")
def classifier(sounds, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    encoder = write_run(runs / "encoder", settings(depth=1))
    words = ("--init", encoder, "--data", sounds, "--out", runs / "classifier", *HERE)
    melpatch("finetune", *words)
    return runs / "classifier"


def moved(sounds, to: Path) -> Path:
    return Path(shutil.copytree(sounds, to))


def test_a_run_resumes_where_its_clips_lie_now(classifier, sounds, tmp_path, capsys):
    run = Path(shutil.copytree(classifier, tmp_path / "run"))
    words = ["finetune", "--resume", "--out", str(run), "--data"]
    assert main([*words, str(moved(sounds, tmp_path / "scratch-77"))]) == 0
    elsewhere = moved(sounds, tmp_path / "other")
    (elsewhere / "train" / "low" / "1.wav").unlink()
    assert main([*words, str(elsewhere)]) == 2
    assert "was started on other clips" in capsys.readouterr().err
    assert json.loads((run / "corpus.json").read_text())["datasets"] == ["sounds"]


def test_classes_without_a_training_clip_are_told_by_every_command(
    classifier, sounds, tmp_path, capsys
):
    sound = str(sounds / "Test" / "low" / "0.wav")
    for words in (
        ["prepare", str(sounds), "--out", str(tmp_path / "c.csv"), "--workers", "0"],
        ["evaluate", str(classifier), "--data", str(sounds), "--out", str(tmp_path / "scores")],
        ["predict", str(classifier), sound, "--out", str(tmp_path / "p.csv")],
    ):
        assert main(words) == 0
        told = capsys.readouterr().err
        assert "no training clip" in told or "trained on no clip" in told, words
        assert "noise" in told


def test_a_classifier_is_scored_on_a_folder_without_splits(classifier, sounds, tmp_path, capsys):
    words = ["evaluate", str(classifier), "--data", str(sounds / "Test"), "--out", str(tmp_path)]
    assert main(words) == 0
    read = capsys.readouterr()
    assert "Test: has no splits; 6 clips scored, all of it" in read.err
    assert "on Test (all): 6 clips" in " ".join(read.out.split())


def test_clips_that_were_trained_on_are_found_by_their_content(
    classifier, sounds, tmp_path, capsys
):
    other = tmp_path / "other"
    for number, path in enumerate(sorted((sounds / "train").rglob("*.wav"))):
        target = other / path.parent.name / f"renamed-{number}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    write_sound(other / "low" / "new.wav", "low", 0.6, seed=99)
    assert main(["evaluate", str(classifier), "--data", str(other)]) == 0
    assert "was trained on 4 of the scored clips" in capsys.readouterr().err


def test_two_corpora_of_one_name_are_scored_side_by_side(classifier, sounds, tmp_path):
    ignored = shutil.ignore_patterns("evaluation")
    run = Path(shutil.copytree(classifier, tmp_path / "run", ignore=ignored))
    first = moved(sounds, tmp_path / "a" / "sounds")
    second = moved(sounds, tmp_path / "b" / "sounds")
    for data in (first, second, first, second):
        assert main(["evaluate", str(run), "--data", str(data)]) == 0
    records = [
        json.loads(path.read_text())
        for path in (run / "evaluation").glob("*/as_trained/scores.json")
    ]
    assert {tuple(record["data"]) for record in records} == {(str(first),), (str(second),)}
    assert len(records) == 2


def test_folders_with_files_of_the_user_are_no_outputs(classifier, sounds, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("index.csv", "rejected.csv", "metrics.jsonl"):
        (mine / name).write_text("mine")
    (tmp_path / "as_trained").mkdir()
    (tmp_path / "as_trained" / "predictions.csv").write_text("mine")
    for words in (
        ["pack", sounds, "--out", mine, "--workers", "0"],
        ["finetune", "--init", "scratch", "--data", sounds, "--out", mine, *HERE],
        ["evaluate", classifier, "--data", sounds, "--out", tmp_path],
    ):
        assert main([str(word) for word in words]) == 2
        assert "give another --out" in capsys.readouterr().err.replace(
            "another folder, for", "give another --out"
        )
    assert {path.read_text() for path in mine.iterdir()} == {"mine"}
