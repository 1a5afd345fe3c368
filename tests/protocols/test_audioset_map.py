"""AudioSet as published: averaged weights, nothing chosen, mAP; and no corpus without several labels to a clip."""

import pytest
import torch
from journeys.three_sounds import read_table, settings, write_corpus, write_run, write_table
from protocols.fine_tuned import evaluate, measured, results, words

from melpatch.checkpoint import load_weights
from melpatch.cli import main
from melpatch.objectives.classify import Classify


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "pretrained", settings(depth=1))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"))


def test_the_mean_of_the_last_epochs_weights_is_scored_by_map(run, corpus, tmp_path, monkeypatch):
    rows = [
        (
            row["path"],
            row["label"] if row["label"] == "noise" else f"{row['label']};tone",
            row["split"],
        )
        for row in read_table(corpus)
    ]
    several = write_table(corpus.with_name("several.csv"), ("path", "label", "split"), rows)
    states = []

    def keep(one, _):
        return states.append({name: value.clone() for name, value in one.state_dict().items()})

    monkeypatch.setattr(Classify, "after_step", keep)
    flags = "--epochs 4 --batch-size 9 --average-last 0.6"
    record = evaluate("audioset_map", run, several, tmp_path, flags, "keep_runs=true")
    assert (record["metric"], record["value"]) == ("mAP", record["metrics"]["mAP"])
    assert {"mAUC", "d_prime"} <= record["metrics"].keys()
    assert record["splits"] == [
        {"split": "test", "train_clips": 9, "val_clips": 0, "test_clips": 6}
    ]
    (trial,) = record["trials"]
    assert (trial["steps"], trial["averaged"]) == (4, 3)  # a step to an epoch, without the first
    folder = results(tmp_path) / "runs" / "test-0"
    assert measured(folder, "val_mAP") == {}
    kept = load_weights(folder / "model.safetensors")
    for name, value in kept.items():
        torch.testing.assert_close(value, (states[1][name] + states[2][name] + states[3][name]) / 3)
    assert not torch.equal(kept["head.1.weight"], states[3]["head.1.weight"])


def test_one_label_to_a_clip_is_refused(run, corpus, tmp_path, capsys):
    assert main(words("audioset_map", run, corpus, tmp_path / "out", "")) == 2
    assert (
        "no clip has several labels, which audioset_map needs; give --protocol finetune"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()
