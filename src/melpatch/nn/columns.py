"""Tokens as columns in time, and how two encoders' columns are brought to the coarser ones.

Two encoders cut a clip into columns of different width. The finer columns are averaged over each
coarser one, weighted with how long the two overlap::

    y_j = sum_i w_ji x_i / sum_i w_ji        w_ji = seconds that columns j and i have in common

so that nothing is interpolated that was not there. Padding weighs nothing.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from melpatch.nn.masked import at_least_float32

# Columns whose edges lie this share of a column apart count as the same.
_SAME = 0.1
# A column counts if valid ones cover this share of it.
_COVERED = 0.01


class Timing(NamedTuple):
    """Where columns lie in time: column i spans start + i * step to start + (i + 1) * step."""

    start: float
    """In seconds from the start of the clip; the first column may begin before it."""
    step: float
    """In seconds."""

    def is_near(self, other: "Timing") -> bool:
        """Return whether columns of both are the same but for a small share of their width."""
        near = abs(self.start - other.start) <= _SAME * self.step
        return near and abs(self.step - other.step) <= 1e-6 * self.step


class Columns(NamedTuple):
    """Tokens of a grid, some or all of its rows averaged."""

    values: Float[Tensor, "clip row column dim"]
    valid: Bool[Tensor, "clip row column"]
    timing: Timing

    def averaged_rows(self) -> "Columns":
        """Return columns of one row, the mean over the valid rows."""
        weight = self.valid[..., None].to(self.values.dtype)
        total = weight.sum(dim=1, keepdim=True)
        mean = (self.values * weight).sum(dim=1, keepdim=True) / total.clamp(min=1)
        return Columns(mean, self.valid.any(dim=1, keepdim=True), self.timing)

    def over(self, timing: Timing, count: int) -> "Columns":
        """Return the averages over coarser columns, ``count`` of them."""
        weights = _overlaps(self.timing, self.values.shape[2], timing, count)
        weights = weights.to(self.values.dtype).to(self.values.device)
        inside = self.valid.to(self.values.dtype)
        covered = inside @ weights.T
        sums = weights @ (self.values * inside[..., None])
        valid = covered > _COVERED * timing.step
        return Columns(sums / covered.clamp(min=1e-9)[..., None], valid, timing)

    def without_padding(self) -> "Columns":
        """Return the columns up to the last valid one of any clip; waits for the device."""
        anywhere = self.valid.flatten(0, 1).any(dim=0).nonzero()
        return self.first(int(anywhere[-1]) + 1 if len(anywhere) else 1)

    def first(self, count: int) -> "Columns":
        """Return the first columns."""
        return self._replace(values=self.values[:, :, :count], valid=self.valid[:, :, :count])


def columns_of(
    patches: Float[Tensor, "clip token dim"],
    valid: Bool[Tensor, "clip token"] | None,
    rows: int,
    timing: Timing,
) -> Columns:
    """Return the tokens of a grid, which are numbered frequency-major, as columns in float32."""
    values = _by_row(at_least_float32(patches), rows)
    if valid is None:
        inside = torch.ones(values.shape[:3], dtype=torch.bool, device=values.device)
    else:
        inside = _by_row(valid, rows)
    return Columns(values, inside, timing)


def joined_columns(parts: Sequence[Columns]) -> Columns:
    """Return the columns of several clips as one, the shorter ones with padding."""
    count = max(part.values.shape[2] for part in parts)
    values = [F.pad(part.values, (0, 0, 0, count - part.values.shape[2])) for part in parts]
    valid = [F.pad(part.valid, (0, count - part.valid.shape[2])) for part in parts]
    return Columns(torch.cat(values), torch.cat(valid), parts[0].timing)


def _by_row(tokens: Tensor, rows: int) -> Tensor:
    return tokens.reshape(tokens.shape[0], rows, tokens.shape[1] // rows, *tokens.shape[2:])


def in_common(first: Columns, second: Columns) -> tuple[Columns, Columns]:
    """Return both as columns of the coarser of the two, of rows if they have the same number.

    A column is valid in both or in neither.
    """
    if first.values.shape[1] != second.values.shape[1]:
        first = first.averaged_rows()
        second = second.averaged_rows()
    if not first.timing.is_near(second.timing):
        if first.timing.step < second.timing.step:
            first = first.over(second.timing, second.values.shape[2])
        else:
            second = second.over(first.timing, first.values.shape[2])
    count = min(first.values.shape[2], second.values.shape[2])
    first = first.first(count)
    second = second.first(count)
    both = first.valid & second.valid
    return first._replace(valid=both), second._replace(valid=both)


def _overlaps(
    fine: Timing, fine_count: int, coarse: Timing, coarse_count: int
) -> Float[Tensor, "coarse fine"]:
    """Return the seconds that each coarse column and each fine one have in common."""
    begin = fine.start + fine.step * torch.arange(fine_count, dtype=torch.float64)
    edge = coarse.start + coarse.step * torch.arange(coarse_count, dtype=torch.float64)[:, None]
    end = torch.minimum(begin + fine.step, edge + coarse.step)
    return (end - torch.maximum(begin, edge)).clamp(min=0)
