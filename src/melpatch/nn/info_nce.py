"""InfoNCE: each prediction has to find its own target among those of others.

Source: van den Oord, Li and Vinyals 2018 (arXiv 1807.03748), equation 4; over the hidden patches of one clip, Gong et
al. 2022 (arXiv 2110.09784), section 2.3, equation 1; over the clips of a batch, Saeed et al. 2020 (arXiv 2010.10915),
section 2. Scores are plain dot products, without temperature and without normalisation of either side.
"""

from typing import Any, Literal

import torch
import torch.distributed
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Axis = Literal["patches", "predictions"]
Negatives = Literal["clip", "batch", "processes"]


def info_nce(
    predictions: Float[Tensor, "clip item dim"],
    targets: Float[Tensor, "clip item dim"],
    valid: Bool[Tensor, "clip item"],
    axis: Axis = "patches",
    negatives: Negatives = "clip",
    alike: Bool[Tensor, "clip item item"] | None = None,
) -> tuple[Float[Tensor, "clip item"], Bool[Tensor, "clip item"]]:
    """Return the loss in nats and whether the prediction hit, per item.

    Args:
        predictions: c_i.
        targets: x_i, the positives and, for the other predictions of the same group, the negatives.
        valid: which entries are real; the others are neither predicted nor candidates.
        axis: what the softmax runs over. ``patches``, the targets, is the papers' equation; ``predictions`` asks each
            target for its own prediction, which is what the published SSAST does and the other direction of a
            symmetric loss. Loss values are not comparable.
        negatives: the group: the items of one clip, of the batch, or of the batches of all processes, each of which
            then has to call this as often, forwards and backwards. Without processes that is the batch.
        alike: which items of a clip are not to be told from which others.

    A hit is a best-scored target that equals the right one in every number: among identical ones, such as digital
    silence, there is nothing to tell apart (*Differs* from the published accuracy, which counts them as wrong).

    With ``processes``, a loss belongs to the process of its item and its gradient reaches the items of all: the sum of
    the processes' gradients is the gradient of the sum of their losses, as one process with all items has it.
    """
    shape = valid.shape
    if negatives != "clip":
        predictions, targets, valid = (
            items.flatten(0, 1)[None] for items in (predictions, targets, valid)
        )
    own = slice(0, valid.shape[1])
    if negatives == "processes" and processes() > 1:
        # One exchange for all three.
        joined, own = _gathered(
            torch.cat([predictions[0], targets[0], valid[0, :, None].to(targets.dtype)], dim=1)
        )
        dim = targets.shape[2]
        predictions, targets, valid = (
            joined[None, :, :dim],
            joined[None, :, dim:-1],
            joined[None, :, -1] > 0,
        )
    if not valid.shape[1]:
        return predictions.sum(dim=2), valid  # there is nothing to tell
    loss, hit = _among(predictions, targets, valid, own, axis, alike)
    return loss.view(shape), hit.view(shape)


def processes() -> int:
    """Return how many processes train together."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if together else 1


def _among(
    predictions: Float[Tensor, "group item dim"],
    targets: Float[Tensor, "group item dim"],
    valid: Bool[Tensor, "group item"],
    own: slice,
    axis: Axis,
    alike: Bool[Tensor, "clip item item"] | None = None,
) -> tuple[Float[Tensor, "group own"], Bool[Tensor, "group own"]]:
    """Return losses and hits of the ``own`` items of each group among all of the group."""
    asked = own if axis == "patches" else slice(None)  # a softmax over predictions needs them all
    scores = torch.bmm(
        predictions[:, asked], targets.transpose(1, 2)
    )  # [group, prediction, target]
    real = valid[:, asked, None] & valid[:, None, :]
    real = real if alike is None else real & ~alike
    scores = scores.masked_fill(~real, torch.finfo(scores.dtype).min)
    likelihood = scores.log_softmax(dim=2 if axis == "patches" else 1)
    if axis == "predictions":
        likelihood, real = likelihood[:, own], real[:, own]
    loss = -likelihood.diagonal(offset=own.start, dim1=1, dim2=2)
    best = likelihood.masked_fill(~real, -torch.inf).argmax(dim=2)
    chosen = targets.gather(1, best[..., None].expand(-1, -1, targets.shape[2]))
    hit = (chosen == targets[:, own]).all(dim=2) & valid[:, own]
    return loss.masked_fill(~valid[:, own], 0.0), hit


def _gathered(rows: Float[Tensor, "row dim"]) -> tuple[Float[Tensor, "everyrow dim"], slice]:
    """Return the rows of all processes, of which each may have another number, and where one's own are."""
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(processes())]
    torch.distributed.all_gather(counts, count)
    sizes = torch.cat(counts).tolist()
    start = sum(sizes[: torch.distributed.get_rank()])
    every: Tensor = _Gather.apply(rows, sizes, start)  # type: ignore[no-untyped-call]
    return every, slice(start, start + len(rows))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], start: int) -> Tensor:
        ctx.own = slice(start, start + len(rows))
        padded = F.pad(
            rows, (0, 0, 0, max(sizes) - len(rows))
        )  # what is gathered must be of one size
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded.contiguous())
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(summed)  # every process has losses that hang on these rows
        return summed[ctx.own], None, None
