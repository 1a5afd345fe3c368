"""What a record of scores tells beside the scores."""

import itertools
import json
from dataclasses import dataclass, replace
from typing import Literal

import pytest
from journeys.three_sounds import read_table, settings
from protocols.made_up import corpus, job

from melpatch.evaluation.caveats import warn_about_scores
from melpatch.evaluation.provenance import trained_on
from melpatch.evaluation.report import score, warning_of
from melpatch.nn.pooling import DEFAULT_POOLING
from melpatch.protocols.knn import KNN
from melpatch.training.run import Run


@dataclass(frozen=True, kw_only=True)
class Choosy(KNN):
    """A protocol with a setting that is none by default."""

    weights: Literal["even", "near"] | None = None


@pytest.fixture
def asked(tmp_path):
    return job(tmp_path, corpus(36))


def test_settings_that_differ_are_named_even_from_none(asked):
    assert score(Choosy(), asked)["settings_changed"] == []
    record = score(Choosy(weights="near", k=3), asked)
    assert record["settings_changed"] == ["k", "weights"]
    assert record["settings"] == {
        "components": 128,
        "k": 3,
        "pooling": DEFAULT_POOLING,
        "ridge": 1.0,
        "scaling": "whitened",
        "weights": "near",
    }


def test_the_record_says_how_it_came_about_and_is_what_is_written(asked):
    record = score(KNN(k=3), asked)
    assert json.loads((asked.out / "scores.json").read_text(encoding="utf-8")) == record
    assert record["split_rule"].startswith("trains on train")
    assert record["selection_rule"] == "nothing is selected"
    assert (record["run"], record["objective"], record["corpus"]) == (
        str(asked.run),
        "ssast",
        "made up",
    )
    assert record["environment"]["packages"].keys() >= {"melpatch", "scikit-learn"}
    for name in ("seconds", "embedding_seconds"):
        assert record[name] == pytest.approx(sum(one[name] for one in record["trials"]), abs=0.01)


def test_places_in_long_recordings_are_told_apart(asked):
    places = itertools.count(1_000_000.25)
    clips = tuple(replace(clip, start=next(places)) for clip in asked.corpus.clips)
    score(KNN(k=3), replace(asked, corpus=replace(asked.corpus, clips=clips)))
    starts = {float(row["start"]) for row in read_table(asked.out / "predictions.csv")}
    assert starts <= {clip.start for clip in clips}


def test_titles_have_the_majority_rate_and_the_balanced_accuracy(asked, monkeypatch):
    titles = []
    for kind in ("confusion", "per_class"):
        monkeypatch.setattr(
            f"melpatch.evaluation.pictures.{kind}",
            lambda path, **given: titles.append(given["title"]),
        )
    record = score(KNN(), asked)
    metrics = record["metrics"]
    numbers = (metrics["accuracy"], metrics["balanced_accuracy"], metrics["majority_rate"])
    start = "accuracy {:.3f} (balanced {:.3f}, majority {:.3f}): ".format(*numbers)
    assert len(titles) == 2
    assert all(title.startswith(start) for title in titles)


def test_a_class_for_everything_is_a_warning_in_the_record(asked):
    """All clips are the nearest neighbours: everything is called the commonest training class."""
    record = score(KNN(k=len(asked.corpus.clips)), asked)
    assert record["warning"].startswith("every clip is called ")
    assert "majority_rate" not in record["metrics_95"]


def several_labels(how):
    """Return scores of a class that never reaches 0.5, and is given by a threshold of its own."""
    table = [{"label": name, "positives": 4, "predicted": 0, "AP": 0.9} for name in ("a", "b")]
    rows = [{"label": "a", "given": 3}, {"label": "b", "given": 0}]
    metrics = {"mAP": 0.9, "prevalence": 0.4}
    decisions = {"threshold_rule": how, "per_class": rows}
    return {"per_class": table, "metrics": metrics, "decisions": decisions}


