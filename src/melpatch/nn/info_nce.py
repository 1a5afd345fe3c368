"""InfoNCE over the hidden patches of one clip: each prediction has to find its own patch among the others.

Source: Gong et al. 2022 (arXiv 2110.09784), section 2.3, equation 1. Scores are plain dot products, without temperature
and without normalisation of either side.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Axis = Literal["patches", "predictions"]


def info_nce(
    predictions: Float[Tensor, "clip hidden pixel"],
    patches: Float[Tensor, "clip hidden pixel"],
    valid: Bool[Tensor, "clip hidden"],
    axis: Axis = "patches",
) -> tuple[Float[Tensor, "clip hidden"], Bool[Tensor, "clip hidden"]]:
    """Return the loss in nats and whether the prediction hit, per hidden patch.

    Args:
        predictions: head outputs c_i.
        patches: raw patches x_i, the positives and, for the other predictions of the same clip, the negatives.
        valid: which entries are real; the others are neither predicted nor candidates.
        axis: what the softmax runs over. ``patches`` is the paper's equation; ``predictions`` is what the published
        code
            does (softmax over predictions for a fixed patch), whose loss values are not comparable.

    A hit is a best-scored patch that equals the right one in every pixel: among identical patches, such as digital
    silence, there is nothing to tell apart (*Differs* from the published accuracy, which counts them as wrong).
    """
    scores = torch.bmm(predictions, patches.transpose(1, 2))  # [clip, prediction, patch]
    real = valid[:, :, None] & valid[:, None, :]
    scores = scores.masked_fill(~real, torch.finfo(scores.dtype).min)
    likelihood = scores.log_softmax(dim=2 if axis == "patches" else 1)
    loss = -likelihood.diagonal(dim1=1, dim2=2)
    best = likelihood.masked_fill(~real, -torch.inf).argmax(dim=2)
    chosen = patches.gather(1, best[..., None].expand_as(patches))
    hit = (chosen == patches).all(dim=2) & valid
    return loss.masked_fill(~valid, 0.0), hit
