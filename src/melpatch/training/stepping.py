"""The parts of an optimiser step: rates, gradient, clipping.

However the clips of a step are divided among processes and accumulated batches, the gradient and
the logged numbers are those of one large batch. :func:`melpatch.training.loop.fit` combines the
parts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from melpatch import distributed
from melpatch.data.clip import Batch
from melpatch.objectives.base import ObjectiveOutput
from melpatch.rng import hash_text
from melpatch.schedules import cosine, lr_factor
from melpatch.training.config import TrainConfig
from melpatch.training.sharding import gather_full
from melpatch.training.trainer import Trainer


@dataclass(frozen=True)
class StepLosses:
    """Losses and gradient norm of a step, over all ranks and equal on all of them.

    Attributes:
        means: loss and metrics, each a mean over the units of all batches; empty if no rank had a
            clip.
        grad_norm: norm of the gradient before clipping.
        news: whether any rank called with ``news=True``.
    """

    means: dict[str, float]
    grad_norm: float
    news: bool

    @property
    def finite(self) -> bool:
        """Whether the step can be taken: there is a loss, and loss and gradient are finite."""
        if not self.means:
            return False
        return math.isfinite(self.means["loss"]) and math.isfinite(self.grad_norm)

    @property
    def skipped(self) -> bool:
        """Whether there were clips, but the loss or the gradient is not finite."""
        return bool(self.means) and not self.finite

    def record(self, lr: float) -> dict[str, float]:
        """Return means, learning rate and gradient norm, to log; nothing without clips."""
        if not self.means:
            return {}
        return {**self.means, "lr": lr, "grad_norm": self.grad_norm}


def set_rates(optimizer: Optimizer, config: TrainConfig, step: int, total: int) -> float:
    """Set each group's learning rate and weight decay for a step; return the unscaled rate."""
    rate = config.lr * lr_factor(
        step,
        total,
        schedule=config.lr_schedule,
        warmup=config.lr_warmup,
        floor=config.lr_floor,
        step_start=config.lr_step_start,
        step_every=config.lr_step_every,
        step_factor=config.lr_step_factor,
    )
    # The scales hold layer-wise decay, the rate of the heads, and which groups are decayed.
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
        if config.weight_decay_end is not None:
            decay = cosine(config.weight_decay, config.weight_decay_end, step / total)
            group["weight_decay"] = decay * group["decay_scale"]
    return rate


def backward(
    trainer: Trainer, batches: Sequence[Batch], step: int, *, news: bool = False
) -> StepLosses:
    """Compute the losses of a step's batches, and leave the mean gradient in ``grad``.

    Each batch is weighted with the number of units its mean loss is over (masked patches, clips).
    All ranks must have the same number of batches, some perhaps without clips; a single process
    may have none.

    Args:
        trainer: what is trained.
        batches: those of this process, on its device.
        step: steps done before.
        news: whether this rank has news for the others; the losses say whether any rank has.
    """
    fabric = trainer.fabric
    trainer.module.train()
    # An objective may need to see all batches of a step before the first loss.
    if len(batches) > 1:
        _seed_dropout(trainer, step)
        with torch.no_grad(), fabric.autocast():
            trainer.objective.prepare(batches, step)
    _seed_dropout(trainer, step)

    # Apple's GPUs have no float64; elsewhere it keeps the sums exact however the clips are divided.
    dtype = torch.float32 if fabric.device.type == "mps" else torch.float64
    names = ["weight"]
    sums = torch.zeros(1, dtype=dtype, device=fabric.device)
    for number, batch in enumerate(batches):
        # Gradients are summed over the batches here, and over processes with the last batch only.
        with fabric.no_backward_sync(trainer.module, enabled=number < len(batches) - 1):
            output = trainer.module(batch, step)
            fabric.backward(_weighted(output.loss, output))
        names = ["weight", "loss", *output.metrics]
        sums = sums + _weighted_sums(output, dtype)

    # One reduction over the processes carries the weight, all sums and the flag for news.
    flag = torch.full_like(sums[:1], float(news))
    sums = distributed.all_reduce_sum(torch.cat([sums, flag]))
    norm = _average_gradients(trainer, sums[0])

    # The step waits for the device only here: one copy brings everything to the CPU.
    weight, *totals, messages, grad_norm = torch.cat([sums, norm.to(dtype)[None]]).tolist()
    means: dict[str, float] = {}
    if weight:
        means = {name: total / weight for name, total in zip(names[1:], totals, strict=True)}
    return StepLosses(means, grad_norm, messages > 0)


