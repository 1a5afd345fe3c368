"""Self-distillation over classes nobody defined: a student learns a teacher's centred and sharpened distribution.

Source: Caron et al. 2021, "Emerging properties in self-supervised vision transformers" (DINO, arXiv 2104.14294),
section 3.1: centring keeps one class from taking all, sharpening keeps the distribution from becoming uniform.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_ELEMENTS = 2**20
"""Logits held at once by the chunked cross-entropy, whatever the number of tokens and classes: on a processor 4 MiB in
float32, which stay in its cache."""
_TIMES_ON_GPU = 64  # which wants few large kernels

Logits = Float[Tensor, "*row class"]


@dataclass
class _Seen:
    """Sums over what the teacher said in one step, of one process."""

    step: int
    sums: Float[Tensor, "3 class"]
    """Logits, probabilities, and how often a class was the first choice."""
    rows: int


class CentredTargets(nn.Module):
    """A teacher's distributions over K classes: their centre, and what tells a healthy teacher from a collapsed one.

    The centre and the gauges move once per optimiser step, after use, by the mean over all rows of the step: of every
    accumulated batch and every process. They are buffers, so a resumed run goes on with them.

    Attributes:
        centre: running mean of the logits, from 0 on, as published.
        mean: running mean of the distributions; over all steps at first, so that it is right from the first on.
        votes: the same of the share of rows whose first choice a class was.
        updates: steps behind them.
    """

    centre: Tensor
    mean: Tensor
    votes: Tensor
    updates: Tensor

    def __init__(self, classes: int, momentum: float = 0.9) -> None:
        super().__init__()
        self.classes, self.momentum = classes, momentum
        self.register_buffer("centre", torch.zeros(classes))
        self.register_buffer("mean", torch.full((classes,), 1.0 / classes))
        self.register_buffer("votes", torch.full((classes,), 1.0 / classes))
        self.register_buffer("updates", torch.zeros(()))
        self.seen: _Seen | None = None

    @torch.no_grad()
    def distribution(
        self, logits: Logits, temperature: float, step: int
    ) -> tuple[Logits, Float[Tensor, "*row"]]:
        """Return softmax((logits - centre) / temperature) and its entropy in nats, in float32 at least.

        In training, the rows are noted for :meth:`update`.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logarithms = F.log_softmax((logits - self.centre.to(logits.dtype)) / temperature, dim=-1)
        probabilities = logarithms.exp()
        if self.training:
            self._note(logits.flatten(0, -2), probabilities.flatten(0, -2), step)
        return probabilities, -(probabilities * logarithms).sum(dim=-1)

    def _note(self, logits: Logits, probabilities: Logits, step: int) -> None:
        if (
            self.seen is None or self.seen.step != step
        ):  # a step that was skipped leaves rows behind
            self.seen = _Seen(
                step, torch.zeros(3, self.classes, dtype=torch.float64, device=logits.device), 0
            )
        self.seen.sums[0] += logits.sum(dim=0, dtype=torch.float64)
        self.seen.sums[1] += probabilities.sum(dim=0, dtype=torch.float64)
        first = probabilities.argmax(dim=-1)
        self.seen.sums[2].index_add_(0, first, torch.ones_like(first, dtype=torch.float64))
        self.seen.rows += len(logits)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the centre and the gauges by what was seen in this step, on every process alike."""
        total = torch.zeros(3 * self.classes + 1, dtype=torch.float64, device=self.centre.device)
        if self.seen is not None and self.seen.step == step:
            total[:-1], total[-1] = self.seen.sums.flatten(), self.seen.rows
        self.seen = None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(
                total
            )  # also of a process that saw nothing, since the others wait for it
        means = (total[:-1] / total[-1].clamp(min=1)).view(3, self.classes).to(self.centre.dtype)
        any_seen = (total[-1] > 0).to(
            self.centre.dtype
        )  # a factor, since the device need not be waited for then
        self.updates += any_seen
        self.centre.lerp_(means[0], (1.0 - self.momentum) * any_seen)
        rate = (1 / self.updates.clamp(min=1)).clamp(min=1.0 - self.momentum) * any_seen
        self.mean.lerp_(means[1], rate)
        self.votes.lerp_(means[2], rate)

    def gauges(self) -> dict[str, Tensor]:
        """Return how evenly the classes have been used of late.

        ``kl_uniform``: KL divergence in nats of the teacher's mean distribution to the uniform one; 0 where all classes
        are used alike, ln K where one takes all. ``used``: share of classes that were the first choice at least a
        hundredth as often as in an even split; few rows per step cannot use many of many classes.
        """
        kl = math.log(self.classes) + torch.special.xlogy(self.mean, self.mean).sum()
        return {"kl_uniform": kl, "used": (self.votes > 0.01 / self.classes).to(kl.dtype).mean()}


def cross_view_loss(
    told: Float[Tensor, "view clip class"],
    said: Float[Tensor, "anyview clip class"],
    temperature: float,
) -> Float[Tensor, " clip"]:
    """Return the mean cross-entropy of each clip over all pairs of a teacher's view and another view of the student.

    Args:
        told: the teacher's distributions, one per global view.
        said: the student's logits, of the same views in the same order, then of any others.
        temperature: of the student.

    Source: Caron et al. 2021, equation 3; ASiT (Atito et al. 2022), section III-B.
    """
    views, pairs = len(told), len(told) * (len(said) - 1)
    targets = told.sum(dim=0).expand(len(said), -1, -1).clone()
    targets[:views] -= told  # a view is not told of itself
    said = said.to(told.dtype)
    return -(targets * F.log_softmax(said / temperature, dim=-1)).sum(dim=(0, 2)) / pairs


def chunked_cross_entropy(
    vectors: Float[Tensor, "token dim"],
    prototypes: Float[Tensor, "class dim"],
    weights: Float[Tensor, " token"],
    distribution: Callable[[slice], Float[Tensor, "chunk class"]],
    temperature: float,
) -> Float[Tensor, ""]:
    """Return the weighted sum over tokens of the cross-entropy between given distributions and those of logits.

    Logits are ``vectors @ prototypes.T``. They are never held for all tokens at once: gradients are taken chunk
    by chunk on the way forward, so memory does not grow with tokens times classes and nothing is computed twice.

    Args:
        vectors: of the student.
        prototypes: of the student.
        weights: weight of each token.
        distribution: gives the teacher's distributions of a stretch of tokens; called once for each, and for an empty
            one where there are no tokens.
        temperature: of the student.
    """
    summed: Tensor = _ChunkedCrossEntropy.apply(
        vectors, prototypes, weights, distribution, temperature
    )  # type: ignore[no-untyped-call]
    return summed


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        vectors: Tensor,
        prototypes: Tensor,
        weights: Tensor,
        distribution: Callable[[slice], Tensor],
        temperature: float,
    ) -> Tensor:
        summed = vectors.new_zeros(())
        to_vectors, to_prototypes = torch.zeros_like(vectors), torch.zeros_like(prototypes)
        chunk = max(1, _ELEMENTS * (_TIMES_ON_GPU if vectors.is_cuda else 1) // len(prototypes))
        for start in range(
            0, max(1, len(vectors)), chunk
        ):  # once without tokens: processes wait for each other's sums
            part = slice(start, start + chunk)
            told = distribution(part)
            said = F.log_softmax(
                (vectors[part] @ prototypes.T).to(told.dtype) / temperature, dim=-1
            )
            weight = weights[part, None]
            summed = summed - (weight * told * said).sum()
            difference = (said.exp() - told) * (weight / temperature)
            if ctx.needs_input_grad[0]:
                to_vectors[part] = (difference @ prototypes).to(vectors.dtype)
            if ctx.needs_input_grad[1]:
                to_prototypes += difference.T @ vectors[part]
        ctx.save_for_backward(to_vectors, to_prototypes)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        to_vectors, to_prototypes = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            gradients[0] * to_vectors if wanted[0] else None,
            gradients[0] * to_prototypes if wanted[1] else None,
            None,
            None,
            None,
        )
