"""Fine-tuning as a protocol: the training of ``melpatch finetune``, in trials that go on and are not repeated."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from journeys.three_sounds import LABELS, melpatch, read_table, settings, write_corpus, write_run
from protocols.fine_tuned import FLAGS, evaluate, measured, results, words

from melpatch.checkpoint import load_weights
from melpatch.cli import main
from melpatch.config import from_toml
from melpatch.evaluation import report
from melpatch.inference.model import load
from melpatch.objectives.classify import Classify
from melpatch.protocols.as_trained import AsTrained
from melpatch.training.config import RunConfig
from melpatch.workflows import classifier

STEPS = "--steps 5 --evaluations 5"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "pretrained", settings(depth=1))


@pytest.fixture(scope="module")
def whole(corpus, run, tmp_path_factory):
    """An evaluation that nobody stopped, with its record."""
    out = tmp_path_factory.mktemp("whole")
    record = evaluate("finetune", run, corpus, out, STEPS, "keep_runs=true")
    return results(out), record


def test_the_training_is_that_of_the_command(corpus, run, whole, tmp_path):
    melpatch(
        "finetune",
        "--data",
        corpus,
        "--init",
        run,
        "--out",
        tmp_path / "run",
        "--head-start",
        "random",
        *FLAGS,
        *STEPS.split(),
    )
    theirs, ours = tmp_path / "run", whole[0] / "runs" / "test-0"
    assert (ours / "metrics.jsonl").read_bytes() == (theirs / "metrics.jsonl").read_bytes()
    states = [load_weights(folder / "model.safetensors") for folder in (ours, theirs)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    configs = [from_toml(RunConfig, folder / "config.toml") for folder in (ours, theirs)]
    assert configs[0] == replace(configs[1], data=())


def test_the_tuned_network_is_scored_in_the_arithmetic_that_is_told(
    corpus, run, tmp_path, monkeypatch
):
    seen = []
    run_trial = AsTrained.run_trial

    def noted(protocol, job, *where):
        seen.append(job.model.precision)
        return run_trial(protocol, job, *where)

    monkeypatch.setattr(AsTrained, "run_trial", noted)
    bf16 = ("--precision", "bf16-mixed", "--no-floors")
    record = evaluate("finetune", run, corpus, tmp_path, "--steps 1", *bf16)
    assert seen == [record["precision"]] == ["bf16-mixed"]


def test_the_test_clips_are_scored_with_the_weights_that_validation_chose(corpus, whole):
    out, record = whole
    lines, model = read_table(out / "predictions.csv"), load(out / "runs" / "test-0")
    tests = [
        str(corpus.parent / row["path"]) for row in read_table(corpus) if row["split"] == "test"
    ]
    assert [line["path"] for line in lines] == tests
    for line in lines:
        row = [float(line[name]) for name in LABELS]
        assert row == pytest.approx(
            [*model.predict(line["path"])[0].probabilities.values()], abs=2e-3
        )
    assert record["value"] == pytest.approx(
        np.mean([line["label"] == line["predicted"] for line in lines])
    )
    (trial,) = record["trials"]
    scores = measured(out / "runs" / "test-0", "val_accuracy")
    assert (trial["best_step"], trial["val_score"]) == max(
        scores.items(), key=lambda item: (item[1], -item[0])
    )
    assert (trial["steps"], trial["train_clips"]) == (5, 9)
    assert trial["cpu_seconds"] is not None
    assert record["settings_changed"] == ["flags", "keep_runs"]


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def halted(corpus, run, tmp_path_factory):
    """An evaluation that was stopped in its fourth step, after a save."""
    out = tmp_path_factory.mktemp("halted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classify, "after_step", lambda _, step: step == 3 and interrupt())
        assert main(words("finetune", run, corpus, out, STEPS)) == 130
    return out


@pytest.fixture
def stopped(halted, tmp_path):
    """A copy of it."""
    shutil.copytree(halted, tmp_path, dirs_exist_ok=True)
    assert [path.name for path in (results(tmp_path) / "runs" / "test-0" / "resume").iterdir()] == [
        "step-000000002"
    ]
    assert not (results(tmp_path) / "trials").exists()
    return tmp_path


def test_a_killed_trial_goes_on_and_a_finished_one_is_not_repeated(
    corpus, run, whole, stopped, monkeypatch
):
    record, folder = (
        evaluate("finetune", run, corpus, stopped, STEPS),
        results(stopped) / "runs" / "test-0",
    )
    assert (folder / "metrics.jsonl").read_bytes() == (
        whole[0] / "runs" / "test-0" / "metrics.jsonl"
    ).read_bytes()
    assert read_table(results(stopped) / "predictions.csv") == read_table(
        whole[0] / "predictions.csv"
    )
    costs = (record["trials"][0]["cpu_seconds"], record["trials"][0]["seconds"], record["seconds"])
    assert costs == (None, None, None)  # of which there is no telling
    assert not {"resume", "model.safetensors"} & {path.name for path in folder.iterdir()}
    monkeypatch.setattr(classifier, "fit", interrupt)
    assert evaluate("finetune", run, corpus, stopped, STEPS)["value"] == record["value"]


def test_a_killed_trial_goes_on_from_another_working_directory(corpus, run, stopped, monkeypatch):
    monkeypatch.chdir(run.parent)
    record = evaluate("finetune", Path(run.name), corpus, stopped, STEPS)
    assert record["trials"][0]["cpu_seconds"] is None


def test_a_trial_that_is_killed_before_it_is_written_is_not_trained_again(
    corpus, run, whole, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", interrupt)
        assert main(words("finetune", run, corpus, tmp_path, STEPS)) == 130
    monkeypatch.setattr(Classify, "after_step", interrupt)
    assert evaluate("finetune", run, corpus, tmp_path, STEPS)["value"] == whole[1]["value"]
    folder = results(tmp_path) / "runs" / "test-0"
    assert (folder / "metrics.jsonl").read_bytes() == (
        whole[0] / "runs" / "test-0" / "metrics.jsonl"
    ).read_bytes()
    assert not {"resume", "model.safetensors"} & {path.name for path in folder.iterdir()}


def test_what_was_begun_under_other_settings_stays_and_is_not_gone_on_with(
    corpus, run, stopped, monkeypatch
):
    begun = results(stopped)
    monkeypatch.setattr(report, "_draw", lambda *_: None)
    melpatch(*words("finetune", run, corpus, stopped, "--steps 2"))
    (other,) = {*stopped.iterdir()} - {begun}
    assert [*measured(other / "runs" / "test-0", "loss")] == [1, 2]
    assert (begun / "runs" / "test-0" / "resume").exists()


def test_a_recipe_that_says_something_else_by_now_is_trained_anew(
    corpus, run, tmp_path, monkeypatch
):
    evaluate("finetune", run, corpus, tmp_path, "--steps 1")
    settings_of = classifier.recipe_settings

    def other(*given, **named):
        config = settings_of(*given, **named)
        return replace(config, train=replace(config.train, weight_decay=0.5))

    monkeypatch.setattr(classifier, "recipe_settings", other)
    evaluate("finetune", run, corpus, tmp_path, "--steps 1")
    trained = from_toml(RunConfig, results(tmp_path) / "runs" / "test-0" / "config.toml")
    assert trained.train.weight_decay == 0.5


def test_untrained_networks_and_few_labels(corpus, run, tmp_path):
    more = (
        "keep_runs=true",
        "--random-weights",
        "--labels-per-class",
        "2",
        "--seeds",
        "5",
    )  # the run itself stands at seed 0
    record = evaluate("finetune", run, corpus, tmp_path, "--steps 1", *more)
    assert record["initialisation"] == "random weights"
    assert record["trials"][0]["train_clips"] == 6
    folder = results(tmp_path) / "runs" / "test-5"
    ours, theirs = (from_toml(RunConfig, each / "config.toml") for each in (folder, run))
    assert (ours.front_end, ours.encoder, ours.train.layer_decay) == (
        theirs.front_end,
        theirs.encoder,
        1.0,
    )
    before, after = (load_weights(each / "model.safetensors") for each in (run, folder))
    name = "encoder.projection.weight"
    assert (before[name] - after[name]).abs().mean() > 3 * 3e-3  # further than one step leads


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "flags=--epoch 3",
            "flags = '--epoch 3'; allowed: flags of a training, as melpatch finetune --recipe finetune",
        ),
        ("flags=--lr 'x", 'flags = "--lr \'x"; allowed: flags of a training'),
        ("flags=--lr -1", "lr = -1.0; allowed: above 0"),
        (
            "flags=--seed 3",
            "flags: seed = 3; allowed: nothing, since the evaluation decides it; leave it out",
        ),
        ("recipe=ssast", "ssast learns without labels, so it trains no classifier; allowed"),
        ("recipe=nope", "unknown recipe or objective 'nope'"),
    ],
)
def test_what_cannot_be_trained_is_exit_code_2_before_anything_is(
    corpus, run, setting, message, tmp_path, capsys
):
    asked = ["--out", str(tmp_path / "out"), "--protocol", "knn", "finetune", "--set", setting]
    assert main(["evaluate", str(run), "--data", str(corpus), *asked]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
