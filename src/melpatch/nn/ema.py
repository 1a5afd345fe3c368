"""The momentum teacher: a copy of the student that follows it slowly and is never trained.

Source: He et al. 2020, "MoCo" (arXiv 1911.05722), section 3.2; Caron et al. 2021, "DINO" (arXiv
2104.14294), section 3.1.

>>> student = nn.Linear(8, 2)
>>> teacher = frozen_copy(student)
>>> ema_update(teacher, student, momentum=0.996)  # after each optimiser step
>>> default_momentum(batch_size=32, steps=10_000)
0.998
>>> momentum = Momentum(start=0.99, end=1.0).over(batch_size=32, steps=100)
>>> momentum(0), momentum(50), momentum(100)
(0.99, 0.995, 1.0)
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import nn

from melpatch.config import check
from melpatch.schedules import cosine, ramp

M = TypeVar("M", bound=nn.Module)

# The teacher averages the students of this many clips, and of at most this share of the run.
_CLIPS = 256_000
_SHARE = 0.05


def frozen_copy(module: M) -> M:
    """Return a copy in evaluation mode whose parameters get no gradient."""
    copy = deepcopy(module).eval()
    copy.requires_grad_(False)
    return copy


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move the teacher: ``teacher = momentum * teacher + (1 - momentum) * student``.

    Buffers are copied: running statistics of a norm, for example, are averages already.
    """
    # One kernel for all parameters: lerp(t, s, 1 - m) = t + (1 - m) (s - t) = m t + (1 - m) s.
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1.0 - momentum)
    for buffer, source in zip(teacher.buffers(), student.buffers(), strict=True):
        buffer.copy_(source)


def default_momentum(batch_size: int, steps: int) -> float:
    """Return an EMA momentum for a batch size and the length of a run.

    The teacher averages over the last 1 / (1 - momentum) steps. The default is 256,000 clips: what
    0.996 means at batch size 1024, for which it was tuned (DINO's advice for 256 is 0.9995: 512,000
    clips). It is at most a twentieth of the run, because a slower teacher would still consist of
    random weights at the end of a short run.

    Args:
        batch_size: clips per optimiser step.
        steps: optimiser steps of the run.
    """
    averaged_steps = max(2.0, min(_CLIPS / batch_size, _SHARE * steps))
    return 1.0 - 1.0 / averaged_steps


@dataclass(frozen=True, kw_only=True)
class Momentum:
    """Settings of a teacher's momentum over a run."""

    start: float | None = None
    """Momentum at the first step; none chooses it by batch size and length of the run, see
    :func:`default_momentum`."""
    end: float | None = None
    """Momentum at the end of the curve; none is start."""
    curve: Literal["linear", "cosine"] = "linear"
    """How it gets from one to the other: on a line, or on half a cosine."""
    share: float = 1.0
    """Share of the run over which it changes, in (0, 1]; after that it is constant."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("start", "end"):
            value = getattr(self, name)
            check(value is None or 0 <= value <= 1, name, value, "from 0 to 1, or none")
        fits = self.end is None or self.start is not None
        check(fits, "end", self.end, "none without start")
        check(0 < self.share <= 1, "share", self.share, "above 0, up to 1")

    def over(self, batch_size: int, steps: int) -> Callable[[int], float]:
        """Return the momentum after each step of a run.

        Args:
            batch_size: clips per optimiser step.
            steps: optimiser steps of the run.
        """
        start = self.start
        if start is None:
            start = default_momentum(batch_size, steps)
        end = start if self.end is None else self.end
        curve = {"linear": ramp, "cosine": cosine}[self.curve]
        return partial(_at, curve, start, end, self.share * steps)


def _at(
    curve: Callable[[float, float, float], float],
    start: float,
    end: float,
    steps: float,
    step: int,
) -> float:
    return curve(start, end, step / steps)
