"""Prototype probe: a class is there if some token of the clip is near one of the class's learned prototypes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from melpatch.config import check
from melpatch.evaluation.heads import Material, by_epochs, tokens
from melpatch.evaluation.rounds import Choice
from melpatch.nn.pooling import masked_max
from melpatch.protocols.base import Examples, Probe
from melpatch.rng import seeded


@dataclass(frozen=True, kw_only=True)
class Prototype(Probe):
    """Some learned prototypes per class, compared by cosine with every frozen token; the nearest token counts.

    For events that fill a small part of a clip, of which a mean over all tokens keeps little.

    Source: prototypical probing of Rauch et al. 2025 (Bird-MAE, arXiv 2504.12880) after AudioProtoPNet (Heinrich et al.
    2024, arXiv 2404.10420), and the published code: 20 prototypes per class, AdamW on a cosine, gradients clipped at 2,
    30 epochs of batches of 64.

    *Differs:* connections learn at the rate of the prototypes (published: 4e-4, too slow for corpora of some thousand
    clips); cross-entropy, or binary for several labels, where Bird-MAE has the asymmetric loss, and no mixup;
    prototypes start normal, hence in all directions; neither orthogonality nor margin is asked of them.
    """

    version: ClassVar[int] = 2  # 1 held out clips of the same groups that it learnt from
    tokens: ClassVar[bool] = True
    choice: ClassVar[Choice] = "held out"
    selection: ClassVar[str] = "the weights of the epoch with the best validation score"

    prototypes: int = 20
    """Prototypes per class."""
    epochs: int = 30
    """Passes over the training clips."""
    batch_size: int = 64
    """Clips per step."""
    lr: float = 0.04
    """Learning rate of AdamW at the start of the cosine."""
    weight_decay: float = 3e-4
    """Weight decay."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("prototypes", "epochs", "batch_size"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        check(self.lr > 0, "lr", self.lr, "above 0")
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")

    def predict(
        self, train: Examples, val: Examples | None, test: Examples, *, multi_label: bool, seed: int
    ) -> tuple[Float[np.ndarray, "clip label"], dict[str, Any]]:
        """See :meth:`melpatch.protocols.base.Probe.predict`."""
        assert val is not None  # since clips are held out where there is no split for it
        dim, labels = train.features.values.shape[1], train.targets.shape[1]
        parts = (Material(tokens(part.features), part.targets) for part in (train, val, test))
        with seeded(seed, "prototype"):
            return by_epochs(
                PrototypeHead(dim, self.prototypes, labels),
                *parts,
                epochs=self.epochs,
                batch_size=self.batch_size,
                lr=self.lr,
                weight_decay=self.weight_decay,
                gradient_clip=2.0,
                multi_label=multi_label,
                seed=seed,
            )


class PrototypeHead(nn.Module):
    """Cosines of a clip's tokens with prototypes, the largest of each prototype, and a sum of them per class.

    The score of class c is b_c + the sum over its prototypes j of relu(w_cj) * relu(max over tokens t of cos(p_cj, t)).
    A prototype speaks for its own class only, and never against it. Connections w start at 1, biases b at -2.
    """

    def __init__(self, dim: int, prototypes: int, labels: int) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(nn.init.normal_(torch.empty(labels, prototypes, dim)))
        self.connections = nn.Parameter(torch.ones(labels, prototypes))
        self.bias = nn.Parameter(torch.full((labels,), -2.0))

    def forward(
        self, tokens: Float[Tensor, "clip token dim"], valid: Bool[Tensor, "clip token"]
    ) -> Float[Tensor, "clip label"]:
        """Return the logits of clips; tokens that are not valid have no part in them."""
        directions = F.normalize(self.prototypes, dim=-1).flatten(0, 1)
        nearest = masked_max(F.normalize(tokens, dim=-1) @ directions.T, valid).relu()
        found = nearest.view(-1, *self.connections.shape) * self.connections.relu()
        logits: Tensor = found.sum(dim=-1) + self.bias
        return logits
