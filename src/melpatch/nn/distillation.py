"""Self-distillation with a centred and sharpened teacher, as in DINO.

With student logits z_s, teacher logits z_t, a centre c and temperatures tau over K prototypes::

    p_t = softmax((z_t - c) / tau_t)                 target: centred and sharpened
    H   = -sum_k p_tk ln softmax(z_s / tau_s)_k      cross-entropy

Centring keeps one prototype from taking everything, sharpening keeps the distribution from becoming
uniform.

Source: Caron et al. 2021, "Emerging properties in self-supervised vision transformers" (DINO, arXiv
2104.14294), section 3.1.

>>> targets = CentredTargets(1024)
>>> probabilities, entropy = targets.distribution(torch.zeros(8, 1024), temperature=0.04, step=0)
>>> targets.update(step=0)  # moves the centre, once per optimiser step
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_ELEMENTS = 2**20
"""Logits held at once by the chunked cross-entropy, however many tokens and prototypes there are: 4
MiB in float32, which fit in the cache of a CPU."""
_TIMES_ON_GPU = 64  # a GPU prefers few large kernels

Logits = Float[Tensor, "*row class"]
CentreOf = Literal["logits", "probabilities"]


@dataclass
class _StepSums:
    """Sums over the teacher's outputs of one step, in one process."""

    step: int
    sums: Float[Tensor, "3 class"]
    """Logits, probabilities, and how often a prototype was the most probable."""
    rows: int


