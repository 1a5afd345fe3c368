"""A class is present if a token of the clip is near one of the class's learned prototypes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from melpatch.config import check
from melpatch.evaluation.heads import HeadInputs, train_by_epochs
from melpatch.evaluation.probe import ProbeInputs, TokenProbe
from melpatch.evaluation.splits import ValidationSource
from melpatch.nn.masked import masked_max
from melpatch.rng import seeded


@dataclass(frozen=True, kw_only=True)
class Prototype(TokenProbe):
    """Learned prototypes per class, compared by cosine with every frozen token; the nearest token counts.

    For events that fill a small part of a clip, which a mean over all tokens dilutes.

    Source: prototypical probing of Rauch et al. 2025 (Bird-MAE, arXiv 2504.12880) after
        AudioProtoPNet (Heinrich et al.
    2024, arXiv 2404.10420), and the published code: 20 prototypes per class, AdamW on a cosine,
    gradients clipped at 2, 30 epochs of batches of 64.

    *Differs:* connections learn at the rate of the prototypes (published: 4e-4, too slow for corpora of some thousand
    clips); cross-entropy, or binary for several labels, where Bird-MAE has the asymmetric loss, and
    no mixup; prototypes start from a normal distribution, hence in all directions; no orthogonality
    loss and no margin.
    """

    # Version 1 held out clips of groups that it also trained on.
    version: ClassVar[int] = 2
    validation: ClassVar[ValidationSource] = "held out"
    selection_rule: ClassVar[str] = "the weights of the epoch with the best validation score"

    prototypes: int = 20
    """Prototypes per class."""
    epochs: int = 30
    """Passes over the training clips."""
    batch_size: int = 64
    """Clips per step."""
    lr: float = 0.04
    """Learning rate of AdamW at the start of the cosine schedule."""
    weight_decay: float = 3e-4
    """Weight decay."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("prototypes", "epochs", "batch_size"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        check(self.lr > 0, "lr", self.lr, "above 0")
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")

    def fit_predict(
        self,
        train: ProbeInputs,
        val: ProbeInputs | None,
        test: ProbeInputs,
        *,
        multi_label: bool,
        seed: int,
    ) -> tuple[Float[np.ndarray, "clip label"], dict[str, Any]]:
        """See :meth:`melpatch.evaluation.probe.Probe.fit_predict`."""
        assert val is not None  # clips are held out where there is no validation split
        dim = train.features.values.shape[1]
        num_labels = train.targets.shape[1]
        with seeded(seed, "prototype"):
            return train_by_epochs(
                PrototypeHead(dim, self.prototypes, num_labels),
                HeadInputs.from_tokens(train.features, train.targets),
                HeadInputs.from_tokens(val.features, val.targets),
                HeadInputs.from_tokens(test.features, test.targets),
                epochs=self.epochs,
                batch_size=self.batch_size,
                lr=self.lr,
                weight_decay=self.weight_decay,
                gradient_clip=2.0,
                multi_label=multi_label,
                seed=seed,
            )


class PrototypeHead(nn.Module):
    """Cosines of a clip's tokens with prototypes, the largest of each prototype, and a weighted sum per class.

    The score of class c is b_c + the sum over its prototypes j of relu(w_cj) * relu(max over tokens
    t of cos(p_cj, t)). A prototype counts for its own class only, and never against it. Connections
    w start at 1, biases b at -2.
    """

    def __init__(self, dim: int, prototypes: int, num_labels: int) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(nn.init.normal_(torch.empty(num_labels, prototypes, dim)))
        self.connections = nn.Parameter(torch.ones(num_labels, prototypes))
        self.bias = nn.Parameter(torch.full((num_labels,), -2.0))

    def forward(
        self, tokens: Float[Tensor, "clip token dim"], valid: Bool[Tensor, "clip token"]
    ) -> Float[Tensor, "clip label"]:
        """Return the logits of clips; tokens that are not valid are ignored."""
        directions = F.normalize(self.prototypes, dim=-1).flatten(0, 1)
        # (clip, label * prototype): the cosine of the nearest valid token, negative ones set to 0.
        nearest = masked_max(F.normalize(tokens, dim=-1) @ directions.T, valid).relu()
        evidence = nearest.view(-1, *self.connections.shape) * self.connections.relu()
        logits: Tensor = evidence.sum(dim=-1) + self.bias
        return logits
