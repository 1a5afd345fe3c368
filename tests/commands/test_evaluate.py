"""``melpatch evaluate``: scores that its own predictions bear out, on the splits that were asked for."""

import json
import os
import re
import shutil
from dataclasses import dataclass, replace

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
    write_sound,
    write_table,
)

from melpatch.checkpoint import save_weights
from melpatch.cli import main
from melpatch.data.manifest import load_corpus
from melpatch.errors import ConfigError
from melpatch.evaluation.request import EvaluationRequest, protocol_folder
from melpatch.evaluation.select import parse_settings, select_protocols
from melpatch.inference.model import load
from melpatch.nn.pooling import DEFAULT_POOLING
from melpatch.protocols.knn import KNN
from melpatch.protocols.linear import Linear
from melpatch.training.run import Run


@dataclass(frozen=True, kw_only=True)
class Nearest(KNN):
    """A protocol of one's own: the nearest neighbour."""

    k: int = 1


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "classifier", settings(LABELS))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "encoder", settings())


@pytest.fixture(autouse=True)
def drawn(monkeypatch, request):
    """The names of the pictures, which one test alone draws."""
    names = []
    if "draws" not in request.fixturenames:
        for kind in ("confusion", "per_class"):
            monkeypatch.setattr(
                f"melpatch.evaluation.pictures.{kind}", lambda path, **_: names.append(path.name)
            )
    return names


def evaluate(run, corpus, out, capsys, *words):
    """The records that are printed, which must be what is written."""
    # Floors have tests of their own, and take longer than what is scored here.
    words = ["--data", corpus, "--out", out, "--json", "--no-floors", *words]
    melpatch("evaluate", run, *words)
    records = json.loads(capsys.readouterr().out)
    for name, record in records.items():
        (path,) = out.glob(f"{name}*/scores.json")
        assert json.loads(path.read_text(encoding="utf-8")) == record
    return records


def accuracy(lines):
    return np.mean([line["label"] == line["predicted"] for line in lines])


