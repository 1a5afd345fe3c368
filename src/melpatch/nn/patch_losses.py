"""Losses on masked patches: reconstruction (MSE) and discrimination (InfoNCE).

For predictions c_i and target patches x_i of P pixels each, i = 1..N masked patches::

    L_g = 1/N sum_i mean_p (c_ip - x_ip)^2                          reconstruction
    L_d = -1/N sum_i ln [exp(c_i . x_i) / sum_j exp(c_i . x_j)]     InfoNCE

Padding counts in neither. Source: Gong et al. 2022 (SSAST, arXiv 2110.09784), section 2.3,
equations 1 and 2.

>>> predictions = torch.zeros(2, 5, 256)  # clip, masked patch, pixel
>>> patches = torch.ones(2, 5, 256)
>>> valid = torch.ones(2, 5, dtype=torch.bool)
>>> losses = patch_infonce(predictions, patches, valid)  # {"nce": ..., "accuracy": ...}
>>> losses["mse"] = reconstruction_loss(predictions, patches, valid)
>>> loss = joint_loss(losses, generative_weight=10.0)
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from melpatch.nn.info_nce import Axis, Negatives, info_nce

Patches = Float[Tensor, "clip masked pixel"]
Valid = Bool[Tensor, "clip masked"]


def reconstruction_loss(predictions: Patches, targets: Patches, valid: Valid) -> Float[Tensor, ""]:
    """Return the mean squared error of the valid patches in the targets' precision; 0 for none."""
    error = (predictions.to(targets.dtype) - targets).square().mean(dim=2)
    return (error * valid).sum() / valid.sum().clamp(min=1)


def patch_infonce(
    predictions: Patches,
    targets: Patches,
    valid: Valid,
    axis: Axis = "patches",
    negatives: Negatives = "clip",
) -> dict[str, Tensor]:
    """Return the InfoNCE loss as ``nce`` and its ``accuracy``, means over the valid patches.

    Accuracy is the share of patches whose prediction scores highest with its own target. The
    arguments are those of :func:`melpatch.nn.info_nce.info_nce`.
    """
    # Dot products of raw patches are sums of hundreds of products: too large for bfloat16.
    with torch.autocast(targets.device.type, enabled=False):
        loss, hit = info_nce(predictions.to(targets.dtype), targets, valid, axis, negatives)
    count = valid.sum().clamp(min=1)
    return {"nce": loss.sum() / count, "accuracy": hit.sum() / count}


def joint_loss(losses: Mapping[str, Tensor], generative_weight: float) -> Float[Tensor, ""]:
    """Return L_d + generative_weight * L_g, given ``nce`` and ``mse``; either alone counts once."""
    if "mse" not in losses:
        return losses["nce"]
    if "nce" not in losses:
        return losses["mse"]
    return losses["nce"] + generative_weight * losses["mse"]
