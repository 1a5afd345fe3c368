"""Vision transformers of Hugging Face transformers: ViT, DeiT, ViTMAE and AST, with the names of versions 4 and 5."""

import re
from collections.abc import Mapping, Set

import torch
from torch import Tensor

from melpatch.interop.timm_vit import TimmViT

_MODEL = re.compile(r"^(vit|deit|audio_spectrogram_transformer)\.")
_TIMM = (
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
"""Each part of a key and timm's name for it, the longer of two that end alike first."""


class HFViT(TimmViT):
    """The names of transformers' ViT, DeiT, ViTMAE and AST, whose queries, keys and values are layers of their own.

    Source: the state dicts of transformers 5.23, on disk (where the names of version 4 live on) and in memory.
    """

    family = "a ViT of Hugging Face transformers"

    def recognises(self, keys: Set[str]) -> bool:
        """Return whether there are the patch projection and blocks of transformers' ViTs."""
        plain = {_MODEL.sub("", key) for key in keys}
        first = {"encoder.layer.0.layernorm_before.weight", "layers.0.layernorm_before.weight"}
        return "embeddings.patch_embeddings.projection.weight" in plain and bool(first & plain)

    def renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors under timm's names, queries, keys and values as one."""
        named = {_timm(key): value for key, value in state.items()}
        found = dict(named)
        for key in named:
            three = [key.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
            if ".attn.q." in key and set(three) <= named.keys():
                found[key.replace(".attn.q.", ".attn.qkv.")] = torch.cat(
                    [found.pop(name) for name in three]
                )
        return found


def _timm(key: str) -> str:
    key = _MODEL.sub("", key)
    for theirs, name in _TIMM:
        key = re.sub(theirs, name, key)
    return key