def test_a_classifier_is_scored_by_its_predictions(corpus, classifier, tmp_path, capsys, draws):
    record = evaluate(classifier, corpus, tmp_path / "out", capsys)["as_trained"]
    folder = tmp_path / "out" / "as_trained"
    lines = read_table(folder / "predictions.csv")
    assert list(lines[0]) == [
        "path",
        "start",
        "end",
        "label",
        "predicted",
        "split",
        "seed",
        *LABELS,
    ]
    expected = [
        str(corpus.parent / row["path"]) for row in read_table(corpus) if row["split"] == "test"
    ]
    assert [line["path"] for line in lines] == expected
    model = load(classifier)
    for line in lines:
        row = {name: float(line[name]) for name in LABELS}
        assert sum(row.values()) == pytest.approx(1.0, abs=1e-4)
        assert line["predicted"] == max(row, key=row.get)
        assert row == pytest.approx(
            model.predict(line["path"])[0].probabilities, abs=2e-3
        )  # another resampling
    assert record["value"] == record["metrics"]["accuracy"] == pytest.approx(accuracy(lines))
    low, high = record["interval_95"]
    assert low <= record["value"] <= high
    assert record["n"] == np.sum(record["confusion_matrix"]) == 6
    assert (record["objective"], record["protocol"], record["version"]) == (
        "classify",
        "as_trained",
        2,
    )
    assert record["rejected"] == []
    for name in ("confusion.png", "per_class.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_an_encoder_is_scored_by_probes(corpus, encoder, tmp_path, capsys, drawn):
    records = evaluate(encoder, corpus, tmp_path / "out", capsys, "--set", "k=3")
    assert records.keys() == {"knn", "linear"}
    for name, record in records.items():
        (path,) = (tmp_path / "out").glob(f"{name}*/predictions.csv")
        lines = read_table(path)
        assert record["value"] == pytest.approx(accuracy(lines))
        assert len(lines) == 6
    assert records["linear"]["value"] > 0.9  # low, high and noise are told apart by any weights
    assert records["knn"]["settings"] == {
        "components": 128,
        "k": 3,
        "pooling": DEFAULT_POOLING,
        "ridge": 1.0,
        "scaling": "whitened",
    }
    assert (records["knn"]["settings_changed"], records["linear"]["settings_changed"]) == (
        ["k"],
        [],
    )
    assert drawn == ["confusion.png", "per_class.png"] * 2


def test_pictures_are_left_out_on_request_and_no_earlier_ones_stay(
    corpus, encoder, tmp_path, capsys, drawn
):
    words = ("--protocol", "knn", "--set", "k=3")
    record = evaluate(encoder, corpus, tmp_path, capsys, *words)["knn"]
    assert drawn == ["confusion.png", "per_class.png"]
    (path,) = tmp_path.glob("knn*/scores.json")
    picture = path.with_name("confusion.png")
    picture.touch()
    again = evaluate(encoder, corpus, tmp_path, capsys, *words, "--no-pictures")["knn"]
    assert again["value"] == record["value"]
    assert drawn == ["confusion.png", "per_class.png"]
    assert not picture.exists()


def test_every_fold_is_scored_in_a_round_of_its_own(corpus, encoder, tmp_path, capsys):
    words = ("--split-column", "fold", "--protocol", "linear", "few_shot", "--set", "k=2")
    records = evaluate(encoder, corpus, tmp_path / "out", capsys, *words)
    for name, seeds in (("linear", 1), ("few_shot", 5)):
        (path,) = (tmp_path / "out").glob(f"{name}*/predictions.csv")
        record, lines = records[name], read_table(path)
        assert record["splits"] == [
            {"split": fold, "train_clips": 12, "val_clips": 0, "test_clips": 6} for fold in "012"
        ]
        assert record["seeds"] == [*range(seeds)]
        assert record["n"] == 18
        assert len(lines) == 18 * seeds
        by_trial = [
            accuracy([line for line in lines if (line["split"], line["seed"]) == (fold, str(seed))])
            for seed in range(seeds)
            for fold in "012"
        ]
        assert record["value"] == pytest.approx(np.mean(by_trial))
        assert [one["train_clips"] for one in record["trials"]] == [
            12 if name == "linear" else 6
        ] * 3 * seeds
    assert records["few_shot"]["seed_std"] is not None
    assert (records["linear"]["labels_per_class"], records["few_shot"]["labels_per_class"]) == (
        None,
        2,
    )


def test_the_folds_that_are_named_are_scored_and_no_others(
    corpus, encoder, classifier, tmp_path, capsys
):
    for run in (encoder, classifier):
        words = ("--split-column", "fold", "--split", "0", "2")
        records = evaluate(run, corpus, tmp_path / run.name, capsys, *words)
        for record in records.values():
            assert [one["split"] for one in record["splits"]] == ["0", "2"]
            assert record["n"] == 12


def test_probes_may_learn_from_few_labels(corpus, encoder, tmp_path, capsys):
    words = ("--labels-per-class", "1", "--set", "k=1", "--seeds", "3", "5")
    record = evaluate(encoder, corpus, tmp_path / "one", capsys, *words)["knn"]
    assert (record["labels_per_class"], record["seeds"]) == (1, [3, 5])
    assert [one["train_clips"] for one in record["trials"]] == [3, 3]
    melpatch(
        "evaluate",
        encoder,
        "--data",
        corpus,
        "--out",
        tmp_path / "many",
        "--labels-per-class",
        "99",
        "--set",
        "k=1",
    )
    assert (
        capsys.readouterr().err.count("3 classes have fewer than 99 clips, such as high with 3")
        == 1
    )
    melpatch(
        "evaluate", encoder, "--data", corpus, "--out", tmp_path / "shots", "--protocol", "few_shot"
    )
    assert "3 classes have fewer than 10 clips" in capsys.readouterr().err


def test_random_weights_are_scored_apart(corpus, encoder, tmp_path, capsys):
    trained = write_run(tmp_path / "run", replace(settings(), seed=0))
    model = load(trained)
    for value in model.objective.parameters():
        value.data *= 1.5
    save_weights(trained / "model.safetensors", model.objective.state_dict())
    words = ("--protocol", "linear")
    ours = evaluate(trained, corpus, tmp_path / "ours", capsys, *words)["linear"]
    random = evaluate(trained, corpus, tmp_path / "random", capsys, *words, "--random-weights")[
        "linear"
    ]
    assert (ours["initialisation"], random["initialisation"]) == (
        "trained from random weights",
        "random weights",
    )
    as_drawn = evaluate(encoder, corpus, tmp_path / "drawn", capsys, *words)[
        "linear"
    ]  # the same seed, never trained
    files = [
        read_table(tmp_path / name / "linear" / "predictions.csv")
        for name in ("ours", "random", "drawn")
    ]
    assert files[1] == files[2] != files[0]
    assert random["metrics"] == as_drawn["metrics"]


def test_the_arithmetic_is_written_beside_the_scores(corpus, classifier, encoder, tmp_path, capsys):
    bf16 = ("--precision", "bf16-mixed")
    records = evaluate(
        classifier, corpus, tmp_path / "bf16", capsys, *bf16, "--protocol", "linear", "as_trained"
    )
    assert {record["precision"] for record in records.values()} == {"bf16-mixed"}
    usual = evaluate(classifier, corpus, tmp_path / "float32", capsys, "--protocol", "as_trained")
    assert usual["as_trained"]["precision"] == "32-true"
    tables = [
        read_table(tmp_path / name / "as_trained" / "predictions.csv")
        for name in ("bf16", "float32")
    ]
    assert tables[0] != tables[1]
    words = ("--protocol", "linear", "--against", encoder)
    evaluate(classifier, corpus, tmp_path / "both", capsys, *bf16, *words)
    # The other run is in the same arithmetic: its features are those of an evaluation by itself.
    kept = {*(encoder / "features").iterdir()}
    evaluate(encoder, corpus, tmp_path / "other", capsys, *bf16, "--protocol", "linear")
    assert {*(encoder / "features").iterdir()} == kept


def test_several_labels_are_scored_by_their_ranking(corpus, encoder, tmp_path, capsys):
    rows = [
        (
            row["path"],
            row["label"] if row["label"] == "noise" else f"{row['label']};tone",
            row["split"],
        )
        for row in read_table(corpus)
    ]
    several = write_table(corpus.with_name("several.csv"), ("path", "label", "split"), rows)
    records = evaluate(encoder, several, tmp_path / "probes", capsys)
    run = write_run(tmp_path / "run", settings((*LABELS, "tone"), multi_label=True))
    records |= evaluate(run, several, tmp_path / "classifier", capsys)
    assert len(records) == 3
    for record in records.values():
        assert record["metric"] == "mAP"
        assert 0 <= record["value"] <= 1
        assert "accuracy" not in record["metrics"]
    assert (
        read_table(tmp_path / "classifier" / "as_trained" / "predictions.csv")[0]["label"]
        == "high;tone"
    )


def test_a_classifier_may_be_probed_too(corpus, tmp_path, capsys):
    """The probe goes by the corpus, whatever the classifier was trained on."""
    run = write_run(tmp_path / "run", settings(("x", "y"), multi_label=True))
    record = evaluate(run, corpus, tmp_path / "out", capsys, "--protocol", "linear")["linear"]
    assert record["metric"] == "accuracy"
    assert record["value"] > 0.9


def test_the_table_is_for_people(corpus, classifier, encoder, tmp_path, capsys):
    melpatch("evaluate", classifier, "--data", corpus, "--split", "val")
    told = capsys.readouterr()
    for part in (
        f"{classifier} on {corpus.parent.name}/corpus (val): 3 clips",
        "accuracy",
        "macro F1",
        "mAUC",
        "as_trained 2",
    ):
        assert part in told.out
    folder = classifier / "evaluation" / f"{corpus.parent.name}-corpus-val"
    assert f"written to {folder}" in told.err
    assert (folder / "as_trained" / "scores.json").exists()
    melpatch(
        "evaluate",
        encoder,
        "--data",
        corpus,
        "--random-weights",
        "--set",
        "C=1",
        "--out",
        tmp_path / "out",
    )
    told = capsys.readouterr().out
    assert f"{encoder} at random weights" in told
    assert "linear 5 *" in told
    assert "knn 5 *" not in told
    assert "* with settings other than the protocol's" in told
    for floor in ("majority class", "log-mel statistics", "MFCC statistics"):
        assert told.count(floor) == 2


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "evaluation/sounds-corpus"),
        ({"data": ("{folder}",)}, "evaluation/sounds"),
        ({"data": ("{folder}", "{folder}/corpus.csv")}, "evaluation/sounds+sounds-corpus"),
        ({"split": ("1", "2"), "split_column": "fold"}, "evaluation/sounds-corpus-fold-1-2"),
        (
            {"label_column": "species", "labels_per_class": 5},
            "evaluation/sounds-corpus-species-5-per-class",
        ),
        (
            {"random_weights": True, "split": ("a/b",)},
            "evaluation/sounds-corpus-a-b-random-weights",
        ),
        ({"precision": "bf16-mixed"}, "evaluation/sounds-corpus-bf16-mixed"),
        ({"out": "elsewhere"}, "elsewhere"),
    ],
)
def test_the_folder_tells_what_was_scored(tmp_path, changes, name):
    (tmp_path / "sounds").mkdir()
    usual = {
        "data": ("{folder}/corpus.csv",),
        "split": (),
        "split_column": "split",
        "label_column": "label",
        "labels_per_class": None,
        "seeds": (),
        "random_weights": False,
        "batch_size": 32,
        "workers": 0,
        "out": None,
    }
    given = usual | changes
    given["data"] = tuple(text.format(folder=tmp_path / "sounds") for text in given["data"])
    if given["out"] is not None:
        given["out"] = tmp_path / given["out"]
    request = EvaluationRequest(run=tmp_path, features_dir=tmp_path / "features", **given)
    assert request.folder == tmp_path / name


