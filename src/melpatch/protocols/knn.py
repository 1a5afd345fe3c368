"""The most similar training clips vote, on frozen vectors, with nothing trained or tuned."""

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Shaped
from sklearn.neighbors import NearestNeighbors

from melpatch.config import check
from melpatch.evaluation.metrics import check_finite
from melpatch.evaluation.probe import ProbeInputs, VectorProbe
from melpatch.evaluation.standardise import Standardiser
from melpatch.inference.components import RIDGE, Components

_CLIPS = 20_000  # from which components are learnt, at most


@dataclass(frozen=True, kw_only=True)
class KNN(VectorProbe):
    """The vote of the most similar training clips."""

    # Version 1 had the mean of each frequency row only, and took vectors as they are;
    # version 2 had nothing of the input; version 3 divided by deviations that are rounding;
    # version 4 standardised each number by itself.
    version: ClassVar[int] = 5
    selection_rule: ClassVar[str] = "nothing is selected"

    k: int = 10
    """How many neighbours vote."""
    scaling: Literal["whitened", "standardised", "none"] = "whitened"
    """What is done to vectors by the training clips, without their labels: whitened takes their
    first principal components, each with equal variance; standardised gives each number mean 0 and
    deviation 1, so that correlated numbers count several times; with none, what all clips share
    decides how similar they are."""
    components: int = 128
    """Principal components of whitened vectors; fewer where training clips are."""
    ridge: float = RIDGE
    """What whitening adds to the variance of a component, in mean variances of one."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        for name in ("k", "components"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        check(0 <= self.ridge < inf, "ridge", self.ridge, "0 or more")

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
        learnt = np.asarray(train.features.vectors)
        scored = np.asarray(test.features.vectors)
        check_finite("training features", learnt)
        check_finite("test features", scored)
        learnt, scored = self._scaled(learnt, scored)
        return neighbour_shares(learnt, train.targets, scored, k=self.k), {}

    def _scaled(
        self, train: Float[np.ndarray, "train feature"], test: Float[np.ndarray, "test feature"]
    ) -> tuple[Float[np.ndarray, "train number"], Float[np.ndarray, "test number"]]:
        """Return both as they are compared."""
        if self.scaling == "none":
            return train, test
        if self.scaling == "standardised":
            standardise = Standardiser.of(train)
            return standardise(train), standardise(test)
        some = np.random.default_rng(0).permutation(len(train))[:_CLIPS]
        components = Components.of(train[np.sort(some)], self.components)
        axes = components.whitened(self.ridge).astype(train.dtype)
        mean = components.mean.astype(train.dtype)
        return (train - mean) @ axes, (test - mean) @ axes


def neighbour_shares(
    train_features: Float[np.ndarray, "train feature"],
    train_targets: Shaped[np.ndarray, "train label"],
    test_features: Float[np.ndarray, "test feature"],
    *,
    k: int = 10,
) -> Float[np.ndarray, "test label"]:
    """Return, per label, the share of the k most similar training clips (by cosine) that have it.

    For single-label tasks the arg-max is the majority vote, the first label winning a tie; for
    multi-label tasks the shares are the scores. A training set smaller than k is used whole.

    Raises:
        MelpatchError: a feature is not finite.
    """
    check_finite("training features", train_features)
    check_finite("test features", test_features)
    index = NearestNeighbors(n_neighbors=min(k, len(train_features)), metric="cosine")
    index.fit(train_features)
    neighbours = index.kneighbors(test_features, return_distance=False)
    return np.asarray(train_targets[neighbours].mean(axis=1, dtype=np.float64))