def test_labels_count_as_given_by_the_thresholds_of_the_run():
    assert warning_of(several_labels("f1"), multi_label=True) == (
        "1 of 2 classes is never predicted: b"
    )
    expected = "2 of 2 classes never reach a probability of 0.5: a, b"
    assert warning_of(several_labels("none"), multi_label=True) == expected
    assert warning_of(several_labels("f1") | {"decisions": None}, multi_label=True) == expected


def test_a_protocol_that_learns_has_no_decisions_of_the_run(asked):
    assert score(KNN(), asked)["decisions"] is None


def test_where_a_run_started_from_is_told(asked):
    assert score(KNN(), asked)["initialisation"] == "trained from random weights"
    asked.run.mkdir(exist_ok=True)
    (asked.run / "command.toml").write_text('init = "runs/first"\n')
    assert score(KNN(), asked)["initialisation"] == "trained from runs/first"


def test_a_run_without_a_note_of_its_clips_has_an_unknown_count(asked, capsys):
    assert trained_on(asked, asked.corpus.clips).count is None
    assert score(KNN(), asked)["scored_clips_trained_on"] is None
    warn_about_scores([KNN()], [asked])
    assert f"{asked.run} has no note of the clips it was trained on" in capsys.readouterr().err


@pytest.mark.parametrize("trains", ["test", "train"])
def test_a_run_with_a_note_of_its_clips_has_a_count(asked, trains, capsys):
    asked.run.mkdir()
    Run(asked.run, settings()).remember(asked.corpus.select([trains]))
    count = score(KNN(), asked)["scored_clips_trained_on"]
    assert count == (len(asked.corpus.select(["test"]).clips) if trains == "test" else 0)
    warn_about_scores([KNN()], [asked])
    assert "no note of the clips" not in capsys.readouterr().err


@pytest.mark.parametrize("init", ["hf:owner/name", "{folder}/weights.safetensors", "{folder}/gone"])
def test_weights_without_a_note_have_an_unknown_count_even_if_the_run_has_one(
    asked, tmp_path, init
):
    init = init.format(folder=tmp_path)
    asked.run.mkdir()
    (asked.run / "command.toml").write_text(f'init = "{init}"\n')
    Run(asked.run, settings()).remember(asked.corpus.select(["train"]))
    trained = trained_on(asked, asked.corpus.clips)
    assert trained.unknown == (init,)
    assert trained.count is None


@pytest.mark.parametrize("first_init", ["scratch", "{run}"])  # or in a ring
@pytest.mark.parametrize("other", [False, True])  # whether its listing gave them other keys
def test_clips_that_an_earlier_run_heard_are_told(asked, tmp_path, capsys, first_init, other):
    """The scored run came from a second that noted no clips, and that from a first, which heard three scored clips."""
    first, second = tmp_path / "first", tmp_path / "second"
    for run, init in (
        (asked.run, second),
        (second, first),
        (first, first_init.format(run=asked.run)),
    ):
        run.mkdir(exist_ok=True)
        (run / "command.toml").write_text(f'init = "{init}"\n')
    scored = asked.corpus.select(["test"])
    listed = [replace(clip, key=~clip.key) if other else clip for clip in scored.clips[:3]]
    Run(first, settings()).remember(replace(scored, clips=tuple(listed)))
    trained = trained_on(asked, asked.corpus.clips)
    assert {run: len(keys) for run, keys in trained.keys.items()} == {str(first): 3}
    assert trained.unknown == (str(asked.run), str(second))
    assert trained.count is None
    assert trained_on(replace(asked, random_weights=True), asked.corpus.clips).count == 0
    warn_about_scores([KNN()], [asked])
    notices = " ".join(capsys.readouterr().err.split())
    assert (
        f"{first}, from which {asked.run} started, was trained on 3 of the scored clips; scores may be too high"
        in notices
    )
    for run in (asked.run, second):
        assert f"{run} has no note of the clips it was trained on" in notices


def test_scores_stand_without_matplotlib(asked, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert score(KNN(), asked)["value"] > 0.9
    assert "pip install 'melpatch[plots]'" in capsys.readouterr().err
    assert {path.name for path in asked.out.iterdir()} == {
        "scores.json",
        "predictions.csv",
        "trials",
    }
