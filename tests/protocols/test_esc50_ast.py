"""ESC-50 as published: one epoch for all folds, chosen on what is scored, and the last epoch beside it."""

from pathlib import Path

import numpy as np
import pytest
from journeys.three_sounds import LABELS, read_table, settings, write_corpus, write_run
from protocols.fine_tuned import evaluate, measured, results, words

from melpatch.cli import main
from melpatch.data.clip import Clip
from melpatch.data.manifest import load_corpus
from melpatch.errors import CheckpointError, ConfigError
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.trials import TrialResult
from melpatch.objectives.classify import Classify
from melpatch.protocols.esc50_ast import ESC50AST

FOLDS = ("--split-column", "fold", "--split", "0", "2")
EPOCHS = "--epochs 4"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "pretrained", settings(depth=1))


@pytest.fixture(scope="module")
def whole(corpus, run, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    record = evaluate("esc50_ast", run, corpus, out, EPOCHS, *FOLDS)
    return results(out), record


def kept_epochs(out, fold):
    """What the classifier of a fold said after each epoch: a row of probabilities by the key of the clip."""
    found = []
    for path in sorted((out / "runs" / f"{fold}-0" / "epochs").iterdir()):
        with np.load(path) as kept:
            found.append(dict(zip(kept["keys"].tolist(), kept["probabilities"], strict=True)))
    return found


def test_the_score_is_that_of_the_best_epoch_of_the_mean_of_the_folds(corpus, whole):
    out, record = whole
    clips = {clip.key: clip for clip in load_corpus([corpus], split_column="fold").clips}
    curves = []
    for fold, trial in zip(("0", "2"), record["trials"], strict=True):
        epochs = kept_epochs(out, fold)
        assert len(epochs) == 4
        assert {clips[key].split for key in epochs[0]} == {fold}
        curves.append([])
        for rows in epochs:
            right = [
                LABELS[int(np.argmax(row))] == clips[key].labels[0] for key, row in rows.items()
            ]
            curves[-1].append(sum(right) / 6)
        assert trial["curve"] == pytest.approx(curves[-1])
        assert trial["curve"] == [*measured(out / "runs" / f"{fold}-0", "test_accuracy").values()]
    mean = [(first + second) / 2 for first, second in zip(*curves, strict=True)]
    (told,) = record["curves"]
    assert told["curve"] == pytest.approx(mean)
    assert told["best_epoch"] == mean.index(max(mean)) + 1
    assert record["value"] == pytest.approx(max(mean))
    assert record["last_epoch_value"] == pytest.approx(mean[-1])
    said = {fold: kept_epochs(out, fold)[told["best_epoch"] - 1] for fold in ("0", "2")}
    lines = read_table(out / "predictions.csv")
    by_path = {str(clip.path): clip for clip in clips.values()}
    for line in lines:
        row = [float(line[name]) for name in LABELS]
        assert row == pytest.approx(said[line["split"]][by_path[line["path"]].key], rel=1e-4)
    assert len(lines) == 12


def test_nothing_chooses_in_training(whole):
    out, record = whole
    assert "slightly too high" in record["selection_rule"]
    assert [
        (one["train_clips"], one["val_clips"], one["test_clips"]) for one in record["splits"]
    ] == [(12, 0, 6)] * 2
    assert not any("best_step" in trial for trial in record["trials"])
    assert [*measured(out / "runs" / "0-0", "test_accuracy")] == [
        2,
        4,
        6,
        8,
    ]  # two steps to an epoch


def test_an_evaluation_that_is_stopped_in_its_second_fold_ends_as_if_it_had_not_been(
    corpus, run, whole, tmp_path
):
    calls = []

    def stop(_, step):
        calls.append(step)
        if len(calls) == 8 + 5:  # after the second epoch of the second fold
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classify, "after_step", stop)
        assert main([*words("esc50_ast", run, corpus, tmp_path, EPOCHS), *FOLDS]) == 130
    again = evaluate("esc50_ast", run, corpus, tmp_path, EPOCHS, *FOLDS)
    assert {name: again[name] for name in ("value", "curves", "last_epoch_value")} == {
        name: whole[1][name] for name in ("value", "curves", "last_epoch_value")
    }
    assert [trial["cpu_seconds"] is None for trial in again["trials"]] == [False, True]
    for fold in ("0", "2"):
        ours, theirs = (kept_epochs(out, fold) for out in (results(tmp_path), whole[0]))
        for one, other in zip(ours, theirs, strict=True):
            assert all(np.array_equal(one[key], other[key]) for key in other)


