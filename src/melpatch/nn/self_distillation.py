"""Local and global self-distillation: heads of student and teacher, targets and schedules.

Sources: Caron et al. 2021, "DINO" (arXiv 2104.14294), section 3.1 and appendix C; Atito et al.
2022, "ASiT" (arXiv 2211.13189), section III-B and C, which has it for class tokens ("global") and
for patch tokens ("local").

>>> config = SelfDistillation.Config(hidden_dim=64, bottleneck_dim=32)
>>> prototypes = {"global": 8192, "local": 1024}
>>> distillation = SelfDistillation(config, dim=192, prototypes=prototypes)
>>> distillation.begin(steps=1000, batch_size=64)
>>> tokens = torch.zeros(2, 64, 192)  # class tokens: (view, clip, dim)
>>> losses = distillation.view_loss("global", tokens, tokens, step=0)
>>> losses["global"].backward()
>>> distillation.after_step(step=0)  # moves the teacher's heads and the centres
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from melpatch.config import check
from melpatch.nn.distillation import (
    CentredTargets,
    chunked_cross_entropy,
    cross_view_loss,
)
from melpatch.nn.distillation_settings import HeadSettings
from melpatch.nn.ema import default_momentum, ema_update, frozen_copy
from melpatch.nn.heads import DistillationHeads, Sharing
from melpatch.progress import notice
from melpatch.schedules import cosine, ramp

# Shares of ln K: a loss above the first, a KL divergence to uniform above the second, or an entropy
# below the third is a sign of collapse.
_STUCK_LOSS = 0.99
_ONE_PROTOTYPE = 0.9
_LOW_ENTROPY = 0.02
# Steps after which the gauges tell: until the centres are known, a loss exceeds ln K by chance.
_FIRST_VERDICT = 10


class SelfDistillation(nn.Module):
    """Heads, targets and schedules of self-distillation; the encoders are the objective's own.

    Attributes:
        student: heads that are trained.
        teacher: EMA of the student's heads.
        targets: centres and gauges, by name of the loss.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(HeadSettings):
        """Settings of a loss on class tokens and one on patch tokens, as in ASiT."""

        global_prototypes: int = 8192
        """Prototypes of the global loss, on class tokens."""
        local_prototypes: int = 1024
        """Prototypes of the local loss, on patch tokens."""
        shared: Sharing = "trunk"
        """Parts that the two heads share: the trunk, none, or all."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            super().__post_init__()
            for name in ("global_prototypes", "local_prototypes"):
                check(getattr(self, name) >= 2, name, getattr(self, name), "2 or more")
            alike = self.shared != "all" or self.global_prototypes == self.local_prototypes
            check(
                alike,
                "local_prototypes",
                self.local_prototypes,
                f"{self.global_prototypes} as global_prototypes: all is shared",
            )

        def prototypes(self, names: Iterable[str]) -> dict[str, int]:
            """Return the number of prototypes of each of the losses "global" and "local"."""
            return {name: int(getattr(self, f"{name}_prototypes")) for name in names}

    def __init__(
        self,
        config: HeadSettings,
        dim: int,
        prototypes: Mapping[str, int],
        shared: Sharing = "none",
        flag: str = "--objective.distillation",
    ) -> None:
        """Build the heads.

        Args:
            config: their settings.
            dim: channels of a token.
            prototypes: number of prototypes of each loss, by its name.
            shared: parts that the heads of several losses share.
            flag: flag of the settings, for what is printed.
        """
        super().__init__()
        self.config = config
        self.flag = flag
        self.student = DistillationHeads(
            dim,
            config.hidden_dim,
            config.bottleneck_dim,
            prototypes,
            shared=shared,
            train_gain=config.train_gain,
        )
        self.teacher = frozen_copy(self.student)
        self.targets = nn.ModuleDict()
        for name, count in prototypes.items():
            self.targets[name] = CentredTargets(count, centre_of=config.centre)
        self.steps = 1
        self.momentum = config.momentum or 0.0

    def begin(self, steps: int, batch_size: int) -> None:
        """Copy the student's heads to the teacher, and fit the schedules to the run."""
        self.teacher.load_state_dict(self.student.state_dict())
        self.steps = steps
        if self.config.momentum is not None:
            self.momentum = self.config.momentum
            return
        self.momentum = default_momentum(batch_size, steps)
        notice(
            f"the teacher's momentum starts at {self.momentum:.5f}, for {steps} steps of "
            f"{batch_size} clips; {self.flag}.momentum sets another"
        )

    def train(self, mode: bool = True) -> "SelfDistillation":
        """Set training mode; the teacher stays in evaluation mode."""
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
        """Return the weighted cross-entropy of each token with the teacher's, and the gauges.

        Args:
            name: the loss whose heads to use, such as "local".
            student_out: the student's tokens.
            teacher_out: the teacher's tokens at the same places.
            weights: weight of each token; weights that sum to 1 make a mean.
            step: the step of training.
        """
        with torch.no_grad():
            teacher_vectors = self.teacher.project(teacher_out, name)
            teacher_prototypes = self.teacher.prototypes_for(name)
        targets = self._targets(name)
        temperature = self.temperature(step)
        entropies = [weights.new_zeros(0)]

        def distribution(part: slice) -> Float[Tensor, "chunk class"]:
            logits = F.linear(teacher_vectors[part], teacher_prototypes)
            probabilities, entropy = targets.distribution(logits, temperature, step)
            entropies.append(entropy)
            return probabilities

        vectors = self.student.project(student_out, name)
        prototypes = self._student_prototypes(name, step)
        # Division by small temperatures needs float32.
        with torch.autocast(student_out.device.type, enabled=False):
            loss = chunked_cross_entropy(
                vectors, prototypes, weights, distribution, self.config.student_temperature
            )
            # The weighted mean of the teacher's entropy, from all chunks.
            return self._metrics(name, loss, weights @ torch.cat(entropies).to(weights.dtype))

    def view_loss(
        self,
        name: str,
        student_out: Float[Tensor, "anyview clip dim"],
        teacher_out: Float[Tensor, "view clip dim"],
        step: int,
    ) -> dict[str, Tensor]:
        """Return the mean cross-entropy of each view with the teacher's other views, and the
        gauges.

        Args:
            name: "global" or "local", which heads to use.
            student_out: the student's tokens: the teacher's views first, then any others.
            teacher_out: the teacher's tokens.
            step: the step of training.
        """
        with torch.no_grad():
            teacher_vectors = self.teacher.project(teacher_out, name)
            teacher_prototypes = self.teacher.prototypes_for(name)
        vectors = self.student.project(student_out, name)
        prototypes = self._student_prototypes(name, step)
        # Division by small temperatures needs float32.
        with torch.autocast(student_out.device.type, enabled=False):
            teacher_logits = F.linear(teacher_vectors, teacher_prototypes)
            probabilities, entropy = self._targets(name).distribution(
                teacher_logits, self.temperature(step), step
            )
            logits = F.linear(vectors, prototypes)
            loss = cross_view_loss(probabilities, logits, self.config.student_temperature).mean()
            return self._metrics(name, loss, entropy.mean())

    def logits(
        self, name: str, teacher_out: Float[Tensor, "*token dim"]
    ) -> Float[Tensor, "*token class"]:
        """Return the teacher's centred logits of tokens."""
        vectors = self.teacher.project(teacher_out, name)
        logits = F.linear(vectors, self.teacher.prototypes_for(name))
        return logits - self._targets(name).centre

    def after_step(self, step: int) -> None:
        """Move the teacher's heads towards the student's, and the centres to its mean logits."""
        for name in self.targets:
            self._targets(name).update(step)
        ema_update(self.teacher, self.student, self.momentum_at(step))

    def momentum_at(self, step: int) -> float:
        """Return the teacher's momentum in a step, which rises from its start to 1."""
        curve = {"linear": ramp, "cosine": cosine}[self.config.momentum_curve]
        return curve(self.momentum, 1.0, self._progress(step))

    def temperature(self, step: int) -> float:
        """Return the teacher's temperature in a step.

        *Differs* from the published code, which raises it once per epoch.
        """
        warmup = self.config.temperature_warmup
        start, end = self.config.teacher_temperature
        if not warmup:
            return ramp(start, end, 1.0)
        return ramp(start, end, self._progress(step) / warmup)

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a warning if a loss stays at ln K, or the teacher has collapsed; else None.

        There is no warning in the first ten steps and while the temperature rises, when losses may
        harmlessly exceed ln K.

        Args:
            metrics: of the last step.
            step: steps done.
        """
        if step < _FIRST_VERDICT or self._progress(step) < self.config.temperature_warmup:
            return None
        for name in self.targets:
            # ln K: the loss of a uniform guess, and the most that KL divergence and entropy can be.
            most = math.log(self._targets(name).classes)
            if metrics.get(f"{name}_kl_uniform", 0.0) > _ONE_PROTOTYPE * most:
                symptom = "teacher assigns nearly everything to one prototype"
                remedy = "a longer --lr-warmup, a lower --lr"
            elif metrics.get(name, 0.0) > _STUCK_LOSS * most:
                symptom = f"loss sits at ln K = {most:.2f}: it has learned nothing"
                remedy = "a lower teacher-temperature"
            elif metrics.get(f"{name}_entropy", most) < _LOW_ENTROPY * most:
                symptom = "teacher is certain of everything"
                remedy = "a longer temperature-warmup"
            else:
                continue
            return (
                f"collapse: the {name} {symptom}; try {remedy}, or another momentum "
                f"(now {self.momentum:.4f}) ({self.flag}.*)"
            )
        return None

    def _targets(self, name: str) -> CentredTargets:
        targets = self.targets[name]
        assert isinstance(targets, CentredTargets)  # a ModuleDict does not know its items' type
        return targets

    def _metrics(self, name: str, loss: Tensor, entropy: Tensor) -> dict[str, Tensor]:
        """Return a loss, also as a share of ln K (the loss of a uniform guess), and the gauges."""
        targets = self._targets(name)
        gauges = {
            "over_ln_k": loss / math.log(targets.classes),
            "entropy": entropy,
            **targets.gauges(),
        }
        return {name: loss} | {f"{name}_{gauge}": value for gauge, value in gauges.items()}

    def _student_prototypes(self, name: str, step: int) -> Float[Tensor, "class bottleneck"]:
        """Return the student's prototypes, without gradient while they are frozen."""
        prototypes = self.student.prototypes_for(name)
        if self._progress(step) < self.config.freeze_prototypes:
            return prototypes.detach()
        return prototypes

    def _progress(self, step: int) -> float:
        return min(1.0, step / self.steps)
