"""Projectors and predictors: small networks with batch norms between an encoder and a loss of views.

>>> projector = Projector(192, hidden=(512,), out=128)
>>> projector(torch.zeros(6, 2, 192)).shape  # 6 clips of the step, 2 views
torch.Size([6, 2, 128])
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from melpatch.nn.masked import at_least_float32


class RowNorm(nn.Module):
    """Batch normalisation over all rows that it is given, in training and after it.

    It has no running statistics, since the heads of self-supervised training are not used later.
    *Differs* from torch if there is one row or none: its value becomes the bias; torch refuses.

    Source: Ioffe and Szegedy 2015 (arXiv 1502.03167).

    Args:
        dim: channels, each with its own mean and variance.
        scale: whether a scale per channel is learned.
        shift: whether a shift per channel is learned.
        eps: added to the variance.
    """

    def __init__(
        self, dim: int, *, scale: bool = True, shift: bool = True, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim)) if scale else None
        self.bias = nn.Parameter(torch.zeros(dim)) if shift else None

    def forward(self, x: Float[Tensor, "*row dim"]) -> Float[Tensor, "*row dim"]:
        """Return the normalised rows, in float32 at least."""
        with torch.autocast(x.device.type, enabled=False):
            normalised = standardise_rows(x, self.eps)
            if self.weight is not None:
                normalised = normalised * self.weight
            if self.bias is not None:
                normalised = normalised + self.bias
        return normalised


def standardise_rows(x: Float[Tensor, "*row dim"], eps: float = 1e-5) -> Float[Tensor, "*row dim"]:
    """Return rows less their mean, over the square root of their biased variance plus ``eps``."""
    x = at_least_float32(x)
    rows = x.flatten(0, -2)
    count = max(1, len(rows))
    centred = x - rows.sum(dim=0) / count
    variance = centred.flatten(0, -2).square().sum(dim=0) / count
    return centred * (variance + eps).rsqrt()


class Projector(nn.Module):
    """Linear layers with a batch norm and a ReLU after each but the last.

    The statistics are those of the rows that it is given, all views together unless ``apart``; give
    it the rows of a whole step (:mod:`melpatch.nn.whole_step`).

    Args:
        dim: width of the input.
        hidden: widths of the hidden layers.
        out: width of the output.
        bias: whether the linear layers before a norm have a bias, which that norm takes away again.
        last_bias: whether the last linear layer has one.
        last_norm: batch norm of the outputs: none, with a scale (its shift stays 0), or with both.
        apart: whether each view has its own statistics.
    """

    def __init__(
        self,
        dim: int,
        *,
        hidden: Sequence[int],
        out: int,
        bias: bool = False,
        last_bias: bool = False,
        last_norm: str = "none",
        apart: bool = False,
    ) -> None:
        super().__init__()
        self.apart = apart
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(dim, width, bias=bias), RowNorm(width), nn.ReLU()]
            dim = width
        layers.append(nn.Linear(dim, out, bias=last_bias))
        if last_norm != "none":
            layers.append(RowNorm(out, shift=last_norm == "both"))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "row view dim"]) -> Float[Tensor, "row view out"]:
        """Return the projections of all rows, in all views."""
        if self.apart:
            return torch.stack([self.layers(view) for view in x.unbind(dim=1)], dim=1)
        outputs: Tensor = self.layers(x)
        return outputs
