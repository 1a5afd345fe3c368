"""What a record of scores tells beside the scores."""

import json
from dataclasses import dataclass, replace
from typing import Literal

import pytest
from journeys.three_sounds import settings
from protocols.made_up import corpus, job

from melpatch.protocols.knn import KNN
from melpatch.scoring import score, trained_on, warn
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
    assert record["settings"] == {"k": 3, "pooling": "frequency", "weights": "near"}


def test_the_record_says_how_it_came_about_and_is_what_is_written(asked):
    record = score(KNN(k=3), asked)
    assert json.loads((asked.out / "scores.json").read_text(encoding="utf-8")) == record
    assert record["split_rule"].startswith("learns from train")
    assert record["selection_rule"] == "nothing is selected"
    assert (record["run"], record["method"], record["corpus"]) == (
        str(asked.run),
        "SSAST",
        "made up",
    )
    assert record["environment"]["packages"].keys() >= {"melpatch", "scikit-learn"}
    for name in ("seconds", "embedding_seconds"):
        assert record[name] == pytest.approx(sum(one[name] for one in record["trials"]), abs=0.01)


def test_where_a_run_started_from_is_told(asked):
    assert score(KNN(), asked)["initialisation"] == "trained from random weights"
    asked.run.mkdir(exist_ok=True)
    (asked.run / "command.toml").write_text('init = "runs/first"\n')
    assert score(KNN(), asked)["initialisation"] == "trained from runs/first"


def test_a_run_that_did_not_note_its_clips_has_heard_none(asked):
    assert trained_on(asked, asked.corpus.clips) == 0


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
    assert trained_on(asked, asked.corpus.clips) == 3
    assert trained_on(replace(asked, untrained=True), asked.corpus.clips) == 0
    warn([KNN()], [asked])
    told = " ".join(capsys.readouterr().err.split())
    assert (
        f"3 of the scored clips trained {first}, from which {asked.run} started; scores may be too good"
        in told
    )
    assert "itself" not in told


def test_scores_stand_without_matplotlib(asked, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    assert score(KNN(), asked)["value"] > 0.9
    assert "pip install 'melpatch[plots]'" in capsys.readouterr().err
    assert {path.name for path in asked.out.iterdir()} == {
        "scores.json",
        "predictions.csv",
        "trials",
    }
