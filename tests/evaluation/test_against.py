"""Two runs on the same clips: what the record, the table and the sentences say."""

import json
import shutil
from dataclasses import replace

import pytest
from journeys.three_sounds import LABELS, melpatch, settings, write_corpus, write_run

from melpatch.errors import ConfigError
from melpatch.evaluation.against import describe_verdicts
from melpatch.evaluation.evaluate import evaluate


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("sounds"))


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Let no picture be drawn, which takes longer than all else."""
    for kind in ("confusion", "per_class"):
        monkeypatch.setattr(f"melpatch.evaluation.pictures.{kind}", lambda path, **_: None)


def run_of(folder, labels, seed):
    return write_run(folder, replace(settings(labels), seed=seed))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    reordered = tuple(reversed(LABELS))
    return run_of(folder / "a", LABELS, 0), run_of(folder / "b", reordered, 1)


def test_two_classifiers_are_compared_clip_by_clip(corpus, runs, capsys):
    ours, theirs = runs
    melpatch("evaluate", ours, "--data", corpus, "--against", theirs, "--no-floors", "--json")
    record = json.loads(capsys.readouterr().out)["as_trained"]
    alone = evaluate(theirs, corpus, floors=False)["as_trained"]
    against = record["against"]
    assert (against["run"], against["value"]) == (str(theirs), alone["value"])
    assert against["difference"] == pytest.approx(record["value"] - alone["value"])
    assert against["difference_95"][0] <= against["difference"] <= against["difference_95"][1]
    assert against["test"] == "McNemar, exact"
    assert against["clips"] == record["n"] == 6
    assert alone["against"] is None
    melpatch("evaluate", ours, "--data", corpus, "--against", theirs, "--no-floors")
    shown = capsys.readouterr()
    assert "against" in shown.out
    assert "tell the two runs apart" in shown.err


def test_the_other_runs_scores_of_other_data_of_the_same_name_stay(corpus, runs, tmp_path):
    """They are beside those of these data, as when it is scored by itself."""
    ours, theirs = (shutil.copytree(run, tmp_path / run.name) for run in runs)
    same_name = write_corpus(tmp_path / "elsewhere" / corpus.parent.name)
    evaluate(theirs, corpus, floors=False)
    before = {path: path.read_bytes() for path in theirs.rglob("*.*") if path.is_file()}
    evaluate(ours, same_name, floors=False, against=theirs)
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_is_not_compared_with_itself(corpus, runs):
    with pytest.raises(ConfigError, match="another run"):
        evaluate(runs[0], corpus, against=runs[0])


def test_classifiers_of_other_classes_cannot_be_compared(corpus, runs, tmp_path):
    more = run_of(tmp_path / "more", (*LABELS, "hum"), 2)
    with pytest.raises(ConfigError, match=r"only one of the two runs has the classes hum"):
        evaluate(runs[0], corpus, against=more, floors=False)


def test_the_verdict_says_what_would_be_needed():
    against = {
        "by": "group",
        "clips": 180,
        "groups": 9,
        "p_value": 0.3,
        "test": "sign flips of groups",
        "clips_needed": 900,
        "groups_needed": 1045,
    }
    (sentence,) = describe_verdicts({"linear": {"against": against}, "knn": {"against": None}})
    assert sentence == (
        "linear: the 9 groups do not tell the two runs apart (p = 0.3, sign flips of groups); "
        "a difference like this takes some 1,045 groups (80 % power)"
    )
    (sentence,) = describe_verdicts({"linear": {"against": against | {"p_value": 0.002}}})
    assert sentence.startswith("linear: the 9 groups tell the two runs apart (p = 0.002")
