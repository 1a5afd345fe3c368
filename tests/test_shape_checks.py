"""The tests check every annotated type and shape of the package, by ``shape_checks``."""

import pytest
import torch
from jaxtyping import TypeCheckError

from melpatch.nn.patch_losses import joint_loss, reconstruction_loss
from melpatch.training.config import RunConfig, TrainConfig


def test_axes_of_one_name_are_of_one_length():
    patches, valid = torch.zeros(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)
    assert reconstruction_loss(patches, patches, valid) == 0
    for wrong in (torch.zeros(2, 4, 3), torch.zeros(2, 5), torch.zeros(2, 5, 3, dtype=torch.int)):
        with pytest.raises(TypeCheckError):
            reconstruction_loss(patches, wrong, valid)


def test_results_are_checked():
    assert joint_loss({"mse": torch.zeros(())}, 1.0) == 0
    with pytest.raises(TypeCheckError):
        joint_loss({"mse": torch.zeros(1)}, 1.0)
    with pytest.raises(TypeCheckError):
        joint_loss({"mse": torch.zeros(())}, "all")


def test_settings_are_checked_those_with_a_default_that_is_made_too():
    assert RunConfig(train=TrainConfig(steps=3)).train.steps == 3
    for wrong in ({"seed": "0"}, {"train": 3}):
        with pytest.raises(TypeCheckError):
            RunConfig(**wrong)
