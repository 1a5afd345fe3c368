import math

import pytest
import torch

from melpatch.nn.patch_losses import patch_infonce, reconstruction_loss

VALID = torch.tensor([[True, True, True], [True, False, False]])


def noise(seed):
    return torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def places():
    return VALID.nonzero().tolist()


def test_the_mean_is_over_real_patches_whatever_the_others_hold():
    said, asked = noise(0), noise(1)
    errors = [
        (said[clip, at, pixel] - asked[clip, at, pixel]) ** 2
        for clip, at in places()
        for pixel in range(4)
    ]
    assert reconstruction_loss(said, asked, VALID).item() == pytest.approx(
        sum(errors).item() / len(errors), rel=1e-12
    )
    said[1, 1:] = 1e9
    assert reconstruction_loss(said, asked, VALID).item() == pytest.approx(
        sum(errors).item() / len(errors), rel=1e-12
    )


def test_a_patch_is_told_from_those_of_its_clip():
    said, asked = noise(0), noise(1)
    losses, hits = [], 0
    for clip, at in places():
        rivals = [other for of, other in places() if of == clip]
        scores = {other: float(said[clip, at] @ asked[clip, other]) for other in rivals}
        losses.append(math.log(sum(math.exp(score) for score in scores.values())) - scores[at])
        hits += max(scores, key=scores.get) == at
    found = patch_infonce(said, asked, VALID)
    assert found["nce"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    assert found["accuracy"].item() == pytest.approx(hits / len(losses), rel=1e-6)
    assert 0 < hits < len(losses)


def test_nothing_hidden_costs_nothing():
    nothing = torch.zeros_like(VALID)
    assert reconstruction_loss(noise(0), noise(1), nothing) == 0
    assert patch_infonce(noise(0), noise(1), nothing)["nce"] == 0


def test_scores_are_float32_under_autocast():
    said, asked = noise(0).float(), noise(1).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = patch_infonce(said, asked, VALID)["nce"]
    assert torch.equal(found, patch_infonce(said, asked, VALID)["nce"])
