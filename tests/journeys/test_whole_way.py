"""A user's whole way: from a folder of sound, a damaged file in it, to a classifier, predictions and embeddings."""

import json
from pathlib import Path

import numpy as np
import soundfile
from journeys.three_sounds import (
    LABELS,
    SHORT,
    SMALL,
    melpatch,
    read_table,
    wave,
    write_corpus,
    write_folder,
    write_table,
)
from places import shared

from melpatch.checkpoint import load_weights
from melpatch.config import from_toml
from melpatch.training.config import RunConfig

MELS = ("--front-end.n-mels", "64")
TUNED = ("--steps", "24", "--evaluations", "3", "--lr", "2e-3", *SHORT)


def answer(capsys, *words):
    """What a command prints as JSON."""
    capsys.readouterr()
    melpatch(*words, "--json")
    return json.loads(capsys.readouterr().out)


def prepared(tmp_path, capsys) -> Path:
    """The corpus, one file of which is damaged, as ``prepare`` leaves it."""
    listed = write_corpus(tmp_path / "sounds", per_class=12)
    (listed.parent / "bad.wav").write_bytes(b"RIFF, but no more")
    rows = [*(tuple(row.values()) for row in read_table(listed)), ("bad.wav", "low", "train", "0")]
    write_table(listed, ("path", "label", "split", "fold"), rows)
    corpus = tmp_path / "sounds" / "prepared.csv"
    melpatch("prepare", listed, "--out", corpus, "--workers", "0")
    told = capsys.readouterr()
    assert "1 clip is left out" in told.err
    assert "test: 12, train: 18, val: 6" in told.out
    lines = read_table(corpus)
    assert list(lines[0]) == ["path", "label", "split", "start", "duration", "key", "group"]
    assert len(lines) == 36
    (bad,) = read_table(corpus.with_suffix(".rejected.csv"))
    assert bad["path"].endswith("bad.wav")
    return corpus


def test_from_a_folder_to_a_classifier_and_answers(tmp_path, capsys):
    corpus = prepared(tmp_path, capsys)
    first, tuned, scratch = (tmp_path / name for name in ("pretrained", "tuned", "scratch"))
    words = ("--size", "nano", "--steps", "20", "--evaluations", "2", *MELS, *SHORT)
    melpatch("pretrain", "ssast", "--data", corpus, "--out", first, *words)
    ears = answer(capsys, "stats", corpus, "--seconds", "1", *MELS)
    recorded = from_toml(RunConfig, first / "config.toml").front_end
    assert (recorded.mean, recorded.std) == (ears["mean"], ears["std"])

    melpatch("finetune", "--init", first, "--data", corpus, "--out", tuned, *TUNED)
    melpatch(
        "finetune",
        "--init",
        "scratch",
        "--encoder-from",
        first,
        "--data",
        corpus,
        "--out",
        scratch,
        *TUNED,
    )
    weights = [load_weights(run / "model.safetensors") for run in (tuned, scratch)]
    encoders = [{name for name in kept if name.startswith("encoder.")} for kept in weights]
    assert encoders[0] == encoders[1]

    record = answer(capsys, "evaluate", tuned, "--data", corpus)
    assert record["as_trained"]["value"] >= 0.9
    folder = tuned / "evaluation" / "sounds-prepared" / "as_trained"
    assert json.loads((folder / "scores.json").read_text(encoding="utf-8")) == record["as_trained"]
    lines = read_table(folder / "predictions.csv")
    assert (
        np.mean([line["label"] == line["predicted"] for line in lines])
        == record["as_trained"]["value"]
    )
    probed = answer(capsys, "evaluate", first, "--data", corpus, "--no-floors")
    assert probed.keys() == {"knn", "linear"}

    predicted_folder(tuned, corpus.parent, tmp_path)
    predicted_long_recording(tuned, tmp_path)
    embedded(first, corpus.parent, tmp_path)
    shown = answer(capsys, "show", tuned)
    assert (shown["objective"], shown["latest"]["step"], shown["labels"]) == (
        "Classify",
        24,
        "high, low, noise",
    )


def predicted_folder(run, folder, tmp_path):
    melpatch("predict", run, folder, "--out", tmp_path / "folder.csv")
    lines = read_table(tmp_path / "folder.csv")
    assert list(lines[0]) == ["path", "start", "end", "label", "probability", "note", *LABELS]
    assert np.mean([Path(line["path"]).parent.name == line["label"] for line in lines]) >= 0.9
    assert len(lines) == 36
    for line in lines:
        assert abs(sum(float(line[label]) for label in LABELS) - 1) < 1e-4
        assert abs(float(line["end"]) - soundfile.info(line["path"]).duration) < 2e-3
    (bad,) = read_table(tmp_path / "folder.rejected.csv")
    assert bad["path"].endswith("bad.wav")


