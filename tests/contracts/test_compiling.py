"""A compiled encoder learns what an eager one learns, is compiled whole, and once."""

from dataclasses import replace
from functools import partial

import jaxtyping
import pytest
import torch
from contracts.test_objectives import batch, run_config
from small_objectives import NAMES, find
from torch._dynamo.utils import counters
from torch._inductor import config as inductor

from melpatch.objectives.base import Plan
from melpatch.training.config import build
from melpatch.training.trainer import compile_encoders


def objective_of(name, *, compiled, **changes):
    """An objective on an encoder with blocks that some clips skip, in single precision."""
    config = run_config(find(name))
    objective = build(replace(config, encoder=replace(config.encoder, drop_path=0.3, **changes)))
    objective.begin(Plan(steps=40, batch_size=8, seconds=1.0, longest_segment=1.0))
    if compiled:
        compile_encoders(objective)
    return objective.float().train()


def learns_as_eager(name, monkeypatch, **changes):
    """Check losses and gradients of two steps, and that the second one finds all compiled."""
    monkeypatch.setattr(
        jaxtyping.config, "jaxtyping_disable", True
    )  # its checks cannot be compiled
    torch._dynamo.reset()
    counters.clear()
    eager, compiled = (
        objective_of(name, compiled=compiled, **changes) for compiled in (False, True)
    )
    graphs = []
    for step in range(2):
        data = batch(find(name), (16000,) * 4, torch.float32)
        losses = [objective(data, step).loss for objective in (eager, compiled)]
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)
        for loss in losses:
            loss.backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1] > 0
    assert not counters["graph_break"]
    for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_is_captured_whole_and_once(name, monkeypatch):
    monkeypatch.setattr(
        torch, "compile", partial(torch.compile, backend="aot_eager")
    )  # seconds, not half a minute
    learns_as_eager(name, monkeypatch)


def test_what_was_captured_is_compiled(monkeypatch):
    # Processes that compile would each import torch first, which takes longer than the compiling.
    monkeypatch.setattr(inductor, "compile_threads", 1)
    learns_as_eager("classify", monkeypatch, depth=1)
