"""The weights of a ViT and of its classifier under the names of timm and of the published AST."""

from typing import Any

import torch
from torch import Tensor, nn

from melpatch.encoders.vit import ViT
from melpatch.export.misfits import Misfit
from melpatch.objectives.classify import Classify

CLASS_TOKENS = ("cls_token", "dist_token")


def vit_misfits(encoder: Any) -> list[Misfit]:
    """Return the settings of an encoder that a plain pre-norm ViT does not have."""
    if not isinstance(encoder, ViT):
        return [Misfit("encoder", type(encoder).__name__, "ViT")]
    config = encoder.config
    misfits = []
    if config.norm != "pre":
        misfits.append(Misfit("encoder.norm", config.norm, "'pre'"))
    if config.input_norm != "none":
        misfits.append(Misfit("encoder.input_norm", config.input_norm, "'none'"))
    if config.outer_norm == "before":
        misfits.append(Misfit("encoder.outer_norm", config.outer_norm, "'after'"))
    if config.patch_norm:
        misfits.append(Misfit("encoder.patch_norm", config.patch_norm, "False"))
    return misfits


def timm_state(encoder: ViT, columns: int) -> dict[str, Tensor]:
    """Return the weights of an encoder under timm's names, for inputs of this many columns.

    Fixed positions are written out as the table that they are at this length.

    Args:
        encoder: a pre-norm ViT.
        columns: patches along time.
    """
    state: dict[str, Tensor] = {}
    specials = encoder.cls_position
    if encoder.cls_token is not None:
        tokens = encoder.cls_token
        for name, token in zip(CLASS_TOKENS, tokens, strict=False):
            state[name] = token.view(1, 1, -1)
        if specials is None:
            specials = nn.Parameter(torch.zeros_like(tokens))
    positions = encoder.positions(columns)
    if specials is not None:
        positions = torch.cat([specials, positions])
    state["pos_embed"] = positions[None]

    # A linear layer over the pixels of a patch, (mel, frame), is a convolution of one channel.
    weight = encoder.projection.weight
    state["patch_embed.proj.weight"] = weight.view(len(weight), 1, *encoder.grid.patch)
    state["patch_embed.proj.bias"] = encoder.projection.bias
    for key, value in encoder.transformer.state_dict().items():
        state[key.replace("mlp.0.", "mlp.fc1.").replace("mlp.2.", "mlp.fc2.")] = value
    return {key: value.detach() for key, value in state.items()}


def head_misfits(classifier: Classify) -> list[Misfit]:
    """Return the settings of a classifier whose head is not a LayerNorm and a linear layer."""
    config = classifier.config
    misfits = []
    if config.layers != "last":
        misfits.append(Misfit("objective.layers", config.layers, "'last'"))
    if config.projection:
        misfits.append(Misfit("objective.projection", config.projection, "0"))
    if config.head != "normed":
        misfits.append(Misfit("objective.head", config.head, "'normed'"))
    return misfits


def head_state(classifier: Classify) -> dict[str, Tensor]:
    """Return the weights of a head of LayerNorm (0) and linear layer (1)."""
    return {key: value.detach() for key, value in classifier.head.state_dict().items()}