def test_clips_that_went_bad_are_named(corpus, classifier, encoder, tmp_path, capsys):
    """Whether the corpus says how long it was, or not."""
    rows = [(row["path"], row["label"], row["split"], "") for row in read_table(corpus)]
    lost = [
        ("gone.wav", "low", "test", 1.0),
        ("lost.wav", "low", "train", 1.0),
        ("never.wav", "low", "test", ""),
    ]
    listed = write_table(
        corpus.with_name("gone.csv"), ("path", "label", "split", "duration"), [*rows, *lost]
    )
    for again in (False, True):  # the second time features and trials are taken from the disk
        for run in (classifier, encoder):
            for name, record in evaluate(run, listed, tmp_path / run.name, capsys).items():
                named = {"gone.wav", "never.wav"} | (
                    {"lost.wav"} if name != "as_trained" else set()
                )
                assert record["rejected"] == sorted(str(corpus.parent / file) for file in named), (
                    name,
                    again,
                )
                assert record["n"] == 6


def test_unlabelled_clips_are_not_scored(corpus, classifier, encoder, tmp_path, capsys):
    rows = [
        (row["path"], "" if n % 2 else row["label"], row["split"])
        for n, row in enumerate(read_table(corpus))
    ]
    listed = write_table(corpus.with_name("half.csv"), ("path", "label", "split"), rows)
    for run in (classifier, encoder):
        for record in evaluate(run, listed, tmp_path / run.name, capsys).values():
            assert record["n"] == 3


