"""Gauges of views: how near the views of a clip are, and how far clips are apart.

Source: Wang and Isola 2020 (arXiv 2005.10242), sections 4.1 (alignment) and 4.2 (uniformity).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from melpatch.nn.masked import at_least_float32

_UNIFORMITY_ROWS = 512
"""Rows among which the uniformity is measured, so that its cost stays small."""


@torch.no_grad()
def view_gauges(views: Float[Tensor, "row 2 dim"]) -> dict[str, Float[Tensor, ""]]:
    """Return the gauges of the outputs of all clips of a step.

    ``output_std``: standard deviation over clips of each number of a unit vector, times the root of
    the width: near 1 where clips point everywhere, 0 where all are the same. ``alignment``: mean
    squared distance of the two views of a clip, 0 to 4. ``uniformity``: logarithm of the mean of
    exp(-2 squared distance) of two clips: 0 where all are the same, -4 where they point everywhere.
    """
    unit = F.normalize(at_least_float32(views), dim=2)
    rows, _, width = unit.shape
    std = unit.std(dim=0, correction=0).mean() if rows else unit.sum()
    some = unit[:_UNIFORMITY_ROWS, 0]
    pairs = len(some) * (len(some) - 1)
    # |a - b|^2 = 2 - 2 a . b for unit vectors; the pair of a row with itself has exp(0) = 1.
    energy = (4 * (some @ some.T) - 4).exp().sum() - len(some)
    return {
        "output_std": std * math.sqrt(width),
        "alignment": (unit[:, 0] - unit[:, 1]).square().sum() / max(1, rows),
        "uniformity": (energy / max(1, pairs)).clamp(min=1e-6).log(),
    }
