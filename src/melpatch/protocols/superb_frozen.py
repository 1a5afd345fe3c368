"""SUPERB's probe of a frozen encoder: a learned mix of all layers, a linear projection, a linear classifier."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from melpatch.config import check
from melpatch.evaluation.heads import Course, Material, fit, probabilities, vectors
from melpatch.evaluation.rounds import Choice
from melpatch.protocols.base import Examples, Probe
from melpatch.rng import seeded


@dataclass(frozen=True, kw_only=True)
class SuperbFrozen(Probe):
    """The head of SUPERB's keyword spotting, speaker identification and emotion recognition.

    Source: Yang et al. 2021 (arXiv 2105.01051), section 2, and the published code (s3prl): Adam, a constant learning
    rate, gradients clipped at 1, weights of the best development score.

    *Differs:* 20,000 steps for all tasks, where SUPERB has 200,000 (30,000 of larger batches for emotions): on 5,000
    clips that is 128 passes, and half a minute to a minute of one CPU core. SUPERB searches the learning rate in powers
    of ten; here it is a setting. The fifth that chooses where there is no split ``val``, as of emotions, is of each
    class and of whole speakers; SUPERB draws it clip by clip. Keywords are not drawn balanced by class. The layers are
    the outputs of the blocks; SUPERB adds what goes into the first.
    """

    version: ClassVar[int] = 2  # 1 held out a tenth, without regard to groups
    choice: ClassVar[Choice] = "held out"
    held_out: ClassVar[float] = (
        0.2  # as of emotions, the one task of SUPERB's without clips to choose by
    )
    selection: ClassVar[str] = "the weights of the step with the best validation score"

    steps: int = 20_000
    """Optimiser steps."""
    every: int = 500
    """Steps between validations."""
    batch_size: int = 32
    """Clips per step."""
    lr: float = 1e-4
    """Learning rate."""
    projection: int = 256
    """Width of the projection."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("steps", "every", "batch_size", "projection"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        check(self.lr > 0, "lr", self.lr, "above 0")

    def predict(
        self, train: Examples, val: Examples | None, test: Examples, *, multi_label: bool, seed: int
    ) -> tuple[Float[np.ndarray, "clip label"], dict[str, Any]]:
        """See :meth:`melpatch.protocols.base.Probe.predict`."""
        assert val is not None  # since clips are held out where there is no split for it
        parts = zip(("training", "validation", "test"), (train, val, test), strict=True)
        learnt, chosen, asked = (
            Material(vectors(f"{name} features", part.features.mix()), part.targets)
            for name, part in parts
        )
        (first,) = learnt.given(torch.tensor([0]))
        course = Course(
            steps=self.steps, every=self.every, batch_size=self.batch_size, gradient_clip=1.0
        )
        with seeded(seed, "superb_frozen"):
            head = LayerMix(first.shape[1], first.shape[2], self.projection, train.targets.shape[1])
            optimizer = torch.optim.Adam(head.parameters(), lr=self.lr)
            best = fit(head, optimizer, course, learnt, chosen, multi_label=multi_label, seed=seed)
        found = probabilities(head, asked, self.batch_size, multi_label=multi_label)
        return found, {
            "step": best.step,
            "val": best.score,
            "layer_weights": head.mix.softmax(dim=0).tolist(),
        }


class LayerMix(nn.Module):
    """A learned mean of all layers, projected, and classified by a linear layer.

    SUPERB mixes and projects every frame, then takes the mean over time. All of that is linear, so the mean may as well
    come first: a vector per layer is enough, and no frame need be kept.
    """

    def __init__(self, layers: int, dim: int, projection: int, labels: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(layers))
        self.project = nn.Linear(dim, projection)
        self.classify = nn.Linear(projection, labels)

    def forward(self, layers: Float[Tensor, "clip layer dim"]) -> Float[Tensor, "clip label"]:
        """Return the logits of clips, given the mean of the tokens of each layer."""
        mixed = torch.einsum("l,cld->cd", self.mix.softmax(dim=0), layers)
        logits: Tensor = self.classify(self.project(mixed))
        return logits
