"""Losses between predicted and target tokens in latent space, and norms of targets.

For predictions p_i and targets t_i of D channels each, i = 1..N valid tokens::

    cosine       1/N sum_i (2 - 2 cos(p_i, t_i))          from 0 to 4; 2 for unrelated tokens
    l2           1/N sum_i |p_i - t_i|^2 / sqrt(D)        sqrt(D) for targets of variance 1
    smooth_l1    1/N sum_i mean_d h(p_id - t_id)          h(x) = x^2 / 2 within 1, else |x| - 1/2
    mse          1/N sum_i mean_d (p_id - t_id)^2         1 for a prediction of 0, of variance 1

Padding counts in none. Sources: the cosine of BYOL (Grill et al. 2020, arXiv 2006.07733, equation
2) and M2D (Niizumi et al. 2022, arXiv 2210.14648); the square over sqrt(D) of data2vec (Baevski et
al. 2022, arXiv 2202.03555, published code); smooth L1 of Riou et al. 2024 (arXiv 2405.08679).

>>> predictions, targets = torch.zeros(2, 5, 64), torch.ones(2, 5, 64)  # clip, token, channel
>>> valid = torch.ones(2, 5, dtype=torch.bool)
>>> latent_loss(predictions, targets, valid, "l2")
tensor(8.)
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from melpatch.nn.masked import at_least_float32, masked_mean
from melpatch.nn.masking import Subset

LatentLoss = Literal["cosine", "l2", "smooth_l1", "mse"]
Tokens = Float[Tensor, "clip token dim"]
Valid = Bool[Tensor, "clip token"]
TARGET_EPS = 1e-5
"""Epsilon of the norms of EAT's and data2vec's targets, as published."""


def latent_loss(
    predictions: Tokens, targets: Tokens, valid: Valid, kind: LatentLoss
) -> Float[Tensor, ""]:
    """Return the mean loss over the valid tokens, in float32 or float64; 0 for none."""
    return mean_over(token_losses(predictions, targets, kind), valid)


def token_losses(
    predictions: Float[Tensor, "*token dim"],
    targets: Float[Tensor, "*#token dim"],
    kind: LatentLoss,
) -> Float[Tensor, "*token"]:
    """Return the loss of each token, in float32 or float64."""
    predictions = at_least_float32(predictions)
    targets = at_least_float32(targets)
    match kind:
        case "cosine":
            return 2 - 2 * F.cosine_similarity(predictions, targets, dim=-1)
        case "l2":
            squares: Tensor = (predictions - targets).square().sum(dim=-1)
            return squares / math.sqrt(targets.shape[-1])
        case "smooth_l1":
            targets = targets.expand_as(predictions)
            return F.smooth_l1_loss(predictions, targets, reduction="none").mean(dim=-1)
        case "mse":
            return (predictions - targets).square().mean(dim=-1)


def mean_over(losses: Float[Tensor, "clip token"], valid: Valid) -> Float[Tensor, ""]:
    """Return the mean over the valid tokens; 0 for none."""
    return losses.where(valid, 0.0).sum() / valid.sum().clamp(min=1)


def standardise_tokens(tokens: Tokens) -> Tokens:
    """Return tokens with a mean of 0 and a deviation of 1 over the channels of each.

    In float32 or float64. The variance is unbiased, and 1e-6 is added to it, as in M2D.
    """
    tokens = at_least_float32(tokens)
    centred = tokens - tokens.mean(dim=2, keepdim=True)
    return centred / (tokens.var(dim=2, keepdim=True) + 1e-6).sqrt()


def layer_target(layers: Sequence[Tokens], valid: Valid | None) -> Tokens:
    """Return LN(mean of IN(layer)): the norms of a target, which are 0 and 1 in every token."""
    normed = torch.stack([instance_norm(layer, valid) for layer in layers]).mean(dim=0)
    return F.layer_norm(normed, normed.shape[2:], eps=TARGET_EPS)


def instance_norm(tokens: Tokens, valid: Valid | None) -> Tokens:
    """Return tokens with mean 0 and variance 1 of each channel over the valid tokens of a clip."""
    tokens = at_least_float32(tokens)
    centred = tokens - masked_mean(tokens, valid)[:, None]
    variance = masked_mean(centred.square(), valid)[:, None]
    return centred * (variance + TARGET_EPS).rsqrt()


class LatentMaps(NamedTuple):
    """A clip's masks, targets and errors over the grid of patches."""

    masked: Bool[Tensor, "view row column"]
    """The masked patches of each view."""
    target: Float[Tensor, "row column"]
    """Distance of a patch's target from the mean one of the clip; NaN where no view has a
    target."""
    error: Float[Tensor, "row column"]
    """Mean loss of a patch over the views that mask it; NaN where none does."""


def latent_maps(
    masked: Subset,
    targets: Float[Tensor, "view masked dim"],
    losses: Float[Tensor, "view masked"],
    size: tuple[int, int],
) -> LatentMaps:
    """Return the maps of one clip.

    Args:
        masked: the masked patches of its views.
        targets: their targets.
        losses: the losses of their predictions.
        size: rows and columns of the grid.
    """
    tokens = size[0] * size[1]
    places = masked.indices[masked.valid]
    chosen = targets[masked.valid]
    distances = (chosen - chosen.mean(dim=0)).norm(dim=1)

    def over_grid(values: Float[Tensor, " masked"]) -> Float[Tensor, "row column"]:
        sums = values.new_zeros(tokens).index_add_(0, places, values)
        counts = values.new_zeros(tokens).index_add_(0, places, torch.ones_like(values))
        # 0 / 0 is NaN where no view masks a patch.
        return (sums / counts).view(size)

    errors = over_grid(losses[masked.valid])
    return LatentMaps(masked.as_mask(tokens).view(-1, *size), over_grid(distances), errors)