def remembering(run, config, clips):
    """A run that was trained on those clips."""
    write_run(run, config)
    Run(run, config).remember(clips)
    return run


def test_scored_clips_that_the_run_was_trained_on_are_told(corpus, tmp_path, capsys):
    known = load_corpus([corpus])
    for config, how in ((settings(LABELS), "with"), (settings(), "without")):
        run = remembering(tmp_path / how, config, known)
        for record in evaluate(run, corpus, tmp_path / f"{how}-out", capsys).values():
            assert record["scored_clips_trained_on"] == 6
        melpatch("evaluate", run, "--data", corpus, "--out", tmp_path / f"{how}-out", "--no-floors")
        told = capsys.readouterr().err
        assert (
            told.count(
                f"{run} was trained on 6 of the scored clips, {how} their labels; scores may be too high"
            )
            == 1
        )
        clean = remembering(tmp_path / f"{how}-clean", config, known.without(["test"]))
        data = ("--data", corpus, "--no-floors")
        melpatch("evaluate", clean, *data)
        melpatch("evaluate", run, *data, "--random-weights", "--out", tmp_path / "untrained")
        assert "trained on" not in capsys.readouterr().err


def test_an_unfinished_training_is_told_of_its_own_weights_alone(corpus, tmp_path, capsys):
    config = settings(LABELS)
    config = replace(config, train=replace(config.train, steps=120))
    run = write_run(tmp_path / "run", config)
    (run / "speed.jsonl").write_text('{"step": 40}\n')
    melpatch("evaluate", run, "--data", corpus, "--no-floors")
    told = capsys.readouterr().err
    assert told.count(f"{run} is unfinished: these are its weights after step 40 of 120") == 1
    words = ("--protocol", "knn", "--no-floors", "--random-weights")
    melpatch("evaluate", run, "--data", corpus, *words)
    assert "is unfinished" not in capsys.readouterr().err


