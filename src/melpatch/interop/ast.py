"""AST and SSAST as published: a ViT of timm under the prefix v."""

from collections.abc import Mapping, Set

from torch import Tensor

from melpatch.interop.timm_vit import TimmViT


class AST(TimmViT):
    """The names of the published AST and SSAST: timm's, each after ``v.``; their own heads are left out.

    Source: Gong et al. 2021 (arXiv 2104.01778) and 2022 (arXiv 2110.09784), the published code. SSAST's file says how
    many mels it was made for; of AST's, the encoder's grid says how many rows its positions have.
    """

    family = "AST or SSAST"

    def recognises(self, keys: Set[str]) -> bool:
        """Return whether there is a ViT under ``v.``."""
        return {"v.patch_embed.proj.weight", "v.blocks.0.attn.qkv.weight"} <= keys

    def renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the ViT's tensors without their prefix, and all others."""
        return {key.removeprefix("v."): value for key, value in state.items()}
