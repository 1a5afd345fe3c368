"""Losses between the labels that a student and a teacher give, softened by a temperature T.

For logits s of the student and t of the teacher::

    one label         T^2 KL(softmax(t / T) || softmax(s / T))
    several labels    T^2 mean_k KL(sigmoid(t_k / T) || sigmoid(s_k / T))    of Bernoulli variables

T^2 keeps the size of the gradient whatever T is. Source: Hinton, Vinyals and Dean 2015 (arXiv
1503.02531), section 2.

>>> scores = torch.tensor([[2.0, -1.0, 0.5]])
>>> soft_label_losses(scores, scores, 2.0, several=False)
tensor([0.])
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from melpatch.nn.masked import at_least_float32


def soft_label_losses(
    student: Float[Tensor, "clip label"],
    teacher: Float[Tensor, "clip label"],
    temperature: float,
    several: bool,
) -> Float[Tensor, " clip"]:
    """Return the loss of each clip, 0 where both agree, in float32 or float64.

    Args:
        student: its logits.
        teacher: its logits.
        temperature: divisor of all logits.
        several: whether each label has a sigmoid of its own.
    """
    ours = at_least_float32(student) / temperature
    theirs = at_least_float32(teacher) / temperature
    if not several:
        log_ours, log_theirs = ours.log_softmax(dim=1), theirs.log_softmax(dim=1)
        divergence = (log_theirs.exp() * (log_theirs - log_ours)).sum(dim=1)
        return temperature**2 * divergence
    yes = theirs.sigmoid()
    divergence = yes * (F.logsigmoid(theirs) - F.logsigmoid(ours))
    divergence = divergence + (1 - yes) * (F.logsigmoid(-theirs) - F.logsigmoid(-ours))
    return temperature**2 * divergence.mean(dim=1)


def agreement(
    student: Float[Tensor, "clip label"], teacher: Float[Tensor, "clip label"], several: bool
) -> Float[Tensor, " clip"]:
    """Return whether both give a clip the same label; of several, the share that both judge alike."""
    if several:
        return ((student > 0) == (teacher > 0)).to(student.dtype).mean(dim=1)
    same: Tensor = student.argmax(dim=1) == teacher.argmax(dim=1)
    return same.to(at_least_float32(student).dtype)
