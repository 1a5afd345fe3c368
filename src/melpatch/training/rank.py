"""The effective rank of a set of vectors: in how many directions they differ."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def effective_rank(embeddings: Float[Tensor, "clip dim"]) -> float:
    """Return the effective rank of the centred embeddings; 0 if they do not vary.

    NaN if an embedding is not finite.

    Source: Roy and Vetterli 2007, "The effective rank"; used as a measure of collapse in Garrido et
    al. 2023, "RankMe".
    """
    centred = embeddings.double() - embeddings.double().mean(dim=0)
    if not centred.isfinite().all():
        return math.nan
    singular = torch.linalg.svdvals(centred)
    if singular.sum() < 1e-12:
        return 0.0
    # exp(-sum of p_k log p_k), the exponential of the entropy of p_k = s_k / sum of s.
    share = singular / singular.sum()
    return float(torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum()))
