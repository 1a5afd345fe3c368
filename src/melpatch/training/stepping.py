"""One optimiser step, however its clips are divided among processes and accumulated batches: the gradient is that of
one large batch, and so are the numbers that are logged.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

from melpatch import distributed
from melpatch.data.clip import Batch
from melpatch.objectives.base import Objective, ObjectiveOutput
from melpatch.rng import hash_text
from melpatch.schedules import cosine, factor
from melpatch.training.config import TrainConfig
from melpatch.training.param_groups import param_groups
from melpatch.training.run import Run
from melpatch.training.sharding import whole
from melpatch.training.states import Progress
from melpatch.training.tracking import Tracker


@dataclass
class Work:
    """Everything a step touches."""

    fabric: Fabric
    objective: Objective
    module: Any  # the objective as Fabric wraps it: precision, processes
    optimizer: Optimizer
    run: Run
    total: int
    tracker: Tracker
    progress: Progress = field(default_factory=Progress)
    average: dict[str, Tensor] = field(default_factory=dict)
    signal: int = 0  # that asked for an end after this step; 0 for none
    cpu_seconds: float = (
        0.0  # of this process in all steps so far, decoding included, evaluations and saves not
    )
    seconds: float = 0.0  # by the clock, of the same


class Done(NamedTuple):
    """What a step tells all processes alike."""

    record: dict[str, float]
    """Loss, metrics, learning rate and gradient norm; nothing if no process had a clip."""
    news: bool
    """Whether any process has something to tell the others."""


def step(work: Work, batches: list[Batch], *, news: bool = False) -> Done:
    """Do one optimiser step over the batches of all processes.

    Each batch's gradient is weighted with the number of units its mean is over. All processes have as many batches,
    some of them perhaps without clips; one that is alone may have none.

    Args:
        work: what is trained.
        batches: those of this process.
        news: whether this process has something to tell the others.
    """
    config, at, fabric = work.run.config.train, work.progress.step, work.fabric
    rate = _set_rates(work.optimizer, config, at, work.total)
    work.module.train()
    if len(batches) > 1:
        _seed(work)
        with torch.no_grad(), fabric.autocast():
            work.objective.prepare(batches, at)
    _seed(work)
    names, sums = ["weight"], torch.zeros((), dtype=torch.float64, device=fabric.device)
    for number, batch in enumerate(batches):
        with fabric.no_backward_sync(work.module, enabled=number < len(batches) - 1):
            output = work.module(batch, at)
            fabric.backward(_weighted(output.loss, output))
        names, sums = ["weight", "loss", *output.metrics], sums + _sums(output)
    sums = distributed.all_reduce_sum(
        torch.cat([sums.view(-1), torch.full_like(sums.view(-1)[:1], float(news))])
    )
    norm = _average_gradients(work, sums[0])
    *found, told, length = torch.cat(
        [sums, norm.double()[None]]
    ).tolist()  # waits for the device once
    weight, *totals = found
    record = (
        {name: value / weight for name, value in zip(names[1:], totals, strict=True)}
        if weight
        else {}
    )
    if weight:
        _apply(work, length, math.isfinite(length) and math.isfinite(record["loss"]))
        record |= {"lr": rate, "grad_norm": length}
    work.optimizer.zero_grad(set_to_none=True)
    return Done(record, told > 0)


def _seed(work: Work) -> None:
    """Set torch's own generator, from which only dropout draws: a function of seed, step and process."""
    seed = f"{work.run.config.seed}/step/{work.progress.step}/{distributed.rank()}"
    torch.manual_seed(hash_text(seed) & (2**63 - 1))


def _weighted(value: Tensor, output: ObjectiveOutput) -> Tensor:
    """Return a mean times what it is over; 0, not NaN, where that is nothing."""
    return torch.where(output.weight > 0, value * output.weight, 0.0)


def _sums(output: ObjectiveOutput) -> Tensor:
    """Return the weight, and the sums of loss and metrics."""
    means = [output.loss, *output.metrics.values()]
    return torch.stack(
        [output.weight, *(_weighted(value.detach(), output) for value in means)]
    ).double()


def _set_rates(optimizer: Optimizer, config: TrainConfig, at: int, total: int) -> float:
    """Set every group's learning rate and weight decay for a step; return the learning rate before their scales."""
    rate = config.lr * factor(
        at,
        total,
        schedule=config.schedule,
        warmup=config.warmup,
        floor=config.floor,
        decay_start=config.decay_start,
        decay_every=config.decay_every,
        decay=config.decay,
    )
    end = config.weight_decay_end
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
        if end is not None:
            group["weight_decay"] = (
                cosine(config.weight_decay, end, at / total) * group["decay_scale"]
            )
    return rate


def _trained(work: Work) -> list[Tensor]:
    """Return the parameters that took part in the step."""
    return [
        p for group in work.optimizer.param_groups for p in group["params"] if p.grad is not None
    ]


def _average_gradients(work: Work, weight: Tensor) -> Tensor:
    """Make means of the gradients, which are sums over this process's batches and means over processes; return their
    norm."""
    gradients = [p.grad for p in _trained(work) if p.grad is not None]
    if not gradients:
        return torch.zeros((), device=weight.device)
    divisor = torch.where(weight > 0, weight, 1.0) / distributed.world_size()
    torch._foreach_div_(gradients, divisor.to(gradients[0].dtype))
    return whole(torch.nn.utils.get_total_norm(gradients))


def _apply(work: Work, norm: float, finite: bool) -> None:
    """Clip and use the gradients; a step without finite loss or gradients is skipped and counted."""
    config, progress = work.run.config.train, work.progress
    if not finite:
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        return
    parameters = _trained(work)
    if config.clip_norm is not None and config.clip_by == "global":
        if norm > config.clip_norm:
            torch._foreach_mul_(
                [p.grad for p in parameters if p.grad is not None], config.clip_norm / norm
            )
    elif config.clip_norm is not None:
        clip_each(parameters, config.clip_norm)
    work.optimizer.step()
    work.objective.after_step(progress.step)
    progress.skipped_in_a_row = 0


def clip_each(parameters: list[Tensor], longest: float) -> None:
    """Scale down every gradient that is longer than that, each by itself."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    lengths = torch.stack(
        [whole(one) for one in torch._foreach_norm(gradients)]
    ).tolist()  # waits once, not per tensor
    torch._foreach_mul_(gradients, [min(1.0, longest / (length + 1e-6)) for length in lengths])


def make_optimizer(objective: Objective, config: TrainConfig) -> Optimizer:
    """Return the optimiser over the trainable parameters; its groups keep their ``lr_scale`` and ``decay_scale``."""
    groups = param_groups(
        objective,
        weight_decay=config.weight_decay,
        layer_decay=config.layer_decay,
        head_lr_scale=config.head_lr_scale,
        decay_tokens=config.decay_tokens,
    )
    if config.optimizer == "adamw":
        return AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    return Adam(
        groups, lr=config.lr, betas=config.betas, amsgrad=config.optimizer == "amsgrad", fused=True
    )
