"""A class is present if a token of the clip is near one of the class's learned prototypes."""

from dataclasses import dataclass
from typing import Any, ClassVar

from melpatch.config import check
from melpatch.evaluation.probe import TokenProbe
from melpatch.nn.token_heads import PrototypeHead


@dataclass(frozen=True, kw_only=True)
class Prototype(TokenProbe):
    """Learned prototypes per class, compared by cosine with every frozen token; the nearest token counts.

    For events that fill a small part of a clip, which a mean over all tokens dilutes.

    Source: prototypical probing of Rauch et al. 2025 (Bird-MAE, arXiv 2504.12880) after
        AudioProtoPNet (Heinrich et al.
    2024, arXiv 2404.10420), and the published code: 20 prototypes per class, AdamW on a cosine,
    gradients clipped at 2, 30 epochs of batches of 64.

    *Differs:* connections learn at the rate of the prototypes (published: 4e-4, too slow for
    corpora of some thousand clips); cross-entropy, or binary for several labels, where Bird-MAE has
    the asymmetric loss, and no mixup; prototypes start from a normal distribution, hence in all
    directions; no orthogonality loss and no margin.
    """

    # Version 1 held out clips of groups that it also trained on.
    version: ClassVar[int] = 2
    gradient_clip: ClassVar[float | None] = 2.0

    epochs: int = 30
    batch_size: int = 64
    lr: float = 0.04
    weight_decay: float = 3e-4
    prototypes: int = 20
    """Prototypes per class."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check(self.prototypes >= 1, "prototypes", self.prototypes, "1 or more")

    def classifier_settings(self) -> dict[str, Any]:
        """See :meth:`melpatch.evaluation.probe.TokenProbe.classifier_settings`."""
        return {"head": "prototype", "prototypes": self.prototypes}

    def new_head(self, dim: int, num_labels: int) -> PrototypeHead:
        """See :meth:`melpatch.evaluation.probe.TokenProbe.new_head`."""
        return PrototypeHead(dim, self.prototypes, num_labels)
