"""Heads that predict the features of a teacher, standardised over the corpus.

For a target t of a teacher, with mean m and deviation d of each channel over the corpus, and the
features s of a student::

    y = (t - m) / d        0 for channels that never vary
    p = projection(s)      a linear map, or one with a hidden layer

A prediction of 0, the mean of the corpus, leaves a mean square of 1. So 1 - mean (p - y)^2 is the
share of the teacher's variance that is explained.

>>> head = TargetHead(given=8, hidden=0, width=4)
>>> head(torch.zeros(2, 3, 8)).shape, head.standardise(torch.ones(2, 3, 4)).sum()
(torch.Size([2, 3, 4]), tensor(24.))
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from melpatch.nn.latent import LatentLoss, token_losses
from melpatch.nn.masked import at_least_float32

_LEAST = 1e-12


class Predicted(NamedTuple):
    """Predictions of a teacher's tokens, and what they should be."""

    prediction: Float[Tensor, "clip token dim"]
    target: Float[Tensor, "clip token dim"]
    """The standardised tokens."""
    valid: Bool[Tensor, "clip token"]
    """Tokens that are no padding."""


def projection(given: int, hidden: int, width: int) -> nn.Module:
    """Return a linear map, or one with a hidden layer if that has a width."""
    if not hidden:
        return nn.Linear(given, width)
    return nn.Sequential(nn.Linear(given, hidden), nn.GELU(), nn.Linear(hidden, width))


class TargetHead(nn.Module):
    """A projection to a kind of target, with mean and deviation of the target's channels.

    Args:
        given: channels of the student's features.
        hidden: width of a hidden layer; 0 for none.
        width: channels of the target.

    Attributes:
        mean: of each channel, 0 until :meth:`standardise_by` is called.
        std: deviation of each channel, 1 until then; 0 for those that never vary.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, given: int, hidden: int, width: int) -> None:
        super().__init__()
        self.projection = projection(given, hidden, width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def standardise_by(self, mean: Float[Tensor, " dim"], std: Float[Tensor, " dim"]) -> None:
        """Set mean and deviation of the target's channels."""
        self.mean.copy_(mean)
        self.std.copy_(std)

    def standardise(
        self, values: Float[Tensor, "clip token dim"]
    ) -> Float[Tensor, "clip token dim"]:
        """Return a target with mean 0 and deviation 1 over the corpus, in float32 or float64."""
        scale = torch.where(self.std > 0, 1 / self.std.clamp(min=_LEAST), 0.0)
        return (at_least_float32(values) - self.mean) * scale

    def forward(self, features: Float[Tensor, "clip token _"]) -> Float[Tensor, "clip token dim"]:
        """Return predictions of the standardised target, in float32 or float64."""
        return at_least_float32(self.projection(features))

    @torch.no_grad()
    def unexplained(self, of: Predicted, loss: LatentLoss) -> Float[Tensor, ""]:
        """Return the share of the teacher's variance that predictions leave, a mean over clips."""
        prediction = of.prediction
        if loss == "cosine":
            # The cosine leaves the length open: the one that fits best is taken.
            fit = (prediction * of.target).sum(dim=2, keepdim=True)
            power = prediction.square().sum(dim=2, keepdim=True).clamp(min=_LEAST)
            prediction = prediction * fit / power
        left = token_losses(prediction, of.target, "mse")
        return over_clips(left, of.valid) / self._varying

    def variance(self, of: Predicted) -> Float[Tensor, ""]:
        """Return the mean square of the varying channels of standardised targets, near 1."""
        return over_clips(of.target.square().mean(dim=2), of.valid) / self._varying

    @property
    def _varying(self) -> Float[Tensor, ""]:
        """Return the share of channels that vary."""
        return (self.std > 0).to(self.std.dtype).mean().clamp(min=_LEAST)


def over_clips(
    losses: Float[Tensor, "clip token"], valid: Bool[Tensor, "clip token"]
) -> Float[Tensor, ""]:
    """Return the mean over clips of the mean over a clip's valid tokens; 0 for none."""
    sums = losses.where(valid, 0.0).sum(dim=1)
    return mean_of_clips(sums / valid.sum(dim=1).clamp(min=1))


def mean_of_clips(values: Float[Tensor, " clip"]) -> Float[Tensor, ""]:
    """Return the mean over clips; 0 for none."""
    return values.sum() / max(1, len(values))
