"""HEAR 2021's scene head: a small MLP on frozen vectors, its settings searched on validation clips."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import ceil
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from melpatch.config import check
from melpatch.evaluation.heads import Best, Course, Material, fit, probabilities, vectors
from melpatch.evaluation.rounds import Choice
from melpatch.evaluation.summary import Trial
from melpatch.nn.pooling import Pooling
from melpatch.protocols.base import Examples, Probe
from melpatch.rng import permutation, seeded

Init = Literal["xavier_uniform", "xavier_normal"]


class Setting(NamedTuple):
    """A point of the grid."""

    hidden_layers: int
    lr: float
    init: Init


@dataclass(frozen=True, kw_only=True)
class Hear(Probe):
    """An MLP whose settings are chosen in the first round of each seed, and kept for the others.

    Source: Turian et al. 2022 (HEAR, arXiv 2203.03022), appendix, and the published code: its grid, of which 8 points
    are tried; Adam; validation every third epoch; a fold that follows the scored one chooses.

    *Differs:* the 8 points are other ones, and batches are drawn in a new order in every epoch, in parts of equal size
    (there: in the order of the files).
    """

    version: ClassVar[int] = (
        2  # 1 held out clips of the same groups that it learnt from, where no fold chooses
    )
    choice: ClassVar[Choice] = "next"
    selection: ClassVar[str] = (
        "by validation score: settings of the MLP in the first round, the weights of an epoch in every round"
    )

    pooling: Pooling = "frequency"
    """Tokens to vector."""
    hidden_layers: tuple[int, ...] = (1, 2)
    """Grid: how many hidden layers."""
    lr: tuple[float, ...] = (3.2e-3, 1e-3, 3.2e-4, 1e-4)
    """Grid: learning rates of Adam."""
    init: tuple[Init, ...] = ("xavier_uniform", "xavier_normal")
    """Grid: what weights start as."""
    points: int = 8
    """How many points of the grid are tried; the whole grid if it has fewer."""
    hidden_dim: int = 1024
    """Width of the hidden layers."""
    dropout: float = 0.1
    """Share of hidden channels that are dropped in training."""
    batch_size: int = 1024
    """Clips per step."""
    epochs: int = 500
    """Passes over the training clips, at most."""
    every: int = 3
    """Epochs between validations."""
    patience: int = 20
    """Validations without a better one after which training ends."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("points", "hidden_dim", "epochs", "every", "patience"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        check(
            self.batch_size >= 2, "batch_size", self.batch_size, "2 or more"
        )  # for the sake of the batch norm
        check(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1")
        check(
            len(self.hidden_layers) > 0 and min(self.hidden_layers) >= 0,
            "hidden_layers",
            self.hidden_layers,
            "0s or more",
        )
        check(len(self.lr) > 0 and min(self.lr) > 0, "lr", self.lr, "numbers above 0")
        check(len(self.init) > 0, "init", self.init, "xavier_uniform, xavier_normal or both")

    def predict(
        self, train: Examples, val: Examples | None, test: Examples, *, multi_label: bool, seed: int
    ) -> tuple[Float[np.ndarray, "clip label"], dict[str, Any]]:
        """See :meth:`melpatch.protocols.base.Probe.predict`."""
        assert val is not None  # since clips are held out where no fold or split is there for it
        parts = zip(("training", "validation", "test"), (train, val, test), strict=True)
        learnt, chosen, asked = (
            Material(vectors(f"{name} features", part.features.of(self.pooling)), part.targets)
            for name, part in parts
        )
        per_epoch = ceil(len(train.targets) / self.batch_size)
        course = Course(
            steps=self.epochs * per_epoch,
            every=self.every * per_epoch,
            batch_size=self.batch_size,
            patience=self.patience,
        )
        (first,), labels = learnt.given(torch.tensor([0])), train.targets.shape[1]
        tried: list[tuple[Setting, Best, nn.Module]] = []
        for setting in self.grid():
            with seeded(seed, "hear"):
                mlp = self.mlp(setting, first.shape[1], labels)
                optimizer = torch.optim.Adam(mlp.parameters(), lr=setting.lr)
                best = fit(
                    mlp, optimizer, course, learnt, chosen, multi_label=multi_label, seed=seed
                )
            tried.append((setting, best, mlp))
        setting, best, head = max(tried, key=lambda one: one[1].score)
        found = probabilities(head, asked, self.batch_size, multi_label=multi_label)
        grid = [each._asdict() | {"val": one.score} for each, one, _ in tried]
        return found, {
            "setting": setting._asdict(),
            "epoch": best.step // per_epoch,
            "val": best.score,
            "grid": grid,
        }

    def following(self, first: Trial) -> "Hear":
        """Return the same with a grid of one point: what the first round chose."""
        chosen = Setting(**first.details["setting"])
        return replace(
            self, hidden_layers=(chosen.hidden_layers,), lr=(chosen.lr,), init=(chosen.init,)
        )

    def grid(self) -> list[Setting]:
        """Return the points that are tried, the same under every seed."""
        every = [Setting(*values) for values in product(self.hidden_layers, self.lr, self.init)]
        return [
            every[at] for at in permutation(42, "hear grid", 0, len(every))[: self.points].tolist()
        ]

    def mlp(self, setting: Setting, dim: int, labels: int) -> nn.Sequential:
        """Return the head: hidden layers with batch norm, dropout and ReLU, then a linear layer."""
        return nn.Sequential(*self._layers(setting, dim, labels))

    def _layers(self, setting: Setting, dim: int, labels: int) -> Iterator[nn.Module]:
        start = (
            nn.init.xavier_uniform_ if setting.init == "xavier_uniform" else nn.init.xavier_normal_
        )
        widths = [dim, *[self.hidden_dim] * setting.hidden_layers]
        for number, width in enumerate(widths):
            last = number == setting.hidden_layers
            layer = nn.Linear(width, labels if last else self.hidden_dim)
            start(layer.weight, gain=nn.init.calculate_gain("relu" if number else "linear"))
            yield layer
            if not last:
                yield from (nn.BatchNorm1d(self.hidden_dim), nn.Dropout(self.dropout), nn.ReLU())
