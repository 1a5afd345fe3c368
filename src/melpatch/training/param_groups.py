"""Which parameters are decayed, and which learn slower or faster than the rest.

Biases, norms, tokens and position tables carry no weight decay. Layer-wise decay multiplies the learning rate of a
block by ``layer_decay`` for every block above it (Clark et al. 2020, "ELECTRA"; Bao et al. 2021, "BEiT", appendix).
"""

import re
from typing import Any

from torch import nn

from melpatch.objectives.base import Objective

_TOKENS = re.compile(r"(^|\.)(mask_embed|cls_token|cls_position|position_table)$")


def param_groups(
    objective: Objective, *, weight_decay: float, layer_decay: float, head_lr_scale: float
) -> list[dict[str, Any]]:
    """Return optimiser groups with ``params``, ``weight_decay``, ``lr_scale`` and ``names``, in a fixed order."""
    layers = objective.encoder.num_layers
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in objective.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if _undecayed(name, parameter) else weight_decay
        scale = layer_decay ** (layers + 1 - _depth(name, layers)) if name.startswith("encoder.") else head_lr_scale
        group = groups.setdefault((scale, decay), {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def _undecayed(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim <= 1 or _TOKENS.search(name) is not None


def _depth(name: str, layers: int) -> int:
    """Return 0 for what lies before the blocks, 1 to ``layers`` for them, ``layers + 1`` for the final norm."""
    block = re.match(r"encoder\.(?:\w+\.)?blocks\.(\d+)\.", name)
    if block:
        return int(block.group(1)) + 1
    return layers + 1 if re.match(r"encoder\.(?:\w+\.)?norm\.", name) else 0
