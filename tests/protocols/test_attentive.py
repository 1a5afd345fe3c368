"""The attentive probe: its settings; its head is tested in tests/nn."""

import numpy as np
import pytest
from protocols.made_up import corpus, job

from melpatch.errors import ConfigError
from melpatch.protocols.attentive import Attentive


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match="heads = 3; allowed: a divisor of 8, the width of this encoder's tokens"
    ):
        Attentive(heads=3).run_trials(job(tmp_path, corpus(12)))


def test_the_epoch_can_be_chosen_by_another_metric(tmp_path):
    """With one rare class the two metrics differ, and what is stored is the one that was asked for."""
    uneven = corpus(60, labels_of=lambda number: ("bell" if number % 10 else "dog",))
    trials = {}
    for metric in ("accuracy", "balanced_accuracy"):
        probe = Attentive(heads=2, epochs=1, lr=1e-9, select_by=metric)
        (trials[metric],), _ = probe.run_trials(job(tmp_path / metric, uneven))
    accuracy, balanced = trials.values()
    # One epoch at no rate: the same head, which is judged in two ways.
    assert np.array_equal(accuracy.probabilities, balanced.probabilities)
    assert accuracy.details["val_score"] != balanced.details["val_score"]
