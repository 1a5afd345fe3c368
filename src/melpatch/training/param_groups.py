"""Which parameters are decayed, and which learn slower or faster than the rest.

Biases and norms carry no weight decay, tokens and position tables only if asked. Layer-wise decay multiplies the
learning rate of a block by ``layer_decay`` for every block above it (Clark et al. 2020, "ELECTRA"; Bao et al. 2021,
"BEiT", appendix).
"""

import re
from typing import Any

from melpatch.objectives.base import Objective

_TOKENS = re.compile(r"(^|\.)(mask_embed|cls_token|cls_position|position_table)$")


def param_groups(
    objective: Objective,
    *,
    weight_decay: float,
    layer_decay: float,
    head_lr_scale: float,
    decay_tokens: bool = False,
) -> list[dict[str, Any]]:
    """Return optimiser groups with ``params`` and ``names``, in a fixed order.

    For a loop that changes the rates, ``lr_scale`` and ``decay_scale`` (0 or 1) say what a group takes its learning
    rate and weight decay times.
    """
    layers = objective.encoder.num_layers
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in objective.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = float(decay_tokens if _TOKENS.search(name) else parameter.ndim > 1)
        scale = (
            layer_decay ** (layers + 1 - _depth(name, layers))
            if name.startswith("encoder.")
            else head_lr_scale
        )
        scales = {"lr_scale": scale, "decay_scale": decay}
        new = {"params": [], "names": [], "weight_decay": decay * weight_decay, **scales}
        group = groups.setdefault((scale, decay), new)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def _depth(name: str, layers: int) -> int:
    """Return 0 for what lies before the blocks, 1 to ``layers`` for them, ``layers + 1`` for the last norm or neck."""
    block = re.match(r"encoder\.(?:\w+\.)?blocks\.(\d+)\.", name)
    if block:
        return int(block.group(1)) + 1
    return layers + 1 if re.match(r"encoder\.(?:\w+\.)?(norm|neck)\.", name) else 0
