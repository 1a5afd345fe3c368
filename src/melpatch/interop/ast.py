"""Weights of the published AST and SSAST: a timm ViT under the prefix v."""

from collections.abc import Mapping, Set

from torch import Tensor

from melpatch.interop.timm_vit import TimmViT


class AST(TimmViT):
    """Published AST and SSAST weights: timm's names after ``v.``; their heads are left out.

    SSAST's file holds the number of mels that it was trained on. AST's does not, so the number of
    rows of its position table is taken from the encoder's grid.

    Source: Gong et al. 2021 (arXiv 2104.01778) and 2022 (arXiv 2110.09784), the published code.
    """

    family = "AST or SSAST"

    def recognises(self, keys: Set[str]) -> bool:
        """Return whether there is a ViT under ``v.``."""
        return {"v.patch_embed.proj.weight", "v.blocks.0.attn.qkv.weight"} <= keys

    def renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return all tensors, the ViT's without their prefix."""
        return {key.removeprefix("v."): value for key, value in state.items()}
