"""What a step does with its gradients; the step as a whole is tested with the loop."""

from copy import deepcopy

import pytest
import torch
from tiny_runs import settings
from torch.optim import Adam, AdamW

from melpatch.training.config import build
from melpatch.training.stepping import clip_each
from melpatch.training.trainer import make_optimizer


def with_gradients(seed=0):
    """Return parameters of several shapes, with gradients of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in ((3,), (4, 5), (1,), (2, 2))]
    for number, parameter in enumerate(parameters):
        parameter.grad = 4.0**number * torch.randn(parameter.shape, generator=generator)
    parameters.append(torch.nn.Parameter(torch.zeros(2)))  # took no part
    return parameters


def test_each_gradient_is_clipped_as_torch_clips_one():
    ours, torchs = with_gradients(), with_gradients()
    clip_each(ours, 3.0)
    for parameter in torchs:
        torch.nn.utils.clip_grad_norm_(parameter, 3.0)
    lengths = [parameter.grad.norm().item() for parameter in ours[:-1]]
    assert min(lengths) < 2.9 < max(lengths) < 3.001
    for one, other in zip(ours[:-1], torchs[:-1], strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert ours[-1].grad is None


@pytest.mark.parametrize(("name", "plain"), [("adamw", AdamW), ("adam", Adam)])
def test_fused_optimisers_move_as_plain_ones_and_take_their_state(name, plain):
    config = settings(optimizer=name, weight_decay=0.1)
    objectives = [build(config), build(config)]
    ours = make_optimizer(objectives[0], config.train)
    groups = make_optimizer(objectives[1], config.train).param_groups
    theirs = plain(
        [{**group, "fused": False} for group in groups],
        lr=config.train.lr,
        betas=config.train.betas,
    )
    for step in range(4):
        if step == 2:  # as a run goes on that was saved by the plain one
            ours.load_state_dict(deepcopy(theirs.state_dict()))
        for objective, optimizer in zip(objectives, (ours, theirs), strict=True):
            for number, parameter in enumerate(objective.parameters()):
                parameter.grad = torch.full_like(parameter, 0.1 * (number % 7 - 3) + 0.01 * step)
            optimizer.step()
    for one, other in zip(*(objective.parameters() for objective in objectives), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=3e-6)  # a step moves by 1e-3
