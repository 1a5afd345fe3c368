"""Every encoder of tokens is pretrained by the objectives that drop, replace or predict patches."""

from dataclasses import replace
from functools import partial

import jaxtyping
import pytest
import torch
from contracts.test_encoders import OF_TOKENS, small_config
from contracts.test_objectives import batch, one_clip, run_config
from torch._dynamo.utils import counters

from melpatch import registry
from melpatch.objectives.base import Features, Plan
from melpatch.training.config import build
from melpatch.training.trainer import compile_encoders

# Those of the ViT are tested with every objective in test_objectives.py.
KINDS = {name: variant for name, variant in OF_TOKENS.items() if not name.startswith("vit")}
every_kind = pytest.mark.parametrize("variant", KINDS.values(), ids=KINDS.keys())
# They drop patches, replace them, and have a teacher that gets the masked ones alone.
every_objective = pytest.mark.parametrize("name", ["mae_ast", "maskspec", "ssast", "m2d"])
LENGTHS = (8000, 3000, 5000)


def begun(name, variant):
    """The objective on a small encoder of this kind."""
    config = run_config(registry.find("objectives", name))
    config = replace(config, encoder=small_config(variant, patch=(16, 16)))
    objective = build(config)
    objective.begin(Plan(steps=40, batch_size=8, seconds=0.5, longest_segment=0.5))
    return objective.double().train()


def clips(name, lengths=LENGTHS):
    return batch(registry.find("objectives", name), lengths)


@every_kind
@every_objective
def test_padding_and_neighbours_cannot_change_a_clips_loss(variant, name):
    objective, data = begun(name, variant), clips(name)
    together = objective(data, 3)
    parts = [objective(one_clip(data, clip), 3) for clip in range(len(data))]
    weight = sum(part.weight for part in parts)
    assert weight == together.weight
    loss = sum(part.loss * part.weight for part in parts) / weight
    torch.testing.assert_close(loss, together.loss, rtol=1e-9, atol=0)


@every_kind
@every_objective
def test_gradient_reaches_every_parameter_of_the_encoder(variant, name):
    objective = begun(name, variant)
    objective(clips(name), 0).loss.backward()
    for part, parameter in objective.encoder.named_parameters():
        assert parameter.grad is not None, part
        assert parameter.grad.isfinite().all(), part
        assert parameter.grad.any(), part


@every_kind
@pytest.mark.parametrize("name", ["mae_ast", "maskspec", "ssast"])
@torch.inference_mode()
def test_what_is_hidden_cannot_leak(variant, name):
    """What is rebuilt of a hidden patch does not depend on what lay there."""
    objective, data = begun(name, variant).eval(), clips(name, (8000,))
    picture = objective.picture(data, 0)
    features = objective.features(data)
    for changed, same in ((picture.masked, True), (~picture.masked, False)):
        spectrogram = features.spectrogram.clone()
        spectrogram[0][changed] += 100.0
        objective.features = lambda _, spectrogram=spectrogram: Features(spectrogram, None)
        again = objective.picture(data, 0)
        hidden = picture.masked
        assert torch.equal(again.reconstruction[hidden], picture.reconstruction[hidden]) == same


@every_kind
def test_it_is_compiled_whole_and_once(variant, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    eager, compiled = begun("mae_ast", variant), begun("mae_ast", variant)
    compile_encoders(compiled)
    graphs = []
    for step in range(2):
        losses = [objective(clips("mae_ast"), step).loss for objective in (eager, compiled)]
        torch.testing.assert_close(*losses)
        losses[1].backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] > 0
    assert not counters["graph_break"]
