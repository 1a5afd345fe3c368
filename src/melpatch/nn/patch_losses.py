"""What is asked of hidden patches: to be rebuilt, and to be told from others. Means over all real ones of a batch."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from melpatch.nn.info_nce import Axis, Negatives, info_nce

Patches = Float[Tensor, "clip hidden pixel"]
Valid = Bool[Tensor, "clip hidden"]


def reconstruction_loss(predictions: Patches, patches: Patches, valid: Valid) -> Float[Tensor, ""]:
    """Return the mean squared error of hidden patches, in their precision (Gong et al. 2022, arXiv 2110.09784,
    equation 2); 0 where none is real."""
    error = (predictions.to(patches.dtype) - patches).square().mean(dim=2)
    return (error * valid).sum() / valid.sum().clamp(min=1)


def patch_infonce(
    predictions: Patches,
    patches: Patches,
    valid: Valid,
    axis: Axis = "patches",
    negatives: Negatives = "clip",
) -> dict[str, Tensor]:
    """Return InfoNCE as ``nce``, and as ``accuracy`` the share of hidden patches that were told from the others; for
    the arguments see :func:`melpatch.nn.info_nce.info_nce`."""
    with torch.autocast(
        patches.device.type, enabled=False
    ):  # dot products of raw patches are large: float32
        loss, hit = info_nce(predictions.to(patches.dtype), patches, valid, axis, negatives)
    count = valid.sum().clamp(min=1)
    return {"nce": loss.sum() / count, "accuracy": hit.sum() / count}
