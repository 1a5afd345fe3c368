"""Models and batches that the memory cannot hold are refused before any of it is taken."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from melpatch import machine
from melpatch.errors import ConfigError, SettingError
from melpatch.objectives.base import Plan
from melpatch.recipes.base import recipe_settings
from melpatch.training import size
from melpatch.training.config import build
from melpatch.training.start import fitted

HUGE = (
    {"embed_dim": 98304},
    {"embed_dim": 3 << 30},
    {"embed_dim": 3 << 40},
    {"depth": 10**9},
    {"mlp_ratio": 1e30},
    {"columns": 10**12, "positions": "learned"},
    {"columns": 10**18, "positions": "learned"},
)


@pytest.fixture(scope="module")
def settings():
    return recipe_settings("ssast", "nano", None, with_labels=False)


@pytest.mark.parametrize("changes", HUGE, ids=str)
def test_a_model_that_fits_no_memory_is_refused_in_one_line(settings, changes):
    with pytest.raises(ConfigError, match=r"GiB|counted|allowed") as caught:
        build(replace(settings, encoder=replace(settings.encoder, **changes)))
    assert len(str(caught.value)) < 300


def test_the_memory_of_the_machine_is_the_bound(settings, monkeypatch):
    weights = sum(value.numel() for value in build(settings).parameters())
    monkeypatch.setattr(size, "memory_bytes", lambda: 5 * weights)
    build(settings)
    monkeypatch.setattr(size, "memory_bytes", lambda: 3 * weights)
    with pytest.raises(ConfigError, match=r"weights take .* GiB, and this machine has"):
        build(settings)
    monkeypatch.setattr(size, "memory_bytes", lambda: None)
    build(settings)


def test_counting_the_weights_draws_no_numbers(settings):
    counted = build(settings).state_dict()
    plain = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("melpatch.training.config.require_weights_fit", lambda make: None)
        plain = build(settings).state_dict()
    assert all(torch.equal(counted[name], plain[name]) for name in plain)


def test_a_module_that_computes_with_its_weights_is_not_refused():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.ones(3).sum().item()

    size.require_weights_fit(Own)


def test_a_batch_that_fits_no_memory_is_refused(settings, monkeypatch):
    objective = build(fitted(settings))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    clip = size.clip_bytes(objective, 10.0)
    weights = sum(value.numel() for value in objective.parameters())
    monkeypatch.setattr(size, "memory_bytes", lambda: 16 * weights + 100 * clip)

    def plan(batch_size, **changes):
        return Plan(1, batch_size, 10.0, 10.0, **changes)

    size.require_training_fits(objective, plan(100))
    size.require_training_fits(objective, plan(200, accumulate=2))
    with pytest.raises(SettingError, match=r"batch_size = 101; allowed: at most 100 of 10 s"):
        size.require_training_fits(objective, plan(101))
    monkeypatch.setattr(size, "memory_bytes", lambda: 15 * weights)
    with pytest.raises(ConfigError, match="weights, gradients and optimiser take"):
        size.require_training_fits(objective, plan(1))
    assert machine.memory_bytes() is None or machine.memory_bytes() > 1 << 28
