"""Losses in latent space against loops over tokens and channels."""

import math

import pytest
import torch

from melpatch.nn.latent import latent_loss, latent_maps, standardise_tokens
from melpatch.nn.masking import Subset


def slow(kind, predicted, target):
    """Return the loss of one token."""
    pairs = list(zip(predicted, target, strict=True))
    if kind == "cosine":
        product = sum(p * t for p, t in pairs)
        return 2 - 2 * product / (math.hypot(*predicted) * math.hypot(*target))
    if kind == "l2":
        return sum((p - t) ** 2 for p, t in pairs) / len(pairs) ** 0.5
    gaps = [abs(p - t) for p, t in pairs]
    return sum(gap**2 / 2 if gap < 1 else gap - 0.5 for gap in gaps) / len(gaps)


@pytest.mark.parametrize("kind", ["cosine", "l2", "smooth_l1"])
def test_losses_are_those_of_the_loop_over_valid_tokens(kind):
    torch.manual_seed(0)
    predictions, targets = torch.randn(2, 2, 4, 6, dtype=torch.float64)
    valid = torch.tensor([[True, True, False, False], [True, True, True, False]])
    targets[0, 2] = torch.nan
    expected = [
        slow(kind, predictions[clip, token].tolist(), targets[clip, token].tolist())
        for clip, token in valid.nonzero().tolist()
    ]
    loss = latent_loss(predictions, targets, valid, kind)
    assert loss.item() == pytest.approx(sum(expected) / len(expected))
    assert latent_loss(predictions, targets, torch.zeros_like(valid), kind).item() == 0


def test_standardised_tokens_forget_level_and_scale():
    tokens = torch.randn(2, 3, 16, dtype=torch.float64)
    target = standardise_tokens(tokens)
    torch.testing.assert_close(target.mean(dim=2), torch.zeros(2, 3, dtype=torch.float64))
    torch.testing.assert_close(target.std(dim=2), torch.ones(2, 3).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardise_tokens(7 * tokens - 3), target, atol=1e-5, rtol=0)


def test_maps_have_masks_targets_and_errors_at_their_places():
    """Two views of a clip of 2 x 3 patches; the second view masks one patch only."""
    masked = Subset(torch.tensor([[0, 4], [4, 1]]), torch.tensor([[True, True], [True, False]]))
    targets = torch.tensor([[[0.0], [6.0]], [[6.0], [99.0]]])
    losses = torch.tensor([[1.0, 2.0], [4.0, torch.nan]])
    maps = latent_maps(masked, targets, losses, (2, 3))
    assert maps.masked.int().tolist() == [[[1, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 1, 0]]]
    nan = torch.nan
    expected = torch.tensor([[1.0, nan, nan], [nan, 3.0, nan]])
    torch.testing.assert_close(maps.error, expected, equal_nan=True)
    expected = torch.tensor([[4.0, nan, nan], [nan, 2.0, nan]])  # from the mean, 4
    torch.testing.assert_close(maps.target, expected, equal_nan=True)
