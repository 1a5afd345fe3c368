"""The momentum teacher: a copy of the student that follows it slowly and is never trained.

Source: He et al. 2020, "MoCo" (arXiv 1911.05722), section 3.2; Caron et al. 2021, "DINO" (arXiv 2104.14294),
section 3.1.
"""

from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)

_CLIPS = 256_000
_SHARE = 0.05


def frozen_copy(module: M) -> M:
    """Return a copy in evaluation mode whose parameters get no gradient."""
    copy = deepcopy(module).eval()
    copy.requires_grad_(False)
    return copy


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move every parameter of the teacher: ``teacher = momentum * teacher + (1 - momentum) * student``.

    Buffers, such as the statistics of an input's norm, which are running averages already, become the student's.
    """
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1.0 - momentum)
    for own, theirs in zip(teacher.buffers(), student.buffers(), strict=True):
        own.copy_(theirs)


def default_momentum(batch_size: int, steps: int) -> float:
    """Return a momentum for batches of so many clips in a run of so many steps.

    The teacher averages over 1 / (1 - momentum) steps. That is 256,000 clips, which is what 0.996 means at the batch of
    1024 it was found with (DINO's advice is 0.9995 at 256: 512,000 clips), but at most a twentieth of the run: a
    teacher slower than that would still be made of random weights at the end of a short run.
    """
    return 1.0 - 1.0 / max(2.0, min(_CLIPS / batch_size, _SHARE * steps))
