"""Optimiser groups: weight decay and the factor of the learning rate per parameter.

Biases and norms have no weight decay, except with ``decay_all``; tokens and position tables have it
only with that or ``decay_tokens``. Layer-wise decay multiplies the learning rate of a layer by
``layer_decay`` once for every layer above it (Clark et al. 2020, "ELECTRA"; Bao et al. 2021,
"BEiT", appendix).
"""

from typing import Any

from melpatch.objectives.base import Objective

MASK_EMBED = "mask_embed"
"""Name of the parameter that stands for masked patches, in objectives and decoders."""


def param_groups(
    objective: Objective,
    *,
    weight_decay: float,
    layer_decay: float,
    head_lr_scale: float,
    decay_tokens: bool = False,
    decay_all: bool = False,
) -> list[dict[str, Any]]:
    """Return optimiser groups with ``params`` and ``names``, in a fixed order.

    A loop that changes the rates multiplies a group's learning rate by its ``lr_scale`` and its
    weight decay by its ``decay_scale`` (0 or 1).
    """
    encoder = objective.encoder
    layers = {f"encoder.{name}": layer for name, layer in encoder.parameter_layers().items()}
    tokens = {f"encoder.{name}" for name in encoder.learned_tokens()}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in objective.named_parameters():
        if not parameter.requires_grad:
            continue
        # Biases and the gains of norms have one dimension, weights have more.
        decays = parameter.ndim > 1
        if name in tokens or name.rpartition(".")[2] == MASK_EMBED:
            decays = decay_tokens
        decays = decays or decay_all
        lr_scale = head_lr_scale
        if name in layers:
            # layer_decay^(number of layers above it); the final norm, layer num_layers + 1, is the
            # topmost.
            lr_scale = layer_decay ** (encoder.num_layers + 1 - layers[name])
        decay_scale = float(decays)
        group = groups.setdefault(
            (lr_scale, decay_scale),
            {
                "params": [],
                "names": [],
                "weight_decay": decay_scale * weight_decay,
                "lr_scale": lr_scale,
                "decay_scale": decay_scale,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())