def test_groups_on_both_sides_are_told(corpus, encoder, tmp_path, capsys):
    header = ("path", "label", "split", "fold", "speaker")
    rows = [
        (*row.values(), "anna" if n % 2 else f"speaker {row['fold']}")
        for n, row in enumerate(read_table(corpus))
    ]
    listed = write_table(corpus.with_name("speakers.csv"), header, rows)
    melpatch(
        "evaluate", encoder, "--data", listed, "--split-column", "fold", "--out", tmp_path / "out"
    )
    assert (
        capsys.readouterr().err.count("1 group (column group or speaker) is in more than one split")
        == 1
    )
    rows = [(*row.values(), f"speaker {row['fold']}") for row in read_table(corpus)]
    write_table(listed, header, rows)
    melpatch(
        "evaluate", encoder, "--data", listed, "--split-column", "fold", "--out", tmp_path / "out"
    )
    assert "groups (column" not in capsys.readouterr().err


def test_labels_that_are_not_learnt_are_told(corpus, encoder, tmp_path, capsys):
    rows = [
        (row["path"], f"{row['label']}{row['fold']}", row["fold"]) for row in read_table(corpus)
    ]
    listed = write_table(corpus.with_name("strange.csv"), ("path", "label", "split"), rows)
    melpatch("evaluate", encoder, "--data", listed, "--split", "1", "--out", tmp_path / "out")
    assert capsys.readouterr().err.count("split 1: 6 test clips, such as") == 1


def test_settings_may_be_given_together_or_one_by_one(corpus, encoder, tmp_path, capsys):
    words = ("--protocol", "knn", "linear", "--set", "k=2", "C=0.5", "--set", "pooling=mean")
    records = evaluate(encoder, corpus, tmp_path / "out", capsys, *words)
    assert records["knn"]["settings"] == {
        "components": 128,
        "k": 2,
        "pooling": "mean",
        "ridge": 1.0,
        "scaling": "whitened",
    }
    assert records["knn"]["settings_changed"] == ["k", "pooling"]
    assert records["linear"]["settings"] == {"C": 0.5, "pooling": "mean"}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("--labels-per-class", "1"), "{corpus}-1-per-class"),
        (("--random-weights",), "{corpus}-random-weights"),
        (("--split", "val"), "{corpus}-val"),
        (("--data", "{folder}"), "{folder.name}"),
    ],
)
def test_scores_of_something_else_are_not_overwritten(
    corpus, encoder, tmp_path, capsys, words, name
):
    out, ours = tmp_path / "out", ("evaluate", encoder, "--data", corpus, "--protocol", "knn")
    for _ in range(2):  # the same again is no harm
        melpatch(*ours, "--out", out)
    before = (out / "knn" / "scores.json").read_bytes()
    assert (
        main([str(word).format(folder=corpus.parent) for word in (*ours, "--out", out, *words)])
        == 2
    )
    there = f"{corpus.parent.name}-corpus"
    other = name.format(corpus=there, folder=corpus.parent)
    assert (
        f"{out / 'knn'}: holds the scores of {there} by {encoder}, not {other} by"
        in capsys.readouterr().err
    )
    assert (out / "knn" / "scores.json").read_bytes() == before
    if words[0] != "--data":  # a folder without splits
        melpatch(*ours, "--out", out, *words, "--overwrite")
        assert (out / "knn" / "scores.json").read_bytes() != before


