"""Pool the tokens of a clip into one vector."""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from melpatch.config import check

Pooling = Literal["mean", "max", "cls", "frequency"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def masked_mean(
    values: Float[Tensor, "clip *middle token dim"],
    valid: Bool[Tensor, "clip *middle token"] | None,
) -> Float[Tensor, "clip *middle dim"]:
    """Return the mean over the valid tokens, in float32, or float64 where the values are."""
    values = _at_least_float32(values)
    if valid is None:
        return values.mean(dim=-2)
    weight = valid[..., None].to(values.dtype)
    return (values * weight).sum(dim=-2) / weight.sum(dim=-2).clamp(min=1)


def masked_max(
    values: Float[Tensor, "clip *middle token dim"],
    valid: Bool[Tensor, "clip *middle token"] | None,
) -> Float[Tensor, "clip *middle dim"]:
    """Return the maximum over the valid tokens, of which there is at least one, in float32."""
    values = _at_least_float32(values)
    if valid is not None:
        values = values.masked_fill(~valid[..., None], -torch.inf)
    return values.amax(dim=-2)


def pool(
    patches: Float[Tensor, "clip token dim"],
    cls: Float[Tensor, "clip cls dim"],
    valid: Bool[Tensor, "clip token"] | None,
    rows: int,
    how: Pooling,
) -> Float[Tensor, "clip out"]:
    """Return one float32 vector per clip.

    Args:
        patches: tokens of a grid with ``rows`` frequency rows, numbered frequency-major.
        cls: class tokens, if any.
        valid: False for padding, None if there is none.
        rows: frequency rows of the grid.
        how: ``mean`` or ``max`` over all patch tokens (``dim`` numbers); ``cls``, the mean of the
            class tokens; ``frequency``, the mean over time of each frequency row, rows concatenated
            (``rows * dim`` numbers), which keeps pitch.

    Raises:
        ConfigError: there is no such pooling, or ``cls`` of an encoder without class tokens.
    """
    check(how in POOLINGS, "pooling", how, ", ".join(map(repr, POOLINGS)))
    if how == "cls":
        check(
            cls.shape[1] > 0,
            "pooling",
            how,
            "'mean', 'max' or 'frequency', since this encoder has no class token",
        )
        return masked_mean(cls, None)
    if how == "mean":
        return masked_mean(patches, valid)
    if how == "max":
        return masked_max(patches, valid)
    by_row = patches.reshape(len(patches), rows, patches.shape[1] // rows, patches.shape[2])
    if valid is not None:
        valid = valid.reshape(by_row.shape[:3])
    return masked_mean(by_row, valid).flatten(1)


def pooled_dim(embed_dim: int, rows: int, how: Pooling) -> int:
    """Return the length of the vector that :func:`pool` returns."""
    return embed_dim * rows if how == "frequency" else embed_dim


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
