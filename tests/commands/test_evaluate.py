"""``melpatch evaluate``: scores that its own predictions bear out, on the split that was asked for."""

import json

import numpy as np
import pytest
from journeys.three_sounds import (
    LABELS,
    melpatch,
    read_table,
    settings,
    write_corpus,
    write_folder,
    write_run,
    write_table,
)

from melpatch.cli import main
from melpatch.model import load


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "classifier", settings(LABELS))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "encoder", settings())


def evaluate(run, corpus, out, capsys, *words):
    """The record that is printed, which must be what is written."""
    melpatch("evaluate", run, "--data", corpus, "--out", out, "--json", *words)
    record = json.loads(capsys.readouterr().out)
    assert json.loads((out / "scores.json").read_text(encoding="utf-8")) == record
    return record


def accuracy(lines):
    return np.mean([line["label"] == line["predicted"] for line in lines])


def test_a_classifier_is_scored_by_its_predictions(corpus, classifier, tmp_path, capsys):
    record = evaluate(classifier, corpus, tmp_path / "out", capsys)
    lines = read_table(tmp_path / "out" / "predictions.csv")
    assert list(lines[0]) == ["path", "start", "label", "predicted", *LABELS]
    expected = [str(corpus.parent / row["path"]) for row in read_table(corpus) if row["split"] == "test"]
    assert [line["path"] for line in lines] == expected
    model = load(classifier)
    for line in lines:
        row = {name: float(line[name]) for name in LABELS}
        assert sum(row.values()) == pytest.approx(1.0, abs=1e-4)
        assert line["predicted"] == max(row, key=row.get)
        assert row == pytest.approx(model.predict(line["path"])[0].probabilities, abs=2e-3)  # another resampling
    scores = record["scores"]["classifier"]
    assert scores["accuracy"] == pytest.approx(accuracy(lines))
    assert scores["clips"] == 6
    low, high = scores["accuracy_95"]
    assert low <= scores["accuracy"] <= high
    assert np.sum(scores["confusion"]) == 6
    assert record["method"] == "Classify"
    assert record["rejected"] == []
    assert (tmp_path / "out" / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_an_encoder_is_scored_by_probes(corpus, encoder, tmp_path, capsys):
    record = evaluate(encoder, corpus, tmp_path / "out", capsys, "--k", "3")
    assert record["scores"].keys() == {"knn", "linear"}
    for name, scores in record["scores"].items():
        lines = read_table(tmp_path / "out" / f"predictions-{name}.csv")
        assert scores["accuracy"] == pytest.approx(accuracy(lines))
        assert len(lines) == 6
        assert (tmp_path / "out" / f"confusion-{name}.png").exists()
    assert record["scores"]["linear"]["accuracy"] > 0.9  # low, high and noise are told apart by any weights


def test_folds_are_scored_one_by_one(corpus, encoder, classifier, tmp_path, capsys):
    for run in (encoder, classifier):
        for fold in ("0", "2"):
            words = ("--split-column", "fold", "--split", fold)
            record = evaluate(run, corpus, tmp_path / f"{run.name}-{fold}", capsys, *words)
            assert {one["clips"] for one in record["scores"].values()} == {6}


def test_probes_may_learn_from_few_labels(corpus, encoder, tmp_path, capsys):
    one = evaluate(encoder, corpus, tmp_path / "one", capsys, "--few", "1", "--k", "1")
    assert one["asked"]["few"] == 1
    melpatch("evaluate", encoder, "--data", corpus, "--out", tmp_path / "many", "--few", "99", "--k", "1")
    assert "3 classes have fewer than 99 clips, such as high with 3" in capsys.readouterr().err


def test_several_labels_are_scored_by_their_ranking(corpus, encoder, tmp_path, capsys):
    rows = [
        (row["path"], row["label"] if row["label"] == "noise" else f"{row['label']};tone", row["split"])
        for row in read_table(corpus)
    ]
    several = write_table(corpus.with_name("several.csv"), ("path", "label", "split"), rows)
    record = evaluate(encoder, several, tmp_path / "probes", capsys)
    run = write_run(tmp_path / "run", settings((*LABELS, "tone"), multi_label=True))
    record["scores"] |= evaluate(run, several, tmp_path / "classifier", capsys)["scores"]
    for scores in record["scores"].values():
        assert 0 <= scores["mAP"] <= 1
        assert "accuracy" not in scores
    assert read_table(tmp_path / "classifier" / "predictions.csv")[0]["label"] == "high;tone"


def test_the_table_is_for_people(corpus, classifier, capsys):
    melpatch("evaluate", classifier, "--data", corpus, "--split", "val")
    told = capsys.readouterr()
    for part in ("split val (3 clips)", "accuracy", "macro F1", "mAUC", "classifier"):
        assert part in told.out
    assert (classifier / "evaluation-val" / "scores.json").exists()


def test_a_clip_that_went_bad_is_named(corpus, classifier, tmp_path, capsys):
    rows = [(row["path"], row["label"], row["split"], "") for row in read_table(corpus)]
    listed = write_table(
        corpus.with_name("gone.csv"), ("path", "label", "split", "duration"), [*rows, ("gone.wav", "low", "test", 1.0)]
    )
    record = evaluate(classifier, listed, tmp_path / "out", capsys)
    assert record["rejected"] == [str(corpus.parent / "gone.wav")]
    assert record["scores"]["classifier"]["clips"] == 6


def test_unlabelled_clips_are_not_scored(corpus, classifier, tmp_path, capsys):
    rows = [(row["path"], "" if n % 2 else row["label"], row["split"]) for n, row in enumerate(read_table(corpus))]
    listed = write_table(corpus.with_name("half.csv"), ("path", "label", "split"), rows)
    assert evaluate(classifier, listed, tmp_path / "out", capsys)["scores"]["classifier"]["clips"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--split", "nope"), "'nope'; there are: test (6"),
        (("--few", "0"), "few = 0; allowed: 1 or more"),
        (("--batch-size", "0"), "batch_size = 0; allowed: 1 or more"),
        (("--workers", "-1"), "workers = -1; allowed: 0 or more"),
        (("--split-column", "nope"), "no column 'nope'"),
        (("--data", "nowhere"), "nowhere: no such folder or CSV file"),
    ],
)
@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_what_cannot_be_scored_is_exit_code_2(corpus, kind, words, message, request, tmp_path, capsys):
    run = request.getfixturevalue(kind)
    assert main(["evaluate", str(run), "--data", str(corpus), "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_run_is_exit_code_2(corpus, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "--data", str(corpus)]) == 2
    assert "config.toml: cannot be read (No such file or directory); give a run folder" in capsys.readouterr().err


def test_labels_that_the_model_does_not_know_are_refused(corpus, tmp_path, capsys):
    run = write_run(tmp_path / "run", settings(("high", "low")))
    assert main(["evaluate", str(run), "--data", str(corpus)]) == 2
    assert f"label 'noise' is not one of {run}'s: high, low" in capsys.readouterr().err


def test_a_split_without_labels_is_refused(classifier, encoder, tmp_path, capsys):
    folder = write_folder(tmp_path / "sounds", per_class=2)
    rows = [(path, path.parent.name if n else "", "train" if n else "test")
            for n, path in enumerate(sorted(folder.rglob("*.*")))]  # fmt: skip
    listed = write_table(tmp_path / "corpus.csv", ("path", "label", "split"), rows)
    for run, message in (
        (classifier, "none of the 1 clips to score has a label"),
        (encoder, "'test'; there are: train"),
    ):
        assert main(["evaluate", str(run), "--data", str(listed)]) == 2
        assert message in capsys.readouterr().err


def test_a_corpus_without_labels_is_refused(classifier, encoder, tmp_path, capsys):
    folder = write_folder(tmp_path / "sounds", per_class=1)
    for run in (classifier, encoder):
        assert main(["evaluate", str(run), "--data", str(folder / "low"), "--split", ""]) == 2
        assert "none of the 1 clips to score has a label" in capsys.readouterr().err