@pytest.mark.parametrize("place", [(), ("--out", "{out}")])
def test_predictions_that_somebody_changed_are_kept(corpus, encoder, tmp_path, capsys, place):
    run = shutil.copytree(encoder, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    out = tmp_path / "out"
    words = ["evaluate", str(run), "--data", str(corpus), "--protocol", "knn"]
    words += [word.format(out=out) for word in place]
    assert main(words) == 0
    (written,) = tmp_path.rglob("predictions.csv")
    mine = written.read_bytes() + b"my note\r\n"
    written.write_bytes(mine)
    assert main(words) == 2
    assert f"{written}: was changed since it was written; give another --out, or --overwrite" in (
        capsys.readouterr().err
    )
    assert written.read_bytes() == mine
    assert main([*words, "--overwrite"]) == 0
    assert main(words) == 0


def test_where_case_is_ignored_scores_of_another_name_are_not_overwritten(
    corpus, encoder, tmp_path
):
    """As on macOS, the folders of the two names are one."""
    run = shutil.copytree(encoder, tmp_path / "run")
    data = shutil.copytree(corpus.parent, tmp_path / "s") / corpus.name
    scored = run / "evaluation"
    words = ("evaluate", run, "--protocol", "knn", "--data")
    melpatch(*words, data.rename(data.with_name("A.csv")))
    (scored / "s-a").symlink_to(scored / "s-A")
    before = (scored / "s-A" / "knn" / "scores.json").read_bytes()
    melpatch(*words, data.with_name("A.csv").rename(data.with_name("a.csv")))
    assert (scored / "s-A" / "knn" / "scores.json").read_bytes() == before
    (other,) = {path.name for path in scored.iterdir()} - {"s-a", "s-A"}
    assert other.startswith("s-a-")


def test_changed_settings_have_folders_of_their_own(corpus, encoder, tmp_path):
    out = tmp_path / "out"
    for setting in ("k=10", "k=3", "k=2", "k=3"):  # the first is the protocol's own
        melpatch(
            "evaluate",
            encoder,
            "--data",
            corpus,
            "--protocol",
            "knn",
            "--set",
            setting,
            "--out",
            out,
        )
    records = {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in out.glob("*/scores.json")
    }
    assert sorted(re.sub("-[0-9a-f]{8}$", "", name) for name in records) == [
        "knn",
        "knn-k-2",
        "knn-k-3",
    ]
    for name, record in records.items():
        assert name.startswith(f"knn-k-{record['settings']['k']}-") or (
            name,
            record["settings"]["k"],
        ) == ("knn", 10)


def test_folders_of_long_settings_are_short_and_their_own():
    said = [f"flags=--é {'a/b ' * 100}{end}" for end in ("a", "b")]
    names = {
        protocol_folder(protocol)
        for text in said
        for protocol in select_protocols(["finetune"], parse_settings([text]))
    }
    assert len(names) == 2
    assert all(
        re.fullmatch(r"finetune-flags-[ab-]+-[0-9a-f]{8}", name) and len(name) < 80
        for name in names
    )


def test_settings_go_to_the_protocols_that_have_them():
    both = select_protocols(["knn", "linear"], {"k": 3, "pooling": "mean"})
    assert both == [KNN(k=3, pooling="mean"), Linear(pooling="mean")]
    assert select_protocols(["linear"], parse_settings(["C=2", "pooling='max'"])) == [
        Linear(C=2.0, pooling="max")
    ]


def test_a_protocol_of_ones_own_works_the_same(corpus, encoder, tmp_path, capsys):
    name = f"{Nearest.__module__}:Nearest"
    (made,) = select_protocols([name])
    assert type(made).__name__ == "Nearest"
    melpatch(
        "evaluate",
        encoder,
        "--data",
        corpus,
        "--protocol",
        name,
        "--out",
        tmp_path / "out",
        "--json",
    )
    (record,) = json.loads(capsys.readouterr().out).values()
    assert record["settings"]["k"] == 1
    assert record["settings_changed"] == []
    (folder,) = (tmp_path / "out").iterdir()
    assert json.loads((folder / "scores.json").read_text(encoding="utf-8")) == record


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        (("nope",), (), "unknown protocol 'nope'; "),
        (("knn",), ("k",), "set = 'k'; allowed: NAME=VALUE, such as k=20"),
        (("knn",), ("k=1", "k=2"), r"set = \['k=1', 'k=2'\]; allowed: each setting once"),
        (
            ("knn",),
            ("C=1",),
            "set = 'C'; allowed: the settings of knn, which are components, k, pooling",
        ),
        (
            ("knn", "linear"),
            ("D=1",),
            "set = 'D'; allowed: the settings of knn, linear, which are C, components, k, pooling",
        ),
        (
            ("as_trained",),
            ("k=1",),
            "set = 'k'; allowed: the settings of as_trained, which are none",
        ),
        (("knn",), ("k=0",), "protocol knn: k = 0; allowed: 1 or more"),
        (("knn", "linear"), ("k=x",), r"protocol knn\.k: 'x' is not of type int"),
        (("knn",), ("pooling=min",), "protocol knn: pooling = 'min'; allowed: mean, std"),
        (
            ("melpatch.rng:uniform",),
            (),
            "protocols 'melpatch.rng:uniform' is a function; wanted: a protocol class",
        ),
        (
            ("melpatch.inference.model:Model",),
            (),
            "melpatch.inference.model:Model is not a protocol",
        ),
    ],
)
def test_protocols_that_cannot_be_made_say_why(names, changes, message):
    with pytest.raises(ConfigError, match=message):
        select_protocols(names, parse_settings(changes))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--split", "nope"), "'nope'; there are: test (6"),
        (("--split", "test", "test"), "--split test test; allowed: each once"),
        (("--seeds", "1", "1"), "--seeds 1 1; allowed: each once"),
        (("--protocol", "knn", "knn"), "allowed: each once"),
        (("--protocol", "nope"), "unknown protocol 'nope'"),
        (("--set", "nope=1"), "--set nope; allowed: the settings of"),
        (("--labels-per-class", "0"), "--labels-per-class 0; allowed: 1 or more"),
        (("--batch-size", "0"), "--batch-size 0; allowed: 1 to 1048576"),
        (("--workers", "-1"), "--workers -1; allowed: 0 to 1024"),
        (("--split-column", "nope"), "no column 'nope'"),
        (("--data", "nowhere"), "nowhere: no such folder or CSV file"),
        (("--out", "{corpus}/below"), "is not a folder that you may write to; give --out"),
    ],
)
@pytest.mark.parametrize("kind", ["classifier", "encoder"])
def test_what_cannot_be_scored_is_exit_code_2(
    corpus, kind, words, message, request, tmp_path, capsys
):
    run = request.getfixturevalue(kind)
    words = [word.format(corpus=corpus) for word in words]
    assert (
        main(["evaluate", str(run), "--data", str(corpus), "--out", str(tmp_path / "out"), *words])
        == 2
    )
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_later_protocol_that_cannot_score_keeps_the_others_from_starting(
    corpus, encoder, tmp_path, capsys
):
    words = [
        "--data",
        str(corpus),
        "--out",
        str(tmp_path / "out"),
        "--protocol",
        "knn",
        "as_trained",
    ]
    assert main(["evaluate", str(encoder), *words]) == 2
    assert (
        "a run of ssast has no labels of its own to score; fine-tune it first"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--out", "--features-dir"])
def test_a_run_that_may_not_be_written_to_says_what_to_give(
    corpus, encoder, tmp_path, flag, monkeypatch, capsys
):
    monkeypatch.setattr(os, "access", lambda path, mode: encoder not in (path, *path.parents))
    words = {
        "--out": ["--features-dir", str(tmp_path)],
        "--features-dir": ["--out", str(tmp_path)],
    }[flag]
    assert main(["evaluate", str(encoder), "--data", str(corpus), *words]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert f"since {encoder}" in line
    assert line.endswith(f"is not a folder that you may write to; give {flag}")


def test_a_classifier_alone_keeps_no_features(corpus, classifier, tmp_path):
    words = (
        "--features-dir",
        corpus,
        "--out",
        tmp_path / "out",
        "--no-floors",
    )  # a file, below which nothing can be written
    melpatch("evaluate", classifier, "--data", corpus, *words)
    assert (
        main(
            [
                "evaluate",
                str(classifier),
                "--data",
                str(corpus),
                *map(str, words),
                "--protocol",
                "knn",
            ]
        )
        == 2
    )


def test_a_folder_that_is_no_run_is_exit_code_2(corpus, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path), "--data", str(corpus)]) == 2
    assert (
        "config.toml: cannot be read (No such file or directory); give a run folder"
        in capsys.readouterr().err
    )


