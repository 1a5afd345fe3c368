"""InfoNCE: each prediction has to find its own target among those of other items.

For predictions c_i and targets x_i of the items i = 1..N of a group::

    L_i = -ln [exp(c_i . x_i) / sum_j exp(c_i . x_j)]

Scores are plain dot products, without temperature and without normalisation of either side.

Source: van den Oord, Li and Vinyals 2018 (arXiv 1807.03748), equation 4; over the masked patches of
one clip, Gong et al. 2022 (arXiv 2110.09784), section 2.3, equation 1; over the clips of a batch,
Saeed et al. 2020 (arXiv 2010.10915), section 2.

>>> predictions = torch.zeros(2, 5, 256)  # clip, item, dim
>>> targets = torch.ones(2, 5, 256)
>>> valid = torch.ones(2, 5, dtype=torch.bool)
>>> loss, hit = info_nce(predictions, targets, valid)  # (clip, item) each
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
    ignore: Bool[Tensor, "clip item item"] | None = None,
) -> tuple[Float[Tensor, "clip item"], Bool[Tensor, "clip item"]]:
    """Return the loss in nats and whether the prediction hit, per item.

    Args:
        predictions: c_i.
        targets: x_i, the positives and, for the other predictions of the same group, the negatives.
        valid: False for padding, which is neither predicted nor a negative.
        axis: what the softmax runs over. ``patches``, the targets, is the papers' equation; with
            ``predictions`` each target finds its own prediction, as in the published SSAST and in
            the second direction of a symmetric loss. Loss values are not comparable.
        negatives: the group: the items of one clip, of the batch, or of the batches of all
            processes. With ``processes``, each process must call this equally often, forwards and
            backwards; one process alone has the batch.
        ignore: pairs of items of a clip that are no negatives of each other.

    A hit is a best-scored target that equals the right one in every number: identical targets, such
    as digital silence, cannot be discriminated (*Differs* from the published accuracy, which counts
    them as wrong).

    With ``processes``, a loss belongs to the process of its item and its gradient reaches the items
    of all: the sum of the processes' gradients is the gradient of the sum of their losses, as one
    process with all items has it.
    """
    shape = valid.shape
    if negatives != "clip":
        predictions = predictions.flatten(0, 1)[None]
        targets = targets.flatten(0, 1)[None]
        valid = valid.flatten(0, 1)[None]
    own = slice(0, valid.shape[1])
    if negatives == "processes" and processes() > 1:
        # One exchange for all three, side by side in the columns of one tensor.
        columns = [predictions[0], targets[0], valid[0, :, None].to(targets.dtype)]
        rows, own = _gathered(torch.cat(columns, dim=1))
        dim = targets.shape[2]
        predictions = rows[None, :, :dim]
        targets = rows[None, :, dim:-1]
        valid = rows[None, :, -1] > 0
    if not valid.shape[1]:  # no items; the sum keeps the graph
        return predictions.sum(dim=2), valid
    loss, hit = _compare(predictions, targets, valid, own, axis, ignore)
    return loss.view(shape), hit.view(shape)


def processes() -> int:
    """Return the world size: how many processes train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


def _compare(
    predictions: Float[Tensor, "group item dim"],
    targets: Float[Tensor, "group item dim"],
    valid: Bool[Tensor, "group item"],
    own: slice,
    axis: Axis,
    ignore: Bool[Tensor, "clip item item"] | None = None,
) -> tuple[Float[Tensor, "group own"], Bool[Tensor, "group own"]]:
    """Return losses and hits of the ``own`` items of each group among all of the group."""
    queries = own
    dim = 2
    if axis == "predictions":  # its softmax needs the predictions of all items
        queries = slice(None)
        dim = 1
    # scores[group, prediction, target]
    scores = torch.bmm(predictions[:, queries], targets.transpose(1, 2))
    candidate = valid[:, queries, None] & valid[:, None, :]
    if ignore is not None:
        candidate = candidate & ~ignore
    scores = scores.masked_fill(~candidate, torch.finfo(scores.dtype).min)
    log_probability = scores.log_softmax(dim=dim)
    if axis == "predictions":
        log_probability = log_probability[:, own]
        candidate = candidate[:, own]
    # An item's own target lies on the diagonal, which starts at the first of the own items.
    loss = -log_probability.diagonal(offset=own.start, dim1=1, dim2=2)
    best = log_probability.masked_fill(~candidate, -torch.inf).argmax(dim=2)
    best_target = targets.gather(1, best[..., None].expand(-1, -1, targets.shape[2]))
    hit = (best_target == targets[:, own]).all(dim=2) & valid[:, own]
    return loss.masked_fill(~valid[:, own], 0.0), hit


def _gathered(rows: Float[Tensor, "row dim"]) -> tuple[Float[Tensor, "everyrow dim"], slice]:
    """Return the rows of all processes, in any number, and where those of this process are."""
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
        # all_gather wants tensors of one size.
        padded = F.pad(rows, (0, 0, 0, max(sizes) - len(rows)))
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded.contiguous())
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        # Every process has losses that depend on these rows: d L / d row sums over all of them.
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(summed)
        return summed[ctx.own], None, None
