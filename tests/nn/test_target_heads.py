"""Heads that predict a teacher's features: standardised targets, and the share that is explained."""

import pytest
import torch

from melpatch.nn.target_heads import Predicted, TargetHead, over_clips

VALID = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])


def features(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 5 + 3 * torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)


def standardised(constant=False):
    """Return a head that knows mean and deviation of some features, and these features."""
    values = features()
    if constant:
        values[..., 0] = 7.0
    mean = over_each_clip(values)
    std = (over_each_clip(values.square()) - mean.square()).clamp(min=0).sqrt()
    std[std < 1e-6] = 0.0
    head = TargetHead(8, 0, 4).double()
    head.standardise_by(mean, std)
    return head, values


def over_each_clip(values):
    return torch.stack(
        [clip[inside].mean(dim=0) for clip, inside in zip(values, VALID, strict=True)]
    ).mean(dim=0)


@pytest.mark.parametrize("constant", [False, True])
def test_the_mean_explains_nothing_and_the_target_all(constant):
    head, values = standardised(constant)
    target = head.standardise(values)
    for prediction, explained in (
        (torch.zeros_like(target), 0.0),
        (target, 1.0),
        (target / 2, 0.75),
    ):
        of = Predicted(prediction, target, VALID)
        assert 1 - float(head.unexplained(of, "mse")) == pytest.approx(explained, abs=1e-6)
        assert float(head.variance(of)) == pytest.approx(1.0, abs=1e-6)


def test_the_cosine_is_not_blamed_for_a_length():
    head, values = standardised()
    target = head.standardise(values)
    of = Predicted(0.1 * target, target, VALID)
    assert float(head.unexplained(of, "cosine")) == pytest.approx(0.0, abs=1e-9)
    assert float(head.unexplained(of, "mse")) == pytest.approx(0.81, abs=1e-6)


def test_padding_counts_for_nothing_and_clips_weigh_the_same():
    losses = torch.tensor([[1.0] * 6, [3.0, 5.0, *[torch.inf] * 4]])
    assert float(over_clips(losses, VALID)) == 2.5
    assert float(over_clips(losses[:0], VALID[:0])) == 0.0


def test_a_hidden_layer_is_made_if_it_has_a_width():
    assert sum(value.numel() for value in TargetHead(8, 0, 4).parameters()) == 36
    assert sum(value.numel() for value in TargetHead(8, 16, 4).parameters()) == 8 * 16 + 16 + 68
