"""The collapse gauge: do the embeddings of different clips still differ, and in how many directions?"""

import torch
from jaxtyping import Float
from torch import Tensor


def effective_rank(embeddings: Float[Tensor, "clip dim"]) -> float:
    """Return exp of the entropy of the normalised singular values of the centred embeddings; 0 if they do not vary.

    Source: Roy and Vetterli 2007, "The effective rank"; used as a gauge in Garrido et al. 2023, "RankMe".
    """
    centred = embeddings.double() - embeddings.double().mean(dim=0)
    singular = torch.linalg.svdvals(centred)
    if singular.sum() < 1e-12:
        return 0.0
    share = singular / singular.sum()
    return float(torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum()))


def health(embeddings: Float[Tensor, "clip dim"]) -> dict[str, float]:
    """Return ``embedding_std`` (mean over dimensions of the std over clips) and ``effective_rank``."""
    return {
        "embedding_std": float(embeddings.double().std(dim=0).mean()),
        "effective_rank": effective_rank(embeddings),
    }


def warning(now: dict[str, float], start: dict[str, float]) -> str | None:
    """Return a sentence if the embeddings have collapsed since the start of the run, else None."""
    if now["embedding_std"] < 0.01 * start["embedding_std"]:
        what = f"their std fell from {start['embedding_std']:.3g} to {now['embedding_std']:.3g}"
    elif now["effective_rank"] < min(1.5, 0.5 * start["effective_rank"]):
        what = f"their effective rank fell from {start['effective_rank']:.1f} to {now['effective_rank']:.1f}"
    else:
        return None
    return (
        f"the clips' embeddings collapse: {what}; lower --lr, lengthen --warmup, "
        "or look at the corpus for silent clips"
    )
