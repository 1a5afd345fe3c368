"""Several predictions of one target, of which the better ones are trained.

With the losses l_1..l_K of K predictions of a token and a temperature tau that falls over the run::

    w_i = softmax(-l / tau)_i, without gradient
    l   = sum_i w_i l_i

At a high temperature all predictions learn alike; as it falls, each token trains the one that fits
it best, so that several answers can stand side by side where a mean of them would be none.

Source: annealed multiple choice learning (Perera et al. 2024, arXiv 2407.15580) in MATPAC++
(Quelennec et al. 2025, arXiv 2508.12709).

>>> hypothesis_weights(torch.tensor([0.0, 0.1, 1.0]), temperature=0.1)
tensor([0.7310, 0.2689, 0.0000])
>>> hypothesis_weights(torch.tensor([0.0, 0.1, 1.0]), temperature=0.0)
tensor([1., 0., 0.])
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from melpatch.config import check

MOST = 64
"""Most hypotheses."""


@dataclass(frozen=True, kw_only=True)
class Hypotheses:
    """Settings of several predictions per token."""

    count: int = 1
    """Predictions of each token, each by a linear layer of its own; 1 for a plain prediction."""
    temperature: tuple[float, float] = (0.1, 1e-4)
    """Temperature of their weights at the start and at the end of its fall, which is geometric."""
    share: float = 0.78
    """Share of the run over which it falls; after that the best prediction alone is trained."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(1 <= self.count <= MOST, "count", self.count, f"1 to {MOST}")
        start, end = self.temperature
        check(0 < end <= start, "temperature", self.temperature, "start >= end > 0")
        check(0 <= self.share <= 1, "share", self.share, "0 to 1")

    def temperature_at(self, progress: float) -> float:
        """Return the temperature at a share of the run; 0 once the best alone is trained."""
        if progress >= self.share:
            return 0.0
        start, end = self.temperature
        return float(start * (end / start) ** (progress / self.share))


@torch.no_grad()
def hypothesis_weights(
    losses: Float[Tensor, "*token hypothesis"], temperature: float
) -> Float[Tensor, "*token hypothesis"]:
    """Return the weight of each prediction; at temperature 0 the best one has all."""
    if temperature > 0:
        return (-losses / temperature).softmax(dim=-1)
    best = losses.argmin(dim=-1)
    return F.one_hot(best, losses.shape[-1]).to(losses.dtype)


def best_hypothesis(
    predictions: Float[Tensor, "*token hypothesis dim"],
    losses: Float[Tensor, "*token hypothesis"],
) -> Float[Tensor, "*token dim"]:
    """Return the prediction of the smallest loss of each token."""
    best = losses.argmin(dim=-1)[..., None, None]
    return predictions.take_along_dim(best, dim=-2).squeeze(-2)
