"""A time budget: its spelling, the measured costs of a run, and how many steps fit into it."""

import time
from dataclasses import replace

import pytest
from journeys.three_sounds import SHORT, SMALL, melpatch, write_corpus
from tiny_runs import noises, settings

from melpatch.config import from_toml
from melpatch.errors import ConfigError
from melpatch.training.config import RunConfig
from melpatch.workflows import budget
from melpatch.workflows.budget import Costs, measure, parse_budget, within_budget

COSTS = Costs(step=0.5, evaluation=2.0, save=1.0, start=4.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("0.5h", 1800)],
)
def test_a_budget_is_parsed_into_seconds(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "30 m", "3d", "0s", "-5s", "30mm"])
def test_a_malformed_budget_is_refused(text):
    with pytest.raises(ConfigError, match="a time such as 45s, 30m, 2h or 1h30m"):
        parse_budget(text)


def test_steps_evaluations_and_saves_fill_the_budget():
    training = settings(save_every=10, evaluations=3)
    steps = COSTS.steps_within(100.0, training)
    spent = 4.0 + 3 * 2.0 + steps * 0.5 + (1 + steps / 10) * 1.0
    assert 100.0 - 0.6 < spent <= 100.0
    assert COSTS.steps_within(5.0, training) == 0


@pytest.mark.parametrize("steps", [6, 7, 9])
def test_the_costs_of_a_run_are_measured(steps, tmp_path):
    corpus = noises(tmp_path)
    begun = time.monotonic()
    costs = measure(settings(tmp_path), corpus, steps)
    spent = time.monotonic() - begun
    assert 0 < costs.step < spent
    assert 0 < costs.evaluation < spent
    assert costs.save > 0
    assert costs.start < spent


def test_a_longer_budget_is_measured_for_longer(tmp_path, monkeypatch):
    lengths = []

    def record_length(training, corpus, steps, ready):
        lengths.append(steps)
        return COSTS

    monkeypatch.setattr(budget, "measure", record_length)
    corpus = noises(tmp_path)
    training = within_budget(settings(tmp_path, save_every=500), corpus, "1h", time.monotonic())
    assert lengths == [6, 40]
    assert 6000 < training.train.steps < 7000
    with pytest.raises(ConfigError, match="--budget 5s is too short"):
        within_budget(settings(tmp_path), corpus, "5s", time.monotonic())


def test_evaluations_take_at_most_a_tenth_of_the_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "measure", lambda *_: COSTS)
    corpus = noises(tmp_path)
    for text, evaluations in (("10s", 1), ("1m", 3), ("1h", 10)):
        training = settings(tmp_path, evaluations=10)
        limited = within_budget(training, corpus, text, time.monotonic())
        assert limited.train.evaluations == evaluations


def test_a_resumed_run_keeps_the_steps_of_its_budget(tmp_path, monkeypatch, capsys):
    corpus = write_corpus(tmp_path / "sounds")
    monkeypatch.setattr(budget, "measure", lambda *_: replace(COSTS, step=5.0))
    flags = ("pretrain", "ssast", "--data", corpus, "--out", tmp_path / "run", *SHORT, *SMALL)
    melpatch(*flags, "--budget", "1m")
    assert "--budget 1m: steps = " in capsys.readouterr().err
    steps = from_toml(RunConfig, tmp_path / "run" / "config.toml").train.steps
    assert 2 <= steps <= 10
    melpatch(*flags, "--budget", "1m", "--resume")
    assert from_toml(RunConfig, tmp_path / "run" / "config.toml").train.steps == steps
