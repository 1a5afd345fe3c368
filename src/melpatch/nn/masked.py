"""Tokens and images without padding: their mean and maximum, zeros at padding, halved lengths."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked_mean(
    values: Float[Tensor, "clip *middle token dim"],
    valid: Bool[Tensor, "clip *middle token"] | None,
) -> Float[Tensor, "clip *middle dim"]:
    """Return the mean over the valid tokens, in float32, or float64 where the values are."""
    values = at_least_float32(values)
    if valid is None:
        return values.mean(dim=-2)
    weight = valid[..., None].to(values.dtype)
    return (values * weight).sum(dim=-2) / weight.sum(dim=-2).clamp(min=1)


def masked_max(
    values: Float[Tensor, "clip *middle token dim"],
    valid: Bool[Tensor, "clip *middle token"] | None,
) -> Float[Tensor, "clip *middle dim"]:
    """Return the maximum over the valid tokens, of which there is at least one, in float32."""
    values = at_least_float32(values)
    if valid is not None:
        values = values.masked_fill(~valid[..., None], -torch.inf)
    return values.amax(dim=-2)


def at_least_float32(values: Tensor) -> Tensor:
    """Return the values in float32, or in float64 where they are."""
    return values if values.dtype == torch.float64 else values.float()


def silenced(
    images: Float[Tensor, "clip channel mel frame"], inside: Bool[Tensor, "clip frame"] | None
) -> Float[Tensor, "clip channel mel frame"]:
    """Return the images with zeros at padding, as past the end of a clip that is alone."""
    return images if inside is None else images.masked_fill(~inside[:, None, None], 0.0)


def halved(inside: Bool[Tensor, "clip frame"] | None) -> Bool[Tensor, "clip half"] | None:
    """Return which frames are valid after a pooling: those that were made of two valid ones."""
    if inside is None:
        return None
    pairs = inside[:, : inside.shape[1] // 2 * 2]
    return pairs[:, ::2] & pairs[:, 1::2]
