"""HEAR's head: its layers, its grid, and settings that are chosen once and kept for the other rounds."""

from dataclasses import replace

import numpy as np
import pytest
from protocols.made_up import corpus, job
from torch import nn

from melpatch.protocols.hear import GridPoint, Hear

QUICK = Hear(lr=(0.03, 1e-6), hidden_layers=(0, 1), points=4, hidden_dim=8, epochs=6, batch_size=16)
"""A grid whose small rates learn nothing."""


def folds():
    return corpus(90, splits=("a", "b", "c"))


def test_eight_of_the_sixteen_points_are_tried_the_same_each_time():
    grid = Hear().grid()
    assert len({*grid}) == 8
    assert grid == Hear().grid()
    assert grid == Hear(epochs=3).grid()
    assert len(Hear(points=99).grid()) == 16


def test_the_mlp_is_as_published():
    layers = [type(layer) for layer in Hear().mlp(GridPoint(2, 1e-3, "xavier_normal"), 40, 7)]
    assert layers == 2 * [nn.Linear, nn.BatchNorm1d, nn.Dropout, nn.ReLU] + [nn.Linear]
    assert [type(layer) for layer in Hear().mlp(GridPoint(0, 1e-3, "xavier_normal"), 40, 7)] == [
        nn.Linear
    ]


@pytest.mark.parametrize("init", ["xavier_uniform", "xavier_normal"])
def test_weights_start_as_xavier_has_them(init):
    """Variance 2 / (ins + outs); twice that after a ReLU."""
    first, *_, last = Hear(hidden_dim=300).mlp(GridPoint(1, 1e-3, init), 200, 100)
    for layer, gain in ((first, 1), (last, 2)):
        ins, outs = layer.weight.shape
        assert layer.weight.var().item() == pytest.approx(gain * 2 / (ins + outs), rel=0.03)
    excess = (first.weight.abs() > (6 / 500) ** 0.5 + 1e-6).any()
    assert excess == (init == "xavier_normal")


def test_the_first_round_chooses_and_the_others_follow(tmp_path):
    trials, _ = QUICK.run_trials(job(tmp_path, folds()))
    first, *others = (trial.details for trial in trials)
    assert len(first["grid"]) == 4
    chosen = max(first["grid"], key=lambda point: point["val_score"])
    assert chosen == first["setting"] | {"val_score": first["val_score"]}
    assert chosen["lr"] == 0.03
    for other in others:
        assert other["setting"] == first["setting"]
        assert len(other["grid"]) == 1


def test_an_evaluation_that_was_cut_goes_on_with_what_was_chosen(tmp_path):
    whole, _ = QUICK.run_trials(job(tmp_path, folds()))
    (tmp_path / "out" / "trials" / "b-0.npz").unlink()
    again, _ = QUICK.run_trials(job(tmp_path, folds()))
    for before, after in zip(whole, again, strict=True):
        assert after.details["setting"] == before.details["setting"]
        assert np.array_equal(after.probabilities, before.probabilities)


def test_another_choice_in_the_first_round_lets_no_old_trial_stand(tmp_path):
    QUICK.run_trials(job(tmp_path, folds()))
    slow = replace(QUICK, lr=(1e-6,))
    trials, _ = slow.run_trials(job(tmp_path, folds()))
    assert {trial.details["setting"]["lr"] for trial in trials} == {1e-6}


def test_a_remainder_of_one_clip_is_no_batch_of_its_own(tmp_path):
    """Batch normalisation could not take it: 60 training clips in batches of up to 59."""
    trials, _ = replace(QUICK, hidden_layers=(1,), batch_size=59).run_trials(
        job(tmp_path, corpus())
    )
    assert np.isfinite(trials[0].probabilities).all()
