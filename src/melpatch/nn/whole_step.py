"""Losses that see the rows of a whole step, however it is divided into batches and processes.

Batch statistics and negatives are those of all clips of an optimiser step. Each batch brings its
own rows with their gradient and takes those of all other batches and processes without; the
gradients that the batches bring add up to that of one large batch.

Source: gradient caching (Gao et al. 2021, arXiv 2101.06983).

>>> step = WholeStep()
>>> head = nn.Linear(8, 4)
>>> own = Rows(torch.ones(3, 2, 8), torch.arange(3))  # 3 clips, 2 views
>>> rows = step.join(own)  # own rows first, then those of other processes
>>> outputs = run_shared(head, rows.features, share=len(own.keys) / len(rows.keys))
>>> loss = own_part(outputs.square().mean(dim=(1, 2)), len(own.keys)) / len(own.keys)
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from melpatch import distributed


class Rows(NamedTuple):
    """Features of some clips, or of some frames of clips, in all their views."""

    features: Float[Tensor, "row view dim"]
    keys: Int[Tensor, " row"]
    """The key of each row's clip. A step may hold a clip twice, at the seam of two epochs."""


class WholeStep:
    """The rows of the other batches and processes of a step.

    Attributes:
        others: for each batch of the step that is still to come, the rows of all others.
    """

    def __init__(self) -> None:
        self.others: deque[Rows] = deque()

    def prepare(self, batches: Sequence[Rows]) -> None:
        """Note the rows of all batches that this process accumulates; a collective call."""
        self.others.clear()
        every = [*batches, *_of_other_processes(_joined(batches))]
        self.others.extend(_all_but(number, every) for number in range(len(batches)))

    def join(self, own: Rows) -> Rows:
        """Return the rows of the whole step, own ones first; others are without gradient.

        A collective call unless :meth:`prepare` was called for this step.
        """
        if self.others:
            others = self.others.popleft()
        else:
            others = _all_but(0, [own, *_of_other_processes(own)])
        return _joined([own, others])


def own_part(losses: Float[Tensor, " row"], own: int) -> Float[Tensor, ""]:
    """Return the sum of the own rows' losses, with the gradient of the sum of all.

    Losses of other rows depend on own ones too, through batch statistics or as negatives. Their
    gradient belongs here, but the batch that owns them reports their value.

    Args:
        losses: of all rows of the step, own ones first.
        own: how many rows are own.
    """
    total = losses.sum()
    return total - (total - losses[:own].sum()).detach()


def run_shared(head: nn.Module, inputs: Tensor, share: float) -> Tensor:
    """Return what a head makes of the rows of the whole step; its weights get a share of the gradient.

    Every batch of the step computes the same gradient of the head, since it sees all rows. With the
    batch's share of the rows as factor, these gradients add up to one.

    Args:
        head: a projector or predictor.
        inputs: rows of the whole step.
        share: own rows as a share of all.
    """
    weights = {}
    for name, weight in head.named_parameters():
        fixed = weight.detach()
        weights[name] = fixed + share * (weight - fixed)  # the same value
    outputs: Tensor = torch.func.functional_call(head, weights, (inputs,))
    return outputs


def _of_other_processes(own: Rows) -> list[Rows]:
    """Return the rows of the other processes at the same time."""
    by_part = [distributed.all_gather_rows(part.detach().contiguous()) for part in own]
    by_rank = [Rows(*parts) for parts in zip(*by_part, strict=True)]
    rank = distributed.rank()
    return [rows for number, rows in enumerate(by_rank) if number != rank]


def _joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of several batches as one."""
    return Rows(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _all_but(number: int, parts: Sequence[Rows]) -> Rows:
    """Return the rows of all parts but one, without gradient; empty if there is no other."""
    rest = [part for index, part in enumerate(parts) if index != number]
    if not rest:
        rest = [Rows(*(column[:0] for column in parts[number]))]
    return Rows(*(column.detach() for column in _joined(rest)))
