"""Fit HEAR's small MLP on frozen vectors, its settings searched on validation clips."""

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
from melpatch.evaluation.heads import (
    BestWeights,
    HeadInputs,
    HeadTraining,
    predict_probabilities,
    train_head,
)
from melpatch.evaluation.probe import ProbeInputs, VectorProbe
from melpatch.evaluation.splits import ValidationSource
from melpatch.evaluation.trials import TrialResult
from melpatch.rng import permutation, seeded

Init = Literal["xavier_uniform", "xavier_normal"]


class GridPoint(NamedTuple):
    """The settings of one MLP."""

    hidden_layers: int
    lr: float
    init: Init


@dataclass(frozen=True, kw_only=True)
class Hear(VectorProbe):
    """An MLP whose settings are selected in the first split of each seed, and kept for the others.

    Source: Turian et al. 2022 (HEAR, arXiv 2203.03022), appendix, and the published code: its grid,
        of which 8 points
    are tried; Adam; validation every third epoch; the fold after the scored one validates.

    *Differs:* the 8 points are different ones, and batches are drawn in a new order in every epoch,
    in parts of equal size (there: in the order of the files).
    """

    # Version 1 held out clips of groups that it also trained on, where no fold validates; versions
    # before 3 had the mean of each frequency row only, version 3 nothing of the input.
    version: ClassVar[int] = 4
    validation: ClassVar[ValidationSource] = "next fold"
    selection_rule: ClassVar[str] = (
        "by validation score: settings of the MLP in the first split, the weights of an epoch in every split"
    )

    hidden_layers: tuple[int, ...] = (1, 2)
    """Grid: numbers of hidden layers."""
    lr: tuple[float, ...] = (3.2e-3, 1e-3, 3.2e-4, 1e-4)
    """Grid: learning rates of Adam."""
    init: tuple[Init, ...] = ("xavier_uniform", "xavier_normal")
    """Grid: initial distributions of the weights."""
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
        super().__post_init__()
        for name in ("points", "hidden_dim", "epochs", "every", "patience"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        # Batch normalisation needs two clips.
        check(self.batch_size >= 2, "batch_size", self.batch_size, "2 or more")
        check(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1")
        has_layers = len(self.hidden_layers) > 0 and min(self.hidden_layers) >= 0
        check(has_layers, "hidden_layers", self.hidden_layers, "0s or more")
        has_rates = len(self.lr) > 0 and min(self.lr) > 0
        check(has_rates, "lr", self.lr, "numbers above 0")
        check(len(self.init) > 0, "init", self.init, "xavier_uniform, xavier_normal or both")

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
        assert val is not None  # clips are held out where no fold or split validates
        train_inputs = self._inputs("training features", train)
        val_inputs = self._inputs("validation features", val)
        test_inputs = self._inputs("test features", test)
        # The schedule is stated in epochs; heads train by steps.
        steps_per_epoch = ceil(len(train.targets) / self.batch_size)
        training = HeadTraining(
            steps=self.epochs * steps_per_epoch,
            validate_every=self.every * steps_per_epoch,
            batch_size=self.batch_size,
            patience=self.patience,
        )
        (first,) = train_inputs.arguments(torch.tensor([0]))
        trained: list[tuple[GridPoint, BestWeights, nn.Module]] = []
        for point in self.grid():
            # Every point of the grid starts from the same random state, so that settings alone
            # differ.
            with seeded(seed, "hear"):
                mlp = self.mlp(point, first.shape[1], train.targets.shape[1])
                optimizer = torch.optim.Adam(mlp.parameters(), lr=point.lr)
                best = train_head(
                    mlp,
                    optimizer,
                    training,
                    train_inputs,
                    val_inputs,
                    multi_label=multi_label,
                    seed=seed,
                )
            trained.append((point, best, mlp))
        point, best, head = max(trained, key=lambda entry: entry[1].score)
        probabilities = predict_probabilities(
            head, test_inputs, self.batch_size, multi_label=multi_label
        )
        return probabilities, {
            "setting": point._asdict(),
            "best_epoch": best.step // steps_per_epoch,
            "val_score": best.score,
            "grid": [point._asdict() | {"val_score": best.score} for point, best, _ in trained],
        }

    def for_other_splits(self, first: TrialResult) -> "Hear":
        """Return the same protocol with a grid of one point, the one that the first split selected."""
        point = GridPoint(**first.details["setting"])
        return replace(
            self, hidden_layers=(point.hidden_layers,), lr=(point.lr,), init=(point.init,)
        )

    def grid(self) -> list[GridPoint]:
        """Return the points that are tried, the same under every seed."""
        points = [GridPoint(*values) for values in product(self.hidden_layers, self.lr, self.init)]
        order = permutation(42, "hear grid", 0, len(points)).tolist()
        return [points[number] for number in order[: self.points]]

    def mlp(self, point: GridPoint, dim: int, num_labels: int) -> nn.Sequential:
        """Return the head: hidden layers with batch norm, dropout and ReLU, then a linear layer."""
        return nn.Sequential(*self._layers(point, dim, num_labels))

    def _layers(self, point: GridPoint, dim: int, num_labels: int) -> Iterator[nn.Module]:
        init = nn.init.xavier_normal_
        if point.init == "xavier_uniform":
            init = nn.init.xavier_uniform_
        for number in range(point.hidden_layers):
            # The first layer follows no ReLU, so that its gain is that of a linear layer.
            width = self.hidden_dim if number else dim
            layer = nn.Linear(width, self.hidden_dim)
            init(layer.weight, gain=nn.init.calculate_gain("relu" if number else "linear"))
            yield layer
            yield nn.BatchNorm1d(self.hidden_dim)
            yield nn.Dropout(self.dropout)
            yield nn.ReLU()
        has_hidden = point.hidden_layers > 0
        last = nn.Linear(self.hidden_dim if has_hidden else dim, num_labels)
        init(last.weight, gain=nn.init.calculate_gain("relu" if has_hidden else "linear"))
        yield last

    def _inputs(self, name: str, part: ProbeInputs) -> HeadInputs:
        return HeadInputs.from_vectors(name, part.features.vectors, part.targets)
