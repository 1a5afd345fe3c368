"""Setting up an objective for training: device, compilation and optimiser."""

from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.optim import Adam, AdamW, Optimizer

from melpatch.encoders.base import Encoder, TokenEncoder
from melpatch.objectives.base import Objective, Plan
from melpatch.progress import notice
from melpatch.training.config import RunConfig, TrainConfig
from melpatch.training.launching import launch
from melpatch.training.param_groups import param_groups


@dataclass(frozen=True)
class Trainer:
    """What every optimiser step needs; only weights and optimiser state change during a run.

    Attributes:
        fabric: device, precision and the strategy for several processes.
        objective: what is trained.
        module: the objective wrapped by Fabric; its forward pass casts and synchronises.
        optimizer: the optimiser wrapped by Fabric.
        config: the settings of the run.
        total_steps: optimiser steps of the whole run.
    """

    fabric: Fabric
    objective: Objective
    module: Any
    optimizer: Any
    config: RunConfig
    total_steps: int


def set_up(objective: Objective, config: RunConfig, plan: Plan) -> Trainer:
    """Prepare the objective for a run, move it to its device and create its optimiser.

    Raises:
        ConfigError: the objective refuses the plan.
    """
    fabric = launch(config.train)
    objective.begin(plan)
    if config.train.compile:
        notice("the encoder is compiled at the first step, which may take minutes")
        compile_encoders(objective)
    # The optimiser is created after the module is set up, since FSDP replaces the parameters.
    module = fabric.setup_module(objective)
    optimizer = fabric.setup_optimizers(make_optimizer(objective, config.train))
    return Trainer(fabric, objective, module, optimizer, config, plan.steps)


def compile_encoders(objective: Objective) -> None:
    """Compile the encoders of an objective, a teacher's too; torch compiles at the first use."""
    for module in objective.modules():
        if isinstance(module, Encoder):
            # Objectives mask between embedding and encoding, so only the latter is compiled.
            method = "encode_tokens" if isinstance(module, TokenEncoder) else "forward"
            setattr(module, method, torch.compile(getattr(module, method)))


def make_optimizer(objective: Objective, config: TrainConfig) -> Optimizer:
    """Return the optimiser of the trainable parameters; see :func:`param_groups` for its groups."""
    groups = param_groups(
        objective,
        weight_decay=config.weight_decay,
        layer_decay=config.layer_decay,
        head_lr_scale=config.head_lr_scale,
        decay_tokens=config.decay_tokens,
        decay_all=config.decay_all,
    )
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    amsgrad = config.optimizer == "amsgrad"
    return Adam(groups, lr=config.lr, betas=config.betas, amsgrad=amsgrad, fused=True)
