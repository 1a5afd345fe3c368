"""Settings of self-distillation over prototypes: heads, targets and schedules."""

from dataclasses import dataclass
from typing import Literal

from melpatch.config import check
from melpatch.nn.distillation import CentreOf


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """Settings of heads, targets and schedules. Shares are shares of the run."""

    hidden_dim: int = 2048
    """Width of the heads' trunk."""
    bottleneck_dim: int = 256
    """Width of the unit vectors that are compared with the prototypes."""
    train_gain: bool = False
    """Whether the length of the prototypes is trained; fixed at 1 is more stable."""
    freeze_prototypes: float = 0.025
    """Share of the run, at its start, during which the prototypes are frozen."""
    centre: CentreOf = "logits"
    """What the teacher's distributions are centred by: its mean logits, or its mean probabilities,
    which are so small that they do next to nothing."""
    student_temperature: float = 0.1
    """Temperature of the student's distributions."""
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    """Temperature of the teacher's, at the start and after the warm-up; lower than the
    student's."""
    temperature_warmup: float = 0.1
    """Share of the run over which it rises."""
    momentum: float | None = None
    """EMA momentum of the teacher at the start; rises to 1 over the run. None: by batch size and
    run length."""
    momentum_curve: Literal["linear", "cosine"] = "cosine"
    """How it rises: on a line, or on half a cosine."""

    def __post_init__(self) -> None:
        """Check the ranges."""
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


@dataclass(frozen=True, kw_only=True)
class Classification(HeadSettings):
    """Settings of a classification of patches by a teacher's prototypes.

    Source: the defaults are those of MATPAC (Quelennec et al. 2025, arXiv 2502.12031) and its
    published settings, but for the centre.
    """

    weight: float = 0.0
    """Share of the classification loss in the whole loss, from 0 (no such heads) to 1 (it
    alone)."""
    prototypes: int = 2048
    """Prototypes, which are the classes."""
    train_gain: bool = True
    freeze_prototypes: float = 0.0
    temperature_warmup: float = 1 / 30
    momentum_curve: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check(0 <= self.weight <= 1, "weight", self.weight, "0 to 1")
        check(self.prototypes >= 2, "prototypes", self.prototypes, "2 or more")