def weights_are_finite(objective: nn.Module) -> bool:
    """Return whether all weights are finite, and small enough that their squares are."""
    weights = [gather_full(weight.detach()).float() for weight in objective.parameters()]
    return not weights or bool(torch.stack(torch._foreach_norm(weights)).isfinite().all())


def _seed_dropout(trainer: Trainer, step: int) -> None:
    """Seed torch's generator with the run's seed, the step and the rank."""
    # Only dropout draws from this generator; everything else is keyed by clip and step.
    text = f"{trainer.config.seed}/step/{step}/{distributed.rank()}"
    torch.manual_seed(hash_text(text) & (2**63 - 1))


def _weighted(mean: Float[Tensor, ""], output: ObjectiveOutput) -> Float[Tensor, ""]:
    """Return a mean times the units behind it; 0, not NaN, if there are none."""
    return torch.where(output.weight > 0, mean * output.weight, 0.0)


def _weighted_sums(output: ObjectiveOutput, dtype: torch.dtype) -> Float[Tensor, " value"]:
    """Return the weight, then the sums of loss and metrics over their units."""
    means = [output.loss, *output.metrics.values()]
    sums = [_weighted(mean.detach(), output) for mean in means]
    return torch.stack([output.weight, *sums]).to(dtype)


def _average_gradients(trainer: Trainer, weight: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Divide the gradients by the weight of all batches of all ranks; return their norm.

    Args:
        trainer: its gradients hold sums over this rank's batches, averaged over ranks by DDP or
            FSDP.
        weight: units of all batches of all ranks.
    """
    gradients = _gradients(_trained(trainer.optimizer))
    if not gradients:
        return torch.zeros((), device=weight.device)
    # g = (1 / ranks) * sum of w_i g_i, but the mean is (1 / sum of w_i) * sum of w_i g_i.
    divisor = torch.where(weight > 0, weight, 1.0) / distributed.world_size()
    torch._foreach_div_(gradients, divisor.to(gradients[0].dtype))
    return gather_full(torch.nn.utils.get_total_norm(gradients))


def clip_gradients(optimizer: Optimizer, config: TrainConfig, grad_norm: float) -> None:
    """Scale down gradients whose norm exceeds the limit, all together or tensor by tensor."""
    limit = config.grad_clip
    if limit is None:
        return
    parameters = _trained(optimizer)
    if config.grad_clip_by == "tensor":
        clip_each(parameters, limit)
    elif grad_norm > limit:
        torch._foreach_mul_(_gradients(parameters), limit / grad_norm)


def clip_each(parameters: Sequence[Tensor], limit: float) -> None:
    """Scale down the gradient of every parameter whose own norm exceeds the limit."""
    gradients = _gradients(parameters)
    # All norms come to the CPU in one copy: the step waits for the device once, not per tensor.
    norms = torch.stack([gather_full(norm) for norm in torch._foreach_norm(gradients)]).tolist()
    torch._foreach_mul_(gradients, [min(1.0, limit / (norm + 1e-6)) for norm in norms])


def _trained(optimizer: Optimizer) -> list[Tensor]:
    """Return the parameters that have a gradient in this step."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return [parameter for parameter in parameters if parameter.grad is not None]


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def training_step(trainer: Trainer, batches: Sequence[Batch], step: int) -> dict[str, float]:
    """Do one optimiser step as ``fit`` does, without a run folder; return what it would log.

    For benchmarks and tests.
    """
    lr = set_rates(trainer.optimizer, trainer.config.train, step, trainer.total_steps)
    losses = backward(trainer, batches, step)
    if losses.finite:
        clip_gradients(trainer.optimizer, trainer.config.train, losses.grad_norm)
        trainer.optimizer.step()
        trainer.objective.after_step(step)
    trainer.optimizer.zero_grad(set_to_none=True)
    return losses.record(lr)
