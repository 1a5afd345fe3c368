"""A colour for every class number, the same in every picture."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_STEP = (
    1 / 1.2207440846057595
)  # 1 / g with g**4 = g + 1, the golden ratio's sister in three dimensions


def class_colours(classes: Int[Tensor, "*place"]) -> Float[Tensor, "*place 3"]:
    """Return red, green and blue in [0, 1] for each class number, so that hundreds can be told apart.

    A colour hangs on the number alone: a class keeps it from step to step and from clip to clip. Hue, saturation and
    value walk in steps of 1/g, 1/g**2 and 1/g**3, which fills the room of colours evenly, however many there are
    (Martin Roberts' R3 sequence).
    """
    steps = _STEP ** torch.arange(1, 4, dtype=torch.float64, device=classes.device)
    hue, share, light = (classes[..., None, None] * steps % 1).float().unbind(dim=-1)
    saturation, value = 0.4 + 0.6 * share, 0.45 + 0.55 * light  # neither grey nor black
    sector = (
        6 * hue + torch.tensor([5.0, 3.0, 1.0], device=classes.device)
    ) % 6  # of red, green and blue
    purity: Tensor = torch.minimum(sector, 4 - sector).clamp(0, 1)
    return value * (1 - saturation * purity)