CLIPS = tuple(Clip(Path(f"{key}.wav"), key, 0.0, 1.0) for key in (7, 5, 9))


def job_in(folder):
    """A job of which nothing but the place of its results counts."""
    job = EvaluationJob.__new__(EvaluationJob)
    object.__setattr__(job, "out", folder)
    return job


def made_up(job, curves, seed=0):
    """Trials of folds with these curves, the epochs' probabilities being (fold, epoch) in each row."""
    for fold, curve in enumerate(curves):
        folder = ESC50AST().folder(job, str(fold), seed) / "epochs"
        folder.mkdir(parents=True)
        for epoch, score in enumerate(curve):
            rows = np.tile([fold, epoch + 10.0 * seed], (3, 1))
            np.savez(
                folder / f"step-{10 * epoch:09d}.npz",
                keys=[5, 7, 9],
                probabilities=rows,
                score=score,
            )
    return [
        TrialResult(str(fold), seed, CLIPS, np.zeros((3, 2)), {"curve": curve})
        for fold, curve in enumerate(curves)
    ]


def test_one_epoch_is_taken_for_all_folds_of_a_seed_the_first_of_equals(tmp_path):
    job = job_in(tmp_path)
    first = [[0.1, 0.75, 0.5, 0.0, 0.5], [0.9, 0.25, 0.5, 0.0, 0.1]]  # means 0.5, 0.5, 0.5, 0, 0.3
    second = [
        [0.0, 0.0, 1.0, 0.5, 0.25],
        [0.0, 0.0, 0.0, 0.75, 0.75],
    ]  # the fourth, which is best in no fold alone
    trials = made_up(job, first) + made_up(job, second, seed=1)
    found, told = ESC50AST().finalize(job, trials)
    assert [(one.split, one.seed, one.probabilities[0].tolist()) for one in found] == [
        ("0", 0, [0, 0]),
        ("1", 0, [1, 0]),
        ("0", 1, [0, 13]),
        ("1", 1, [1, 13]),
    ]
    assert [clip.key for clip in found[0].clips] == [5, 7, 9]  # in the order of the rows
    assert [one["best_epoch"] for one in told["curves"]] == [1, 4]
    assert told["last_epoch_value"] == pytest.approx((0.3 + 0.5) / 2)


def test_folds_with_other_numbers_of_epochs_are_refused(tmp_path):
    job = job_in(tmp_path)
    with pytest.raises(ConfigError, match=r"evaluations = \[1, 2\]; allowed: as many in each fold"):
        ESC50AST().finalize(job, made_up(job, [[0.1, 0.2], [0.3]]))


@pytest.mark.parametrize("gone", [0, 2])
def test_an_epoch_that_is_gone_is_named_and_no_other_is_taken_for_it(tmp_path, gone):
    job = job_in(tmp_path)
    trials = made_up(job, [[0.1, 0.9, 0.5]])
    (tmp_path / "runs" / "0-0" / "epochs" / f"step-{10 * gone:09d}.npz").unlink()
    with pytest.raises(
        CheckpointError, match=r"runs/0-0: holds 2 of the 3 epochs .* delete .*trials/0-0\.npz"
    ):
        ESC50AST().finalize(job, trials)
