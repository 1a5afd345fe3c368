"""A learned query pools all tokens of a clip by attention for a linear classifier."""

from dataclasses import dataclass
from typing import Any, ClassVar

from melpatch.config import check
from melpatch.evaluation.probe import TokenProbe
from melpatch.nn.token_heads import AttentiveHead


@dataclass(frozen=True, kw_only=True)
class Attentive(TokenProbe):
    """Cross-attention of a learned query to the frozen tokens, LayerNorm, linear layer.

    For encoders that are pretrained on patches, where the mean over all tokens loses most of the
    information.

    Source: Chen et al. 2022 (CAE, arXiv 2202.03026), section 4, and Bardes et al. 2024 (V-JEPA,
        arXiv 2404.08471),
    whose 16 heads, AdamW, learning rate, cosine and 20 epochs are taken. *Differs:* batches of 32,
    for corpora of some thousand clips; no MLP after the attention (V-JEPA); LayerNorm instead of
    BatchNorm (CAE).
    """

    # Version 1 held out clips of groups that it also trained on.
    version: ClassVar[int] = 2

    epochs: int = 20
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.01
    heads: int = 16
    """Attention heads; must divide the width of the tokens."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check(self.heads >= 1, "heads", self.heads, "1 or more")

    def classifier_settings(self) -> dict[str, Any]:
        """See :meth:`melpatch.evaluation.probe.TokenProbe.classifier_settings`."""
        return {"head": "attentive", "attentive_heads": self.heads}

    def new_head(self, dim: int, num_labels: int) -> AttentiveHead:
        """See :meth:`melpatch.evaluation.probe.TokenProbe.new_head`."""
        return AttentiveHead(dim, self.heads, num_labels)
