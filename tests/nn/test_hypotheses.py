"""Weights of several predictions, and which of them is trained."""

import math

import pytest
import torch

from melpatch.errors import ConfigError
from melpatch.nn.hypotheses import Hypotheses, best_hypothesis, hypothesis_weights

LOSSES = torch.tensor([[0.4, 0.1, 0.3], [2.0, 2.5, 1.9]], dtype=torch.float64)


def test_weights_are_a_softmax_of_the_losses_and_equal_at_a_high_temperature():
    weights = hypothesis_weights(LOSSES, 0.1)
    powers = [math.exp(-loss / 0.1) for loss in LOSSES[0].tolist()]
    assert weights[0].tolist() == pytest.approx([power / sum(powers) for power in powers])
    torch.testing.assert_close(hypothesis_weights(LOSSES, 1e9), torch.full_like(LOSSES, 1 / 3))


def test_at_temperature_zero_one_prediction_per_token_has_a_gradient():
    predictions = torch.ones(2, 3, 4, dtype=torch.float64, requires_grad=True)
    losses = (predictions - LOSSES[..., None]).square().sum(dim=2)
    (hypothesis_weights(losses, 0.0) * losses).sum().backward()
    assert predictions.grad.any(dim=2).sum(dim=1).tolist() == [1, 1]
    assert predictions.grad[0, 0].any()  # 0.4 is nearest to 1
    assert predictions.grad[1, 2].any()


def test_the_best_prediction_is_chosen_token_by_token():
    predictions = torch.arange(12.0).view(2, 3, 2)
    assert best_hypothesis(predictions, LOSSES.float()).tolist() == [[2.0, 3.0], [10.0, 11.0]]


def test_the_temperature_falls_as_published():
    """0.1 times 0.99997 per step, down to 1e-4; then the best prediction alone."""
    total = 294_816
    hypotheses = Hypotheses(count=5, share=230_255 / total)
    for step in (0, 1_000, 100_000, 230_000):
        published = 0.1 * 0.99997**step
        assert hypotheses.temperature_at(step / total) == pytest.approx(published, rel=1e-3)
    assert hypotheses.temperature_at(230_256 / total) == 0.0
    assert Hypotheses(share=0.0).temperature_at(0.0) == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "count = 0; allowed: 1 to 64"),
        ({"temperature": (0.1, 0.2)}, "start >= end > 0"),
        ({"share": 1.5}, "share = 1.5; allowed: 0 to 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Hypotheses(**settings)
