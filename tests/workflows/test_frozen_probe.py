"""The linear probe beside a fine-tuning: the same as the kept one, told first, held against the end."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from journeys.three_sounds import (
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
from melpatch.inference.model import load
from melpatch.workflows import frozen_probe
from melpatch.workflows.kept_weights import describe_loss


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "pretrained", settings(depth=1))


def finetune(corpus, out, *words):
    given = ("--data", corpus, "--out", out, "--steps", "2", "--head-start", "random", *SHORT)
    melpatch("finetune", *given, *words)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_probe_is_told_first_and_a_network_below_it_is_told(
    corpus, pretrained, tmp_path, capsys
):
    # A network that learns nothing stays at random weights of its head, below any probe.
    finetune(corpus, tmp_path / "run", "--init", pretrained, "--lr", "1e-9", "--resume")
    told = capsys.readouterr().err
    finetune(corpus, tmp_path / "kept", "--init", pretrained, "--head", "linear")
    probe = read(tmp_path / "run" / "linear_probe.json")
    kept = read(tmp_path / "kept" / "validation.json")
    assert {name: probe[name] for name in kept} == kept
    accuracy = probe["metrics"]["accuracy"]
    line = f"for comparison: accuracy on validation {accuracy:.3f}"
    assert line in told
    record = read(tmp_path / "run" / "validation.json")
    assert record["linear_probe"] == probe["metrics"]
    tuned = record["metrics"]["accuracy"]
    assert tuned < accuracy
    below = (
        "the trained network ends below the linear probe on validation: "
        f"accuracy {tuned:.3f} against {accuracy:.3f} on 3 clips; melpatch finetune --head linear"
    )
    assert below in record["warnings"][-1]
    assert below in told
    assert told.index(line) < told.index("done: ") < told.index(below)

    # A resumed run has other weights, and what was measured before its first step.
    finetune(corpus, tmp_path / "run", "--init", pretrained, "--lr", "1e-9", "--resume")
    assert "for comparison" not in capsys.readouterr().err
    assert read(tmp_path / "run" / "validation.json") == record


def test_the_probe_changes_nothing_about_the_training(corpus, pretrained, tmp_path, capsys):
    finetune(corpus, tmp_path / "with", "--init", pretrained)
    capsys.readouterr()
    finetune(corpus, tmp_path / "without", "--init", pretrained, "--no-probe")
    told = capsys.readouterr().err
    assert "for comparison" not in told
    assert "no linear probe" not in told
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("with", "without")]
    assert metrics[0] == metrics[1]
    assert not (tmp_path / "without" / "linear_probe.json").exists()


@pytest.mark.parametrize(
    ("limit", "value", "reason"),
    [
        (None, 0, "there are no validation clips to compare on"),
        ("_MOST_CLIPS", 8, "9 clips of 3 classes take more than seconds (--head linear fits one)"),
        ("_SECONDS_OF_WORK", 1, "embedding 12 windows takes more than seconds"),
    ],
)
def test_where_there_is_no_probe_it_is_said_why(
    corpus, pretrained, limit, value, reason, tmp_path, monkeypatch, capsys
):
    if limit is None:
        corpus = write_folder(tmp_path / "sounds", per_class=2)
    else:
        monkeypatch.setattr(frozen_probe, limit, value)
    finetune(corpus, tmp_path / "run", "--init", pretrained, "--seconds", "1.4")
    assert f"no linear probe beside the fine-tuning: {reason}" in capsys.readouterr().err
    assert not (tmp_path / "run" / "linear_probe.json").exists()


def test_features_are_kept_with_the_new_run_where_the_old_one_cannot_be_written(
    corpus, pretrained, tmp_path, monkeypatch
):
    def access(path, mode):
        return not Path(path).is_relative_to(pretrained) and os.access(path, mode)

    monkeypatch.setattr(
        frozen_probe, "os", SimpleNamespace(access=access, W_OK=os.W_OK, X_OK=os.X_OK)
    )
    finetune(corpus, tmp_path / "kept", "--init", pretrained, "--head", "linear")
    assert any((tmp_path / "kept" / "features").iterdir())


def test_a_network_that_is_as_good_as_its_probe_is_not_told():
    record = {"selected_by": "mAP", "metrics": {"mAP": 0.5}, "clips": 9}
    assert describe_loss(record, {"metrics": {"mAP": 0.5}}) is None
    assert describe_loss(record, {"metrics": {}}) is None
    assert describe_loss(record, None) is None
    assert "mAP 0.500 against 0.501" in describe_loss(record, {"metrics": {"mAP": 0.501}})


def test_a_kept_probe_has_the_asked_weights_of_classes(corpus, pretrained, tmp_path):
    words = ("--init", pretrained, "--head", "linear")
    heads = []
    for name, weights in (("equal", ()), ("given", ("--objective.class-weights", 1, 1, 50))):
        finetune(corpus, tmp_path / name, *words, *weights)
        heads.append(load(tmp_path / name).objective)
    assert heads[1].config.class_weights == (1, 1, 50)
    # What weighs more is predicted more.
    grown = heads[1].head[1].bias - heads[0].head[1].bias
    assert grown.argmax() == 2


def test_a_kept_probe_hears_uneven_classes_alike(corpus, pretrained, tmp_path, capsys):
    rows = [tuple(row.values()) for row in read_table(corpus)]
    # Two of the three training clips of one class are left out.
    kept = [row for number, row in enumerate(rows) if number not in (0, 1)]
    uneven = write_table(corpus.with_name("uneven.csv"), ("path", "label", "split", "fold"), kept)
    words = ("--init", pretrained, "--head", "linear", "--labels-per-class", 3)
    heads = {}
    for rule in ("auto", "balanced", "equal"):
        finetune(uneven, tmp_path / rule, *words, "--objective.loss-weights", rule)
        assert ("with weights of classes" in capsys.readouterr().err) == (rule != "equal")
        heads[rule] = load(tmp_path / rule).objective
    finetune(uneven, tmp_path / "default", *words)
    assert load(tmp_path / "default").objective.config == heads["auto"].config
    assert heads["auto"].config.class_weights == pytest.approx((7 / 3, 7 / 9, 7 / 9), abs=1e-5)
    weights = {rule: head.head[1].weight for rule, head in heads.items()}
    assert torch.equal(weights["auto"], weights["balanced"])
    assert not torch.equal(weights["auto"], weights["equal"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--objective.loss-weights", "sqrt"), "--objective.loss-weights sqrt; allowed: left out"),
        (("--objective.class-weights", "1", "2", "3"), "--objective.class-weights"),
    ],
)
def test_a_probe_of_tokens_has_no_weights_of_classes(
    words, told, corpus, pretrained, tmp_path, capsys
):
    given = ("--data", corpus, "--init", pretrained, "--out", tmp_path / "run", *SHORT)
    assert main(["finetune", *map(str, given), "--head", "prototype", *words]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
