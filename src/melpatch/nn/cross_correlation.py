"""Redundancy reduction: two views agree in every output, and no two outputs say the same.

For outputs z of N clips in two views, each standardised over the clips::

    C_ij = (1 / N) sum_n z1_ni z2_nj
    L    = sum_i (1 - C_ii)^2 + weight * sum_{i != j} C_ij^2

Source: Zbontar et al. 2021, "Barlow Twins" (arXiv 2103.03230), equations 1 and 2.

>>> views = torch.ones(128, 2, 256)  # clip, view, output
>>> invariance, redundancy = cross_correlation_loss(views)
"""

import torch
from jaxtyping import Float
from torch import Tensor

from melpatch.nn.projector import standardise_rows


def cross_correlation(views: Float[Tensor, "row 2 out"]) -> Float[Tensor, "out out"]:
    """Return the correlation of each output of the first view with each of the second.

    Args:
        views: outputs of all clips of a step; of none, all correlations are 0.
    """
    with torch.autocast(views.device.type, enabled=False):
        first = standardise_rows(views[:, 0])
        second = standardise_rows(views[:, 1])
        # Divided by the clips of the whole step: the released code of Audio Barlow Twins divides by
        # those of a process and sums, so that its diagonal grows with the processes.
        return first.T @ second / max(1, len(views))


def cross_correlation_loss(
    views: Float[Tensor, "row 2 out"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the invariance term and the redundancy term, before its weight.

    Args:
        views: outputs of all clips of a step.
    """
    correlation = cross_correlation(views)
    diagonal = correlation.diagonal()
    redundancy = correlation.square().sum() - diagonal.square().sum()
    return (1 - diagonal).square().sum(), redundancy
