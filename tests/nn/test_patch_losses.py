import math

import pytest
import torch

from melpatch.nn.patch_losses import patch_infonce, reconstruction_loss

VALID = torch.tensor([[True, True, True], [True, False, False]])


def noise(seed):
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def places():
    return VALID.nonzero().tolist()


def test_the_mean_is_over_valid_patches_only():
    predicted = noise(0)
    targets = noise(1)
    errors = [
        (predicted[clip, at, pixel] - targets[clip, at, pixel]) ** 2
        for clip, at in places()
        for pixel in range(4)
    ]
    assert reconstruction_loss(predicted, targets, VALID).item() == pytest.approx(
        sum(errors).item() / len(errors), rel=1e-12
    )
    predicted[1, 1:] = 1e9
    assert reconstruction_loss(predicted, targets, VALID).item() == pytest.approx(
        sum(errors).item() / len(errors), rel=1e-12
    )


def test_the_negatives_of_a_patch_are_the_other_patches_of_its_clip():
    predicted = noise(0)
    targets = noise(1)
    losses = []
    hits = 0
    for clip, at in places():
        rivals = [other for of, other in places() if of == clip]
        scores = {other: float(predicted[clip, at] @ targets[clip, other]) for other in rivals}
        losses.append(math.log(sum(math.exp(score) for score in scores.values())) - scores[at])
        hits += max(scores, key=scores.get) == at
    metrics = patch_infonce(predicted, targets, VALID)
    assert metrics["nce"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    assert metrics["accuracy"].item() == pytest.approx(hits / len(losses), rel=1e-6)
    assert 0 < hits < len(losses)


def test_without_masked_patches_the_loss_is_zero():
    nothing = torch.zeros_like(VALID)
    assert reconstruction_loss(noise(0), noise(1), nothing) == 0
    assert patch_infonce(noise(0), noise(1), nothing)["nce"] == 0


def test_scores_are_float32_under_autocast():
    predicted = noise(0).float()
    targets = noise(1).float()
    with torch.autocast("cpu", torch.bfloat16):
        loss = patch_infonce(predicted, targets, VALID)["nce"]
    assert torch.equal(loss, patch_infonce(predicted, targets, VALID)["nce"])