def test_labels_that_the_model_does_not_know_are_refused(corpus, tmp_path, capsys):
    run = write_run(tmp_path / "run", settings(("high", "low")))
    assert main(["evaluate", str(run), "--data", str(corpus)]) == 2
    assert f"label 'noise' is not one of {run}'s: high, low" in capsys.readouterr().err


def test_a_split_without_labels_is_refused(classifier, encoder, tmp_path, capsys):
    folder = write_folder(tmp_path / "sounds", per_class=2)
    rows = [(path, path.parent.name if n else "", "train" if n else "test")
            for n, path in enumerate(sorted(folder.rglob("*.*")))]  # fmt: skip
    listed = write_table(tmp_path / "corpus.csv", ("path", "label", "split"), rows)
    for run in (classifier, encoder):
        assert main(["evaluate", str(run), "--data", str(listed)]) == 2
        assert "'test'; there are: train (5); name one with --split" in capsys.readouterr().err


def test_a_folder_without_splits_is_told_to_have_folds_drawn(classifier, tmp_path, capsys):
    folder = write_folder(tmp_path / "sounds", per_class=2)
    assert main(["evaluate", str(classifier), "--data", str(folder), "--split", "test"]) == 2
    assert "draw folds with melpatch prepare DATA --folds 5" in capsys.readouterr().err


