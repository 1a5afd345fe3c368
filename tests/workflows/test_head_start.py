"""Where a head starts: from the probe for own data, from random weights elsewhere, and as it was asked."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from journeys.three_sounds import SHORT, melpatch, settings, write_corpus, write_folder, write_run

from melpatch.checkpoint import load_weights
from melpatch.cli import main
from melpatch.config import from_toml
from melpatch.data.clip import Clip
from melpatch.data.corpus import Corpus
from melpatch.inference.model import load
from melpatch.training.run import COMMAND
from melpatch.workflows import frozen_probe
from melpatch.workflows.finetune import FinetuneConfig, finetune_defaults
from melpatch.workflows.head_start import describe_few_labels, starts_from_probe
from melpatch.workflows.initialize import SCRATCH

PROBE_POOLING = "rows+mean+std+delta+input"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "pretrained", settings(depth=1))


def finetune(corpus, out, *words):
    melpatch("finetune", "--data", corpus, "--out", out, "--steps", "2", *SHORT, *words)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def labelled(counts):
    labels = [label for label, count in counts.items() for _ in range(count)]
    clips = tuple(
        Clip(Path(f"{key}.wav"), key, 0.0, 1.0, (label,)) for key, label in enumerate(labels)
    )
    return Corpus("made up", clips, ("a", "b", "c"), False)


@pytest.mark.parametrize(
    ("counts", "told"), [({"a": 30, "b": 19}, None), ({"a": 30, "b": 9}, 19.5)]
)
def test_few_labels_are_told(counts, told):
    sentence = describe_few_labels(labelled(counts))
    if told is None:
        assert sentence is None
    else:
        assert sentence.startswith(f"{told:g} training clips per class (median) are few")


@pytest.mark.parametrize(
    ("asked", "recipe", "init", "changed", "expected"),
    [
        ("auto", "finetune", "run", {}, True),
        ("auto", "finetune", SCRATCH, {}, False),
        ("auto", "ast_esc50", "run", {}, False),
        ("auto", "finetune", "run", {"pooling": "mean"}, False),
        ("auto", "finetune", "run", {"head": "attentive"}, False),
        ("auto", "finetune", "run", {"layers": "mix"}, False),
        ("auto", "finetune", "run", {"label_smoothing": 0.0}, True),
        ("probe", "ast_esc50", SCRATCH, {"pooling": "mean"}, True),
        ("random", "finetune", "run", {}, False),
    ],
)
def test_what_decides_where_the_head_starts(asked, recipe, init, changed, expected):
    training = finetune_defaults().training
    training = replace(training, objective=replace(training.objective, **changed))
    corpus = labelled({"a": 3, "b": 3})
    assert starts_from_probe(asked, recipe, training, init, corpus, None) is expected


def test_a_probe_of_very_many_clips_is_not_fitted_unasked(monkeypatch):
    given = ("finetune", finetune_defaults().training, "run", labelled({"a": 3, "b": 3}), None)
    monkeypatch.setattr(frozen_probe, "_MOST_CLIPS", 5)
    assert not starts_from_probe("auto", *given)
    assert starts_from_probe("probe", *given)


def test_a_head_that_starts_from_the_probe_predicts_what_the_probe_does(
    corpus, pretrained, tmp_path
):
    words = ("--init", pretrained)
    finetune(corpus, tmp_path / "run", *words, "--steps", "0", "--seconds", "1.4")
    probe = read(tmp_path / "run" / "linear_probe.json")
    start = read(tmp_path / "run" / "validation.json")
    assert start["linear_probe"] == probe["metrics"]
    assert start["metrics"] == pytest.approx(probe["metrics"], abs=1e-6)
    state = load_weights(tmp_path / "run" / "model.safetensors")
    assert state["head.0.scale"].unique().numel() > 1
    # The start is among the best on three clips; the mean of the last weights is not the start.
    finetune(corpus, tmp_path / "trained", *words, "--average-last", "0.9")
    trained = load_weights(tmp_path / "trained" / "model.safetensors")
    for name in ("head.1.weight", "encoder.projection.weight"):
        assert not torch.equal(trained[name], state[name])


def test_a_network_that_training_made_worse_is_the_probe_that_it_started_from(
    corpus, pretrained, tmp_path, capsys
):
    finetune(corpus, tmp_path / "run", "--init", pretrained, "--lr", "30", "--seconds", "1.4")
    told = capsys.readouterr().err
    record = read(tmp_path / "run" / "validation.json")
    assert record["step"] == 0
    assert record["metrics"] == pytest.approx(record["linear_probe"], abs=1e-6)
    assert "from which the head starts: accuracy on validation" in told
    assert "no later step is better on validation than the start" in told
    lines = (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    start = json.loads(lines[0])
    assert start["step"] == 0
    assert start["val_accuracy"] == record["metrics"]["accuracy"]


def test_a_resumed_run_keeps_the_head_that_it_began_with(corpus, pretrained, tmp_path):
    words = ("--init", pretrained, "--evaluations", "2")
    finetune(corpus, tmp_path / "whole", *words)
    begun = tmp_path / "begun"
    finetune(corpus, begun, *words, "--resume")
    # As after a crash before the first checkpoint: settings are written, weights are not.
    shutil.rmtree(begun / "resume")
    for name in ("model.safetensors", "metrics.jsonl"):
        (begun / name).unlink()
    finetune(corpus, begun, *words, "--resume")
    assert from_toml(FinetuneConfig, begun / COMMAND).head_start == "auto"
    weights = [load_weights(tmp_path / name / "model.safetensors") for name in ("whole", "begun")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_without_validation_clips_the_head_starts_from_the_probe_too(pretrained, tmp_path, capsys):
    corpus = write_folder(tmp_path / "sounds", per_class=2)
    finetune(corpus, tmp_path / "run", "--init", pretrained)
    assert f"({PROBE_POOLING}), from which the head starts; " in capsys.readouterr().err
    config = load(tmp_path / "run").objective.config
    assert (config.head, config.pooling) == ("standardised", PROBE_POOLING)


def test_no_probe_is_no_head_from_it(corpus, pretrained, tmp_path):
    finetune(corpus, tmp_path / "run", "--init", pretrained, "--no-probe")
    assert load(tmp_path / "run").objective.config.head == "normed"


def test_random_weights_have_a_random_head_unless_asked(corpus, tmp_path, capsys):
    words = ("--init", "scratch", "--size", "nano")
    finetune(corpus, tmp_path / "random", *words)
    assert load(tmp_path / "random").objective.config.head == "normed"
    finetune(corpus, tmp_path / "probe", *words, "--head-start", "probe")
    assert load(tmp_path / "probe").objective.config.head == "standardised"


def test_mixed_layers_have_no_head_of_a_probe(corpus, pretrained, tmp_path, capsys):
    words = ["finetune", "--data", corpus, "--init", pretrained, "--out", tmp_path / "run", *SHORT]
    words += ["--head-start", "probe", "--objective.layers", "mix"]
    assert main([str(word) for word in words]) == 2
    assert "--head-start probe; allowed: random" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
