"""A model that is loaded without drawing weights first is the one that draws them, whatever its parts."""

from dataclasses import replace
from threading import Thread

import pytest
import torch
from contracts.test_encoders import ENCODERS, VARIANTS, small_config
from contracts.test_objectives import batch, run_config
from encoders.toy_hybrid import ToyHybrid
from small_objectives import NAMES, find
from torch import nn

from melpatch import registry
from melpatch.checkpoint import load_into, save_weights
from melpatch.config import to_toml
from melpatch.errors import ConfigError
from melpatch.objectives.base import Plan
from melpatch.training.config import build, build_unfilled
from melpatch.training.start import load_run
from melpatch.training.unfilled import without_weights

PLAN = Plan(steps=40, batch_size=8, seconds=1.0, longest_segment=1.0)


def trained_state(config):
    """Weights and buffers of which none is what a new objective of these settings has."""
    state = build(replace(config, seed=config.seed + 1)).state_dict()
    numbers = torch.Generator().manual_seed(0)
    return {
        name: value + 0.1 * torch.rand(value.shape, generator=numbers)
        if value.is_floating_point()
        else value + 1
        for name, value in state.items()
    }


def drawn(config, state):
    """The objective as it was always loaded: random weights, overwritten."""
    objective = build(config)
    objective.load_state_dict(state)
    return objective


def loaded(config, state, folder):
    """The objective of a run in a folder."""
    (folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
    save_weights(folder / "model.safetensors", state)
    return load_run(folder, trust_code=True)[1]


def require_equal(ours, theirs):
    """The same tensors, trained or frozen, and the same modules, training or not."""
    for kind in (nn.Module.named_parameters, nn.Module.named_buffers):
        expected = dict(kind(theirs))
        assert dict(kind(ours)).keys() == expected.keys()
        for name, value in kind(ours):
            assert value.dtype == expected[name].dtype, name
            assert value.requires_grad == expected[name].requires_grad, name
            assert torch.equal(value, expected[name]), name
    modules = zip(ours.modules(), theirs.modules(), strict=True)
    assert all(own.training == other.training for own, other in modules)


def train_two_steps(objective, data):
    """Return the losses of two steps, and leave the objective as they left it."""
    objective.begin(PLAN)
    trained = [value for value in objective.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3)
    losses = []
    for step in range(2):
        loss = objective(data, step).loss
        losses.append(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step(step)
    return torch.stack(losses)


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_is_what_it_was_and_goes_on_training_as_it_did(name, tmp_path):
    piece = find(name)
    config = run_config(piece)
    state = trained_state(config)
    ours = loaded(config, state, tmp_path)
    theirs = drawn(config, state)
    require_equal(ours, theirs)
    data = batch(piece, dtype=torch.float32)
    assert torch.equal(train_two_steps(ours, data), train_two_steps(theirs, data))
    require_equal(ours, theirs)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_encoder_is_what_it_was(variant, tmp_path):
    encoder = small_config(variant)
    config = replace(run_config(registry.find("objectives", "encoder_only")), encoder=encoder)
    state = trained_state(config)
    ours = loaded(config, state, tmp_path).eval()
    theirs = drawn(config, state).eval()
    require_equal(ours, theirs)
    spectrogram = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(ours.encoder(spectrogram).patches, theirs.encoder(spectrogram).patches)


@pytest.mark.parametrize("name", NAMES)
def test_no_objective_draws_or_keeps_weights_before_they_are_loaded(name):
    objective = build_unfilled(run_config(find(name)))
    values = [*objective.parameters()]
    assert all(value.is_meta for value in values)
    assert not any(buffer.is_meta for buffer in objective.buffers())
    # A parameter of two modules would become two when it is loaded.
    places = [
        name
        for module in objective.modules()
        for name, _ in module.named_parameters(recurse=False, remove_duplicate=False)
    ]
    assert len(places) == len(values)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_weight_is_an_error_and_no_number_takes_its_place(name):
    config = run_config(find(name))
    state = trained_state(config)
    missing = next(key for key in state if key.endswith("weight"))
    del state[missing]
    objective = build_unfilled(config)
    with pytest.raises(ConfigError, match=missing):
        load_into(objective, state)
    assert objective.state_dict()[missing].is_meta
    with pytest.raises(NotImplementedError, match="meta"):
        objective.to("cpu")


def test_a_file_of_fewer_weights_is_refused(tmp_path):
    config = run_config(find("classify"))
    state = trained_state(config)
    del state["head.0.bias"]
    with pytest.raises(ConfigError, match=r"model\.safetensors does not fit.*head\.0\.bias"):
        loaded(config, state, tmp_path)


def test_code_outside_melpatch_is_built_with_its_weights():
    assert ENCODERS["toy"] is ToyHybrid
    config = run_config(find("classify"))
    config = replace(config, encoder=small_config(VARIANTS["toy"]))
    assert not any(value.is_meta for value in build_unfilled(config).parameters())


def test_other_threads_and_later_modules_have_weights():
    layers = []
    with without_weights():
        thread = Thread(target=lambda: layers.append(nn.Linear(2, 2)))
        thread.start()
        thread.join()
        assert nn.Linear(2, 2).weight.is_meta
    layers.append(nn.Linear(2, 2))
    assert not any(value.is_meta for layer in layers for value in layer.parameters())


def test_what_is_random_but_no_weight_is_drawn():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.register_buffer("noise", torch.zeros(8).normal_())

    with without_weights():
        assert bool(Noisy().noise.any())


def test_loaded_weights_share_no_memory():
    with without_weights():
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    weight = torch.arange(4.0).view(2, 2)
    halves = torch.arange(8.0).view(2, 2, 2)
    state = {f"{number}.bias": torch.zeros(2, dtype=torch.float64) for number in range(3)}
    state |= {"0.weight": weight, "1.weight": weight, "2.weight": halves[1].T}
    load_into(model, state)
    places = {value.untyped_storage().data_ptr() for value in model.parameters()}
    assert len(places) == 6
    assert all(value.is_contiguous() for value in model.parameters())
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert torch.equal(model[2].weight, halves[1].T)
