"""ESC-50 with an honest choice: a fold that is not scored chooses the epoch, and no label of the scored one matters."""

import pytest
from journeys.three_sounds import read_table, settings, write_corpus, write_run, write_table
from protocols.fine_tuned import evaluate, measured, results

from melpatch.data.manifest import load_corpus
from melpatch.training.run import Run

LABEL_COLUMNS = ("label", "false_in_test", "false_in_val")
WRONG = {"high": "low", "low": "noise", "noise": "high"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A corpus with two columns of labels more: wrong where fold 0 is scored, all the same where fold 1 chooses, so
    that even a network that takes all clips for the same scores otherwise."""
    corpus = write_corpus(tmp_path_factory.mktemp("sounds"))
    rows = []
    for row in read_table(corpus):
        fold, label = row["fold"], row["label"]
        rows.append(
            (
                row["path"],
                fold,
                label,
                WRONG[label] if fold == "0" else label,
                "high" if fold == "1" else label,
            )
        )
    return write_table(corpus, ("path", "fold", *LABEL_COLUMNS), rows)


@pytest.fixture(scope="module")
def evaluations(corpus, tmp_path_factory):
    """Folder and record of the same evaluation under each column of labels."""
    run = write_run(tmp_path_factory.mktemp("runs") / "pretrained", settings(depth=1))
    found = {}
    for column in LABEL_COLUMNS:
        out = tmp_path_factory.mktemp(column)
        words = (
            "keep_runs=true",
            "--split-column",
            "fold",
            "--split",
            "0",
            "--label-column",
            column,
        )
        record = evaluate("esc50_clean", run, corpus, out, "--epochs 3", *words)
        found[column] = (results(out) / "runs" / "0-0", record)
    return found


def test_the_labels_of_the_scored_clips_choose_nothing(evaluations):
    (true, told), (false, wrong) = (evaluations[name] for name in ("label", "false_in_test"))
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (true / name).read_bytes() == (false / name).read_bytes()
    chosen = [
        [one["trials"][0][name] for name in ("best_step", "val_score")] for one in (told, wrong)
    ]
    assert chosen[0] == chosen[1]
    assert told["metrics"]["mAP"] != wrong["metrics"]["mAP"]


def test_the_labels_of_the_fold_after_it_choose(evaluations):
    (true, told), (false, _) = (evaluations[name] for name in ("label", "false_in_val"))
    assert measured(true, "loss") == measured(false, "loss")
    assert measured(true, "val_accuracy") != measured(false, "val_accuracy")
    scores = measured(true, "val_accuracy")
    assert [*scores] == [1, 2, 3]  # one step to an epoch
    (trial,) = told["trials"]
    assert trial["best_step"] == max(scores, key=lambda step: (scores[step], -step))


def test_the_third_fold_alone_is_learnt_from(corpus, evaluations):
    clips = load_corpus([corpus], split_column="fold").clips
    learnt = Run.trained_on(evaluations["label"][0])
    for clip in clips:
        assert (learnt >= {*clip.identities}) == (clip.split == "2")
    assert evaluations["label"][1]["splits"] == [
        {"split": "0", "train_clips": 6, "val_clips": 6, "test_clips": 6}
    ]
