"""A colour for every class number, the same in every picture."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

# 1 / g with g**4 = g + 1, the golden ratio's counterpart in three dimensions
_STEP = 1 / 1.2207440846057595


def class_colours(classes: Int[Tensor, "*place"]) -> Float[Tensor, "*place 3"]:
    """Return red, green and blue in [0, 1] for each class number, distinct for hundreds of classes.

    A colour depends on the number alone: a class keeps it from step to step and from clip to clip.
    Hue, saturation and value advance in steps of 1/g, 1/g**2 and 1/g**3, which fills the colour
    space evenly, however many classes there are (Martin Roberts' R3 sequence). Computed on the CPU,
    in float64.
    """
    classes = classes.cpu()
    steps = _STEP ** torch.arange(1, 4, dtype=torch.float64)
    hue, share, light = (classes[..., None, None] * steps % 1).float().unbind(dim=-1)
    # Neither grey nor black.
    saturation = 0.4 + 0.6 * share
    value = 0.45 + 0.55 * light
    # Sector of the colour wheel, seen from red, green and blue.
    sector = (6 * hue + torch.tensor([5.0, 3.0, 1.0])) % 6
    purity: Tensor = torch.minimum(sector, 4 - sector).clamp(0, 1)
    return value * (1 - saturation * purity)