def test_a_run_is_not_taken_for_sound(classifier, encoder, capsys):
    assert main(["evaluate", str(classifier), "--data", str(encoder)]) == 2
    assert f"{encoder} is a run; give a folder that holds sound" in capsys.readouterr().err


def test_a_corpus_without_labels_is_refused(classifier, encoder, tmp_path, capsys):
    folder = write_folder(tmp_path / "sounds", per_class=1)
    for run in (classifier, encoder):
        assert main(["evaluate", str(run), "--data", str(folder / "low"), "--split", ""]) == 2
        assert "none of 1 clip has a label" in capsys.readouterr().err


def test_a_folder_without_splits_is_scored_whole_if_asked_for(classifier, tmp_path, capsys):
    folder = write_folder(tmp_path / "sounds", per_class=1)
    assert (
        evaluate(classifier, folder, tmp_path / "out", capsys, "--split", "")["as_trained"]["n"]
        == 3
    )


def test_events_are_scored_beside_the_clips(tmp_path, capsys):
    """Of two classes one always has half of the probability; what is found is what predict finds."""
    classifier = write_run(tmp_path / "run", settings(("high", "low")))
    rows = []
    for number in range(2):
        sound = write_sound(tmp_path / f"{number}.wav", seconds=3.0, seed=number)
        rows += [(sound, 0, 1, "low"), (sound, 1, 3, "high")]
    truth = write_table(tmp_path / "truth.csv", ("path", "start", "end", "label"), rows)
    words = ["evaluate", classifier, "--data", truth, "--protocol", "as_trained", "--no-floors"]
    words += ["--true-events", truth, "--hop", "0.5", "--event-gap", "0.5", "--out", tmp_path / "o"]
    capsys.readouterr()
    melpatch(*words, "--json")
    events = json.loads(capsys.readouterr().out)["events"]
    assert json.loads((tmp_path / "o" / "events.json").read_text()) == events
    assert (events["gap"], events["recordings"], events["micro"]["true"]) == (0.5, 2, 4)
    found = ("predict", classifier, tmp_path / "0.wav", tmp_path / "1.wav", "--hop", "0.5")
    found += ("--event-gap", "0.5", "--events", tmp_path / "e.csv", "--out", tmp_path / "p.csv")
    melpatch(*found, "--threshold", "0.5")
    assert events["micro"]["guessed"] == len(read_table(tmp_path / "e.csv")) > 0
    melpatch(*words)
    assert "all events" in capsys.readouterr().out
    # Alone, into a folder of the run; at a threshold that nothing reaches there are none.
    alone = ("evaluate", classifier, "--true-events", truth, "--hop", "0.5")
    melpatch(*alone, "--event-gap", "0.5", "--json")
    own = json.loads(capsys.readouterr().out)["events"]
    written = classifier / "evaluation" / "events-truth" / "events.json"
    assert json.loads(written.read_text()) == own
    assert own["micro"] == events["micro"]
    melpatch(*alone, "--threshold", "1", "--false-alarms", "0")
    assert "all events" in capsys.readouterr().out
    none = json.loads(written.read_text())
    assert none["micro"]["guessed"] == 0
    assert none["thresholds"] == {"high": 1, "low": 1}
    assert none["false_alarms"] == 0


def test_something_to_score_is_needed(capsys):
    assert main(["evaluate", "run"]) == 2
    assert "--data), or true events of long recordings (--true-events with --hop)" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("words", [["--hop", "1"], ["--true-events", "t.csv"]])
def test_events_need_a_hop_and_what_is_true(words, capsys):
    assert main(["evaluate", "run", "--data", "x", *words]) == 2
    assert "give both" in capsys.readouterr().err
