"""Summaries of stretches of a sequence, which join to the summary of the whole.

A recording of any length is summarised window by window, in bounded memory, and has the same
statistics as if all its columns had been there at once.

Source of the joined deviation: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise
algorithm for computing sample variances".
"""

from collections.abc import Collection
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from melpatch.nn.masked import at_least_float32

Statistic = Literal["mean", "std", "delta", "max"]
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)

_FIELDS: dict[Statistic, tuple[str, ...]] = {
    "mean": (),
    # Sum of squared distances from the mean.
    "std": ("squares",),
    # Sum of absolute differences of neighbours, their number, and what the next stretch meets.
    "delta": ("change", "pairs", "first", "last"),
    "max": ("largest",),
}


def fields_of(statistics: Collection[Statistic]) -> tuple[str, ...]:
    """Return what a summary holds, so that these statistics follow from it."""
    needed = [field for name in STATISTICS if name in statistics for field in _FIELDS[name]]
    return ("weight", "mean", *needed)


def summarise(
    values: Float[Tensor, "clip step channel"],
    weight: Float[Tensor, "clip step #channel"] | None,
    fields: tuple[str, ...],
) -> Float[Tensor, "clip field channel"]:
    """Return the summary of each sequence, in float32, or float64 where the values are.

    Args:
        values: the sequences.
        weight: of each value, 0 for padding; None where all count alike.
        fields: what to keep, see :func:`fields_of`.
    """
    values = at_least_float32(values)
    if weight is None:
        weight = values.new_ones(1, 1, 1)
    weight = weight.to(values.dtype).expand(*values.shape[:2], weight.shape[2])
    total = weight.sum(dim=1)
    # A sequence without any value has the mean 0.
    mean = (values * weight).sum(dim=1) / total.clamp(min=1e-12)
    kept = {"weight": total.expand_as(mean), "mean": mean}
    if "squares" in fields:
        kept["squares"] = ((values - mean[:, None]).square() * weight).sum(dim=1)
    if "change" in fields:
        both = (weight[:, 1:] > 0) & (weight[:, :-1] > 0)
        change = (values[:, 1:] - values[:, :-1]).abs()
        kept["change"] = (change * both).sum(dim=1)
        kept["pairs"] = both.sum(dim=1).to(values.dtype).expand_as(mean)
        steps = torch.arange(values.shape[1], device=values.device)[:, None]
        present = weight > 0
        first = steps.where(present, values.shape[1] - 1).amin(dim=1, keepdim=True)
        last = steps.where(present, 0).amax(dim=1, keepdim=True)
        kept["first"] = values.gather(1, first.expand(-1, 1, values.shape[2]))[:, 0]
        kept["last"] = values.gather(1, last.expand(-1, 1, values.shape[2]))[:, 0]
    if "largest" in fields:
        kept["largest"] = values.masked_fill(weight == 0, -torch.inf).amax(dim=1)
    return torch.stack([kept[field] for field in fields], dim=1)


def step_summaries(
    values: Float[Tensor, "clip step channel"], fields: tuple[str, ...]
) -> Float[Tensor, "clip step field channel"]:
    """Return the summary of each step alone, for sequences whose segments are not known yet."""
    values = at_least_float32(values)
    ones = {"weight": torch.ones_like(values)}
    none = dict.fromkeys(("squares", "change", "pairs"), torch.zeros_like(values))
    same = dict.fromkeys(("mean", "first", "last", "largest"), values)
    kept = ones | none | same
    return torch.stack([kept[field] for field in fields], dim=2)


def join(
    earlier: Float[Tensor, "*stretch field channel"],
    later: Float[Tensor, "*stretch field channel"],
    fields: tuple[str, ...],
) -> Float[Tensor, "*stretch field channel"]:
    """Return the summaries of two stretches, the later one following the earlier one at once."""
    a = dict(zip(fields, earlier.unbind(dim=-2), strict=True))
    b = dict(zip(fields, later.unbind(dim=-2), strict=True))
    weight = a["weight"] + b["weight"]
    # Chan et al. 1979: the later mean moves the joint one by its share of the weight.
    share = b["weight"] / weight
    distance = b["mean"] - a["mean"]
    joined = {"weight": weight, "mean": a["mean"] + distance * share}
    if "squares" in fields:
        # Squares about the joint mean: those about each mean, and those of the means.
        between = distance.square() * a["weight"] * share
        joined["squares"] = a["squares"] + b["squares"] + between
    if "change" in fields:
        # One more change: from the last step of the earlier stretch to the first of the later one.
        joined["change"] = a["change"] + b["change"] + (b["first"] - a["last"]).abs()
        joined["pairs"] = a["pairs"] + b["pairs"] + 1
        joined["first"] = a["first"]
        joined["last"] = b["last"]
    if "largest" in fields:
        joined["largest"] = torch.maximum(a["largest"], b["largest"])
    return torch.stack([joined[field] for field in fields], dim=-2)


def join_all(
    stretches: Float[Tensor, "stretch field channel"], fields: tuple[str, ...]
) -> Float[Tensor, "field channel"]:
    """Return the summary of consecutive stretches, of which there is at least one."""
    while len(stretches) > 1:
        stretches = join_pairs(stretches, fields)
    return stretches[0]


def join_pairs(
    stretches: Float[Tensor, "stretch field channel"], fields: tuple[str, ...]
) -> Float[Tensor, "half field channel"]:
    """Return the summaries of each two neighbours; of an odd number the last stays alone."""
    even = len(stretches) // 2 * 2
    joined = join(stretches[:even:2], stretches[1:even:2], fields)
    return torch.cat([joined, stretches[even:]])


def statistic(
    name: Statistic,
    summary: Float[Tensor, "*stretch field channel"],
    fields: tuple[str, ...],
) -> Float[Tensor, "*stretch channel"]:
    """Return a statistic of summarised sequences.

    Deviation and differences of one value are 0, and so is every statistic of none.
    """
    kept = dict(zip(fields, summary.unbind(dim=-2), strict=True))
    if name == "mean":
        return kept["mean"]
    if name == "max":
        return kept["largest"].where(kept["weight"] > 0, 0.0)
    if name == "delta":
        return kept["change"] / kept["pairs"].clamp(min=1)
    variance = kept["squares"] / kept["weight"].clamp(min=1e-12)
    # The slope of a square root at 0 is infinite; where nothing varies, the gradient is 0.
    varies = variance > 0
    return variance.where(varies, 1.0).sqrt() * varies