def predicted_long_recording(run, tmp_path):
    """Three stretches of 3 s each are heard where they are."""
    path = tmp_path / "long.flac"
    soundfile.write(path, np.concatenate([wave(label, 3.0, seed=99) for label in LABELS]), 16000)
    melpatch("predict", run, path, "--hop", "0.5", "--out", tmp_path / "long.csv")
    lines = read_table(tmp_path / "long.csv")
    assert [float(line["start"]) for line in lines] == [0.5 * number for number in range(17)]
    assert [float(line["end"]) for line in lines] == [0.5 * number + 1 for number in range(17)]
    inside = [
        (int(float(line["start"]) // 3), line["label"])
        for line in lines
        if float(line["start"]) % 3 <= 2
    ]
    assert len(inside) == 15
    assert np.mean([LABELS[stretch] == label for stretch, label in inside]) >= 0.9


def embedded(run, folder, tmp_path):
    melpatch("embed", run, folder / "low", "--out", tmp_path / "vectors.npz")
    with np.load(tmp_path / "vectors.npz") as found:
        # Mean, deviation and differences of four rows: a token, and two numbers per mel bin of it.
        assert found["embeddings"].shape == (12, 3 * 4 * (96 + 2 * 16))
        assert {Path(path).parent.name for path in found["path"]} == {"low"}
    melpatch("embed", run, tmp_path / "long.flac", "--hop", "0.5", "--out", tmp_path / "frames.npz")
    with np.load(tmp_path / "frames.npz") as found:
        assert found["embeddings"].shape == (18, 4 * (96 + 2 * 16))
        assert found["start"].tolist() == [0.5 * number for number in range(18)]
        assert found["end"].tolist() == [0.5 * number + 0.5 for number in range(18)]


def test_every_fold_is_held_out_once(tmp_path, capsys):
    corpus = write_corpus(tmp_path / "sounds")
    heard = []
    for fold in ("0", "1", "2"):
        run = tmp_path / f"fold{fold}"
        words = ("--data", corpus, "--split-column", "fold")
        melpatch("finetune", "--init", "scratch", "--size", "nano", "--out", run, "--test-fold", fold, "--steps", "1",
                 *words, *SHORT, *SMALL)  # fmt: skip
        answer(capsys, "evaluate", run, *words, "--split", fold, "--no-floors")
        heard += [
            line["path"]
            for line in read_table(
                run / f"evaluation/sounds-corpus-fold-{fold}/as_trained/predictions.csv"
            )
        ]
    assert sorted(heard) == sorted(str(corpus.parent / row["path"]) for row in read_table(corpus))


def test_several_labels_to_a_clip(tmp_path, capsys):
    corpus = write_corpus(tmp_path / "sounds", per_class=12)
    both = {"low": "low;tone", "high": "high;tone", "noise": "noise"}
    rows = [(row["path"], both[row["label"]], row["split"]) for row in read_table(corpus)]
    write_table(corpus, ("path", "label", "split"), rows)
    run = tmp_path / "run"
    words = ("--size", "nano", "--evaluations", "2", *MELS, "--lr", "2e-3", *SHORT)
    melpatch(
        "finetune", "--init", "scratch", "--data", corpus, "--out", run, "--steps", "30", *words
    )
    record = answer(capsys, "evaluate", run, "--data", corpus, "--no-floors")["as_trained"]
    assert record["metrics"]["mAP"] >= 0.9
    melpatch("predict", run, corpus.parent, "--out", tmp_path / "found.csv")
    lines = read_table(tmp_path / "found.csv")
    assert len(lines) == 36
    for line in lines:
        assert line["label"] == ";".join(
            name for name in (*LABELS, "tone") if float(line[name]) >= 0.5
        )


def test_a_folder_is_enough(tmp_path, capsys):
    """Sub-folders are the labels; without splits all of it trains."""
    folder = write_folder(tmp_path / "sounds")
    first, tuned = tmp_path / "pretrained", tmp_path / "tuned"
    melpatch("pretrain", "ssast", "--data", folder, "--out", first, "--steps", "2", *SHORT, *SMALL)
    melpatch("finetune", "--init", first, "--data", folder, "--out", tuned, "--steps", "2", *SHORT)
    told = capsys.readouterr().err
    assert "18 clips, " in told
    assert "18 labelled clips of 3 classes" in told
    assert from_toml(RunConfig, tuned / "config.toml").labels == LABELS


def test_spoken_digits_go_the_whole_way(tmp_path, capsys):
    """Every fifth recording of each digit by two speakers; the splits are by number."""
    listed = shared("data/fsdd/manifest.csv")
    rows = [row for row in read_table(listed)[::5] if row["speaker"] in ("george", "lucas")]
    cells = [(listed.parent / row["path"], row["label"], row["split_or_fold"]) for row in rows]
    source = write_table(tmp_path / "listed.csv", ("path", "label", "split_or_fold"), cells)
    corpus = tmp_path / "digits.csv"
    melpatch(
        "prepare", source, "--split-column", "split_or_fold", "--out", corpus, "--workers", "0"
    )
    first, tuned = tmp_path / "pretrained", tmp_path / "tuned"
    brief = ("--data", corpus, "--steps", "5", "--evaluations", "1", *SHORT)
    ears = ("--front-end.sample-rate", "8000", "--stats-clips", "64")
    melpatch("pretrain", "ssast", "--out", first, *brief, *ears, *SMALL)
    melpatch("finetune", "--init", first, "--out", tuned, "--labels-per-class", "5", *brief)
    record = answer(capsys, "evaluate", tuned, "--data", corpus, "--no-floors")["as_trained"]
    assert record["n"] == 20
    assert len(record["per_class"]) == 10
