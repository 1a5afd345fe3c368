"""Weights of Hugging Face transformers: ViT, DeiT, ViTMAE and AST, of versions 4 and 5."""

import re
from collections.abc import Mapping, Set

import torch
from torch import Tensor

from melpatch.interop.timm_vit import TimmViT

_MODEL = re.compile(r"^(vit|deit|audio_spectrogram_transformer)\.")
# Longer patterns come before those that match their end, as in "attention.output.dense".
_TO_TIMM = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^layernorm\.", "norm."),
    (r"^(encoder\.layer|layers)\.(\d+)\.", r"blocks.\2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.(attention\.)?(query|q_proj)\.", ".attn.q."),
    (r"\.attention\.(attention\.)?(key|k_proj)\.", ".attn.k."),
    (r"\.attention\.(attention\.)?(value|v_proj)\.", ".attn.v."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
"""Patterns of parts of a key, each with timm's name for it."""


class HFViT(TimmViT):
    """Weights of transformers' ViT, DeiT, ViTMAE and AST; their q, k and v are separate layers.

    Source: the state dicts of transformers 5.23, on disk (with the names of version 4) and in
    memory.
    """

    family = "a ViT of Hugging Face transformers"

    def recognises(self, keys: Set[str]) -> bool:
        """Return whether the keys hold the patch projection and blocks of transformers' ViTs."""
        plain = {_MODEL.sub("", key) for key in keys}
        # The names of version 4, then of version 5.
        blocks = {"encoder.layer.0.layernorm_before.weight", "layers.0.layernorm_before.weight"}
        return "embeddings.patch_embeddings.projection.weight" in plain and bool(blocks & plain)

    def renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors under timm's names, with q, k and v in one tensor."""
        tensors = {_timm_key(key): value for key, value in state.items()}
        for query in [key for key in tensors if ".attn.q." in key]:
            parts = [query.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
            if set(parts) <= tensors.keys():
                fused = query.replace(".attn.q.", ".attn.qkv.")
                tensors[fused] = torch.cat([tensors.pop(part) for part in parts])
        return tensors


def _timm_key(key: str) -> str:
    """Return timm's name for a key of transformers; parts that timm does not have are kept."""
    key = _MODEL.sub("", key)
    for pattern, name in _TO_TIMM:
        key = re.sub(pattern, name, key)
    return key
