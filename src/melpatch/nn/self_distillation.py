"""Local and global self-distillation: heads of student and teacher, targets, and their schedules over a run.

Sources: Caron et al. 2021, "DINO" (arXiv 2104.14294), section 3.1 and appendix C; Atito et al. 2022, "ASiT" (arXiv
2211.13189), section III-B and C, which has it for class tokens ("global") and for patch tokens ("local").
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from melpatch.config import check
from melpatch.nn.distillation import CentredTargets, chunked_cross_entropy, cross_view_loss
from melpatch.nn.ema import default_momentum, ema_update, frozen_copy
from melpatch.nn.heads import DistillationHeads, Sharing
from melpatch.progress import notice
from melpatch.schedules import cosine, ramp

# Shares of ln K: a loss above the first, a KL divergence to uniform above the second, or an entropy
# below the third is a sign of collapse.
_STUCK_LOSS = 0.99
_ONE_PROTOTYPE = 0.9
_LOW_ENTROPY = 0.02


class SelfDistillation(nn.Module):
    """Heads, targets and schedules of self-distillation; the encoders are the objective's own.

    Attributes:
        student: heads that are trained.
        teacher: EMA of the student's heads.
        targets: centres and gauges, by name of the loss.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of self-distillation. Shares are shares of the run."""

        global_prototypes: int = 8192
        """Prototypes of the global loss, on class tokens."""
        local_prototypes: int = 1024
        """Prototypes of the local loss, on patch tokens."""
        shared: Sharing = "trunk"
        """Parts that the two heads share: the trunk, none, or all."""
        hidden_dim: int = 2048
        """Width of the heads' trunk."""
        bottleneck_dim: int = 256
        """Width of the unit vectors that are compared with the prototypes."""
        train_gain: bool = False
        """Whether the length of the prototypes is trained; fixed at 1 is more stable."""
        freeze_prototypes: float = 0.025
        """Share of the run, at its start, during which the prototypes are frozen."""
        student_temperature: float = 0.1
        """Temperature of the student's distributions."""
        teacher_temperature: tuple[float, float] = (0.04, 0.07)
        """Temperature of the teacher's, at the start and after the warm-up; lower than the student's."""
        temperature_warmup: float = 0.1
        """Share of the run over which it rises."""
        momentum: float | None = None
        """EMA momentum of the teacher at the start; rises to 1 over the run. None: by batch size and run length."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            for name in ("global_prototypes", "local_prototypes"):
                check(getattr(self, name) >= 2, name, getattr(self, name), "2 or more")
            alike = self.shared != "all" or self.global_prototypes == self.local_prototypes
            check(
                alike,
                "local_prototypes",
                self.local_prototypes,
                f"{self.global_prototypes} as global_prototypes: all is shared",
            )
            for name in ("hidden_dim", "bottleneck_dim"):
                check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
            for name in ("freeze_prototypes", "temperature_warmup"):
                check(0 <= getattr(self, name) <= 1, name, getattr(self, name), "0 to 1")
            start, end = self.teacher_temperature
            limit = f"0 < start <= end < student_temperature = {self.student_temperature:g}"
            check(
                0 < start <= end < self.student_temperature,
                "teacher_temperature",
                self.teacher_temperature,
                limit,
            )
            check(
                self.momentum is None or 0 <= self.momentum < 1,
                "momentum",
                self.momentum,
                "0 to below 1, or none",
            )

    def __init__(self, config: Config, dim: int, names: tuple[str, ...]) -> None:
        """Build the heads of tokens with ``dim`` channels, for ``names`` out of "global" and "local"."""
        super().__init__()
        self.config = config
        classes = {name: int(getattr(config, f"{name}_prototypes")) for name in names}
        self.student = DistillationHeads(
            dim,
            config.hidden_dim,
            config.bottleneck_dim,
            classes,
            shared=config.shared,
            train_gain=config.train_gain,
        )
        self.teacher = frozen_copy(self.student)
        self.targets = nn.ModuleDict(
            {name: CentredTargets(count) for name, count in classes.items()}
        )
        self.steps, self.momentum = 1, config.momentum or 0.0

    def begin(self, steps: int, batch_size: int) -> None:
        """Start the teacher's heads as a copy of the student's, for a run of this length and batch size."""
        self.teacher.load_state_dict(self.student.state_dict())
        self.steps = steps
        wanted = self.config.momentum
        self.momentum = default_momentum(batch_size, steps) if wanted is None else wanted
        if wanted is None:
            notice(
                f"the teacher's momentum starts at {self.momentum:.5f}, for {steps} steps of {batch_size} clips; "
                "--objective.distillation.momentum sets another"
            )

    def train(self, mode: bool = True) -> "SelfDistillation":
        """Set training mode; the teacher stays as it is in use."""
        super().train(mode)
        self.teacher.eval()
        return self

    def token_loss(
        self,
        name: str,
        student_out: Float[Tensor, "token dim"],
        teacher_out: Float[Tensor, "token dim"],
        weights: Float[Tensor, " token"],
        step: int,
    ) -> dict[str, Tensor]:
        """Return the weighted sum of the cross-entropies of each token with the teacher's, and the gauges.

        Args:
            name: whose heads.
            student_out: the student's tokens.
            teacher_out: the teacher's tokens of the same places.
            weights: of each token; a sum of 1 makes a mean.
            step: of the run.
        """
        with torch.no_grad():
            answers, prototypes = (
                self.teacher.project(teacher_out, name),
                self.teacher.prototypes_for(name),
            )
        target, temperature, entropies = (
            self._target(name),
            self.temperature(step),
            [weights.new_zeros(0)],
        )

        def distribution(part: slice) -> Float[Tensor, "chunk class"]:
            probabilities, entropy = target.distribution(
                F.linear(answers[part], prototypes), temperature, step
            )
            entropies.append(entropy)
            return probabilities

        vectors, student = self.student.project(student_out, name), self._prototypes(name, step)
        with torch.autocast(
            student_out.device.type, enabled=False
        ):  # division by small temperatures needs float32
            loss = chunked_cross_entropy(
                vectors, student, weights, distribution, self.config.student_temperature
            )
            return self._metrics(name, loss, weights @ torch.cat(entropies).to(weights.dtype))

    def view_loss(
        self,
        name: str,
        student_out: Float[Tensor, "anyview clip dim"],
        teacher_out: Float[Tensor, "view clip dim"],
        step: int,
    ) -> dict[str, Tensor]:
        """Return the mean cross-entropy of each view's token with the teacher's of every other view, and the gauges."""
        with torch.no_grad():
            answers, prototypes = (
                self.teacher.project(teacher_out, name),
                self.teacher.prototypes_for(name),
            )
        vectors, student = self.student.project(student_out, name), self._prototypes(name, step)
        with torch.autocast(student_out.device.type, enabled=False):  # as in token_loss
            answers = F.linear(answers, prototypes)
            probabilities, entropy = self._target(name).distribution(
                answers, self.temperature(step), step
            )
            logits = F.linear(vectors, student)
            loss = cross_view_loss(probabilities, logits, self.config.student_temperature).mean()
            return self._metrics(name, loss, entropy.mean())

    def logits(
        self, name: str, teacher_out: Float[Tensor, "*token dim"]
    ) -> Float[Tensor, "*token class"]:
        """Return the teacher's centred logits of tokens."""
        return (
            F.linear(self.teacher.project(teacher_out, name), self.teacher.prototypes_for(name))
            - self._target(name).centre
        )

    def after_step(self, step: int) -> None:
        """Move the teacher's heads towards the student's, and the centres to the mean of its outputs."""
        for name in self.targets:
            self._target(name).update(step)
        ema_update(self.teacher, self.student, self.momentum_at(step))

    def momentum_at(self, step: int) -> float:
        """Return the teacher's momentum in a step: half a cosine from its start to 1 at the end of the run."""
        return cosine(self.momentum, 1.0, self._progress(step))

    def temperature(self, step: int) -> float:
        """Return the teacher's temperature in a step. *Differs* from the published code: not in stairs of an epoch."""
        warmup = self.config.temperature_warmup
        return ramp(
            *self.config.teacher_temperature, self._progress(step) / warmup if warmup else 1.0
        )

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return in words that a loss sits at ln K, or that the teacher's variety or doubt is gone; else None.

        Nothing is student_out while the temperature rises, when losses may pass ln K without harm.
        """
        if self._progress(step) < self.config.temperature_warmup:
            return None
        for name in self.targets:
            most = math.log(self._target(name).classes)
            if metrics.get(f"{name}_kl_uniform", 0.0) > _ONE_PROTOTYPE * most:
                what, cure = (
                    "teacher assigns nearly everything to one prototype",
                    "a longer --lr-warmup, a lower --lr",
                )
            elif metrics.get(name, 0.0) > _STUCK_LOSS * most:
                what, cure = (
                    f"loss sits at ln K = {most:.2f}: it has learned nothing",
                    "a lower teacher-temperature",
                )
            elif metrics.get(f"{name}_entropy", most) < _LOW_ENTROPY * most:
                what, cure = "teacher is certain of everything", "a longer temperature-warmup"
            else:
                continue
            flag = "--objective.distillation"
            return f"collapse: the {name} {what}; try {cure}, or another momentum (now {self.momentum:.4f}) ({flag}.*)"
        return None

    def _target(self, name: str) -> CentredTargets:
        target = self.targets[name]
        assert isinstance(target, CentredTargets)  # a ModuleDict has no type of item
        return target

    def _metrics(self, name: str, loss: Tensor, entropy: Tensor) -> dict[str, Tensor]:
        """Return a loss, as it is and as a share of ln K (1 is the loss of a uniform guess), and the gauges."""
        target = self._target(name)
        gauges = {
            "over_ln_k": loss / math.log(target.classes),
            "entropy": entropy,
            **target.gauges(),
        }
        return {name: loss} | {f"{name}_{gauge}": value for gauge, value in gauges.items()}

    def _prototypes(self, name: str, step: int) -> Float[Tensor, "class bottleneck"]:
        """Return the student's prototypes, without gradient while they are frozen."""
        prototypes = self.student.prototypes_for(name)
        return (
            prototypes.detach()
            if self._progress(step) < self.config.freeze_prototypes
            else prototypes
        )

    def _progress(self, step: int) -> float:
        return min(1.0, step / self.steps)
