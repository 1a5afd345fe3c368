"""A safetensors file with timm's names, or those of published AST and SSAST for two class tokens.

A ViT with class and distillation token is written as the published AST and SSAST are: timm's names
behind ``module.v.``, the head of a classifier as ``module.mlp_head``. Other ViTs have timm's plain
names. ``--init FILE`` reads both back. The header of the file says what the tensors do not: front
end, strides, pooling and labels, as JSON under ``melpatch``.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.checkpoint import copied, write_weights
from melpatch.config import to_dict
from melpatch.encoders.vit import ViT
from melpatch.export.misfits import refuse
from melpatch.export.source import Source
from melpatch.export.timm_names import (
    CLASS_TOKENS,
    head_misfits,
    head_state,
    timm_state,
    vit_misfits,
)
from melpatch.targets.base import Target

_ADVICE = "the recipes of SSAST, ASiT, MaskSpec, Audio-MAE and AST make runs that fit"


class Timm(Target):
    """Weights with timm's names, or those of published AST and SSAST, in safetensors.

    The names are those of timm's vision_transformer and of the published AST and SSAST (Gong et al.
    2021, arXiv 2104.01778, and 2022, arXiv 2110.09784).
    """

    ending = ".safetensors"

    def write(self, source: Source, path: Path) -> list[str]:
        """Write the file; see :meth:`Target.write`."""
        encoder = source.model.objective.export_encoder()
        refuse(source.folder, "a plain ViT", vit_misfits(encoder), _ADVICE)
        assert isinstance(encoder, ViT)
        state = timm_state(encoder, _columns(source, encoder))
        notes: list[str] = []
        if all(name in state for name in CLASS_TOKENS):
            state = {f"module.v.{key}": value for key, value in state.items()}
            state |= _input_size(source, encoder)
            head, notes = _head(source)
            state |= head
        elif source.classifier is not None:
            notes = ["the head is left out: timm's names have none behind a pooling"]
        write_weights(path, copied(state), {"melpatch": json.dumps(_about(source, encoder))})
        return notes


def _columns(source: Source, encoder: ViT) -> int:
    """Return the length of the position table: the learned one's, or that of the run's input."""
    if encoder.position_table is not None:
        return encoder.config.columns
    front_end = source.model.config.front_end
    frames = front_end.target_frames
    if frames is None:
        frames = LogMel(front_end).frames(round(source.model.seconds * front_end.sample_rate))
    return encoder.grid.columns(frames)


def _input_size(source: Source, encoder: ViT) -> dict[str, Tensor]:
    """Return mels and frames of the input, which published SSAST keeps with pretrained weights."""
    grid = encoder.grid
    if source.classifier is not None or grid.stride != grid.patch:
        return {}
    frames = _columns(source, encoder) * grid.patch[1]
    return {
        "module.p_input_fdim": torch.tensor(grid.n_mels),
        "module.p_input_tdim": torch.tensor(frames),
    }


def _head(source: Source) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights of the head, with a note where it is left out."""
    classifier = source.classifier
    if classifier is None:
        return {}, []
    misfits = head_misfits(classifier)
    if misfits:
        listed = ", ".join(map(str, misfits))
        return {}, [
            f"the head is left out, since AST's is a LayerNorm and a linear layer: {listed}"
        ]
    state = head_state(classifier)
    return {f"module.mlp_head.{key}": value for key, value in state.items()}, []


def _about(source: Source, encoder: ViT) -> dict[str, object]:
    """Return what the tensors do not say, as plain values."""
    about: dict[str, object] = {
        "front_end": to_dict(source.model.config.front_end),
        "encoder": to_dict(encoder.config),
        "seconds": source.model.config.loader.seconds,
    }
    classifier = source.classifier
    if classifier is None:
        return about | {"pooling": None, "labels": []}
    return about | {
        "pooling": str(classifier.pooling),
        "labels": [*classifier.labels],
        "multi_label": classifier.config.multi_label,
        "head_norm_eps": classifier.config.head_norm_eps,
    }
