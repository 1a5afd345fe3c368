"""The most similar training clips vote, on frozen vectors, with nothing trained or tuned."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Shaped
from sklearn.neighbors import NearestNeighbors

from melpatch.config import check
from melpatch.evaluation.metrics import check_finite
from melpatch.evaluation.probe import ProbeInputs, VectorProbe
from melpatch.evaluation.standardise import Standardiser


@dataclass(frozen=True, kw_only=True)
class KNN(VectorProbe):
    """The vote of the most similar training clips."""

    # Version 1 had the mean of each frequency row only, and took vectors as they are;
    # version 2 had nothing of the input; version 3 divided by deviations that are rounding.
    version: ClassVar[int] = 4
    selection_rule: ClassVar[str] = "nothing is selected"

    k: int = 10
    """How many neighbours vote."""
    standardise: bool = True
    """Give each number of a vector mean 0 and deviation 1 over the training clips first. Otherwise
    what all clips share decides how similar they are."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check(self.k >= 1, "k", self.k, "1 or more")

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
        if self.standardise:
            check_finite("training features", learnt)
            check_finite("test features", scored)
            standardised = Standardiser.of(learnt)
            learnt, scored = standardised(learnt), standardised(scored)
        return neighbour_shares(learnt, train.targets, scored, k=self.k), {}


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