class CentredTargets(nn.Module):
    """A teacher's distributions over K prototypes, their centre, and gauges of collapse.

    The centre and the gauges move once per optimiser step, after use, by the mean over all rows of
    the step: of every accumulated batch and every process. They are buffers, so a resumed run
    continues with them.

    Attributes:
        centre: running mean of the logits (DINO), or of the probabilities (MATPAC as released),
            starting at 0.
        mean: running mean of the distributions; a plain mean over the first steps.
        votes: the same for the share of rows whose most probable prototype it was.
        updates: number of steps averaged.
    """

    centre: Tensor
    mean: Tensor
    votes: Tensor
    updates: Tensor

    def __init__(self, classes: int, momentum: float = 0.9, centre_of: CentreOf = "logits") -> None:
        super().__init__()
        self.classes = classes
        self.momentum = momentum
        self.centre_of = centre_of
        self.register_buffer("centre", torch.zeros(classes))
        self.register_buffer("mean", torch.full((classes,), 1.0 / classes))
        self.register_buffer("votes", torch.full((classes,), 1.0 / classes))
        self.register_buffer("updates", torch.zeros(()))
        self.step_sums: _StepSums | None = None

    @torch.no_grad()
    def distribution(
        self, logits: Logits, temperature: float, step: int
    ) -> tuple[Logits, Float[Tensor, "*row"]]:
        """Return softmax((logits - centre) / temperature) and its entropy in nats, at least
        float32.

        In training, the rows are noted for :meth:`update`.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logarithms = F.log_softmax((logits - self.centre.to(logits.dtype)) / temperature, dim=-1)
        probabilities = logarithms.exp()
        if self.training:
            self._note(logits.flatten(0, -2), probabilities.flatten(0, -2), step)
        return probabilities, -(probabilities * logarithms).sum(dim=-1)

    def _note(self, logits: Logits, probabilities: Logits, step: int) -> None:
        dtype = sum_dtype(logits.device)
        # Sums of another step are those of one that was skipped.
        if self.step_sums is None or self.step_sums.step != step:
            sums = torch.zeros(3, self.classes, dtype=dtype, device=logits.device)
            self.step_sums = _StepSums(step, sums, 0)
        self.step_sums.sums[0] += logits.sum(dim=0, dtype=dtype)
        self.step_sums.sums[1] += probabilities.sum(dim=0, dtype=dtype)
        most_probable = probabilities.argmax(dim=-1)
        ones = torch.ones_like(most_probable, dtype=dtype)
        self.step_sums.sums[2].index_add_(0, most_probable, ones)
        self.step_sums.rows += len(logits)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the centre and the gauges by the outputs of this step, equally in every process."""
        device = self.centre.device
        total = torch.zeros(3 * self.classes + 1, dtype=sum_dtype(device), device=device)
        if self.step_sums is not None and self.step_sums.step == step:
            total[:-1] = self.step_sums.sums.flatten()
            total[-1] = self.step_sums.rows
        self.step_sums = None
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # In every process, even one without rows: the others wait for it.
            torch.distributed.all_reduce(total)
        means = (total[:-1] / total[-1].clamp(min=1)).view(3, self.classes).to(self.centre.dtype)
        # A factor of 0 or 1 instead of a branch, which would wait for the device.
        any_seen = (total[-1] > 0).to(self.centre.dtype)
        self.updates += any_seen
        centred = means[0] if self.centre_of == "logits" else means[1]
        self.centre.lerp_(centred, (1.0 - self.momentum) * any_seen)
        rate = (1 / self.updates.clamp(min=1)).clamp(min=1.0 - self.momentum) * any_seen
        self.mean.lerp_(means[1], rate)
        self.votes.lerp_(means[2], rate)

    def gauges(self) -> dict[str, Tensor]:
        """Return how evenly the prototypes have been used recently.

        ``kl_uniform``: KL divergence in nats of the teacher's mean distribution to the uniform one;
        0 if all prototypes are used equally, ln K if one takes everything. ``used``: share of
        prototypes that were the most probable at least a hundredth as often as in an even split;
        few rows per step cannot use many prototypes.
        """
        kl = math.log(self.classes) + torch.special.xlogy(self.mean, self.mean).sum()
        return {"kl_uniform": kl, "used": (self.votes > 0.01 / self.classes).to(kl.dtype).mean()}


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the precision of sums over the rows of a step: float64 where the device has it.

    Apple's GPUs do not, and sum in float32. The meta device counts as one of those, so that tests
    can hold objectives to it.
    """
    if device.type in ("mps", "meta"):
        return torch.float32
    return torch.float64


def cross_view_loss(
    teacher_out: Float[Tensor, "view clip class"],
    student_out: Float[Tensor, "anyview clip class"],
    temperature: float,
) -> Float[Tensor, " clip"]:
    """Return each clip's mean cross-entropy over all pairs of a teacher's and another student's
    view.

    Args:
        teacher_out: the teacher's distributions, one per global view.
        student_out: the student's logits, of the same views in the same order, then of any others.
        temperature: of the student.

    Source: Caron et al. 2021, equation 3; ASiT (Atito et al. 2022), section III-B.
    """
    views = len(teacher_out)
    pairs = views * (len(student_out) - 1)
    # Cross-entropy is linear in its targets: a student's view gets the sum over all of the
    # teacher's views but its own.
    targets = teacher_out.sum(dim=0).expand(len(student_out), -1, -1).clone()
    targets[:views] -= teacher_out
    log_probabilities = F.log_softmax(student_out.to(teacher_out.dtype) / temperature, dim=-1)
    return -(targets * log_probabilities).sum(dim=(0, 2)) / pairs


def chunked_cross_entropy(
    vectors: Float[Tensor, "token dim"],
    prototypes: Float[Tensor, "class dim"],
    weights: Float[Tensor, " token"],
    distribution: Callable[[slice], Float[Tensor, "chunk class"]],
    temperature: float,
) -> Float[Tensor, ""]:
    """Return the weighted sum over tokens of the cross-entropy of student and teacher.

    Logits are ``vectors @ prototypes.T``. They are never held for all tokens at once: gradients are
    taken chunk by chunk on the way forward, so memory does not grow with tokens times classes and
    nothing is computed twice.

    Args:
        vectors: of the student.
        prototypes: of the student.
        weights: weight of each token.
        distribution: returns the teacher's distributions of a slice of tokens; called once per
            slice, and with an empty one where there are no tokens.
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
        loss = vectors.new_zeros(())
        to_vectors = torch.zeros_like(vectors)
        to_prototypes = torch.zeros_like(prototypes)
        elements = _ELEMENTS
        if vectors.is_cuda:
            elements *= _TIMES_ON_GPU
        chunk = max(1, elements // len(prototypes))
        # Once even without tokens: processes wait for each other's sums.
        for start in range(0, max(1, len(vectors)), chunk):
            part = slice(start, start + chunk)
            teacher = distribution(part)
            logits = (vectors[part] @ prototypes.T).to(teacher.dtype)
            log_student = F.log_softmax(logits / temperature, dim=-1)
            weight = weights[part, None]
            loss = loss - (weight * teacher * log_student).sum()
            # d loss / d logits = weight / temperature * (softmax(student) - teacher), and the chain
            # rule through logits = vectors @ prototypes.T
            to_logits = (log_student.exp() - teacher) * (weight / temperature)
            if ctx.needs_input_grad[0]:
                to_vectors[part] = (to_logits @ prototypes).to(vectors.dtype)
            if ctx.needs_input_grad[1]:
                to_prototypes += to_logits.T @ vectors[part]
        ctx.save_for_backward(to_vectors, to_prototypes)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        to_vectors, to_prototypes = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        # d L / d vectors = d L / d loss * d loss / d vectors, the latter saved by forward.
        vectors_grad = None
        if wanted[0]:
            vectors_grad = gradients[0] * to_vectors
        prototypes_grad = None
        if wanted[1]:
            prototypes_grad = gradients[0] * to_prototypes
        return vectors_grad, prototypes_grad, None, None, None
