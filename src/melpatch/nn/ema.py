"""The momentum teacher: a copy of the student that follows it slowly and is never trained.

Source: He et al. 2020, "MoCo" (arXiv 1911.05722), section 3.2; Caron et al. 2021, "DINO" (arXiv
2104.14294), section 3.1.

>>> student = nn.Linear(8, 2)
>>> teacher = frozen_copy(student)
>>> ema_update(teacher, student, momentum=0.996)  # after each optimiser step
>>> default_momentum(batch_size=32, steps=10_000)
0.998
"""

from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

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
