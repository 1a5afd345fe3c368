"""Standardise vectors by training clips, as the linear probe and the vote of neighbours do."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from sklearn.preprocessing import StandardScaler

from melpatch.inference.varying import varies


class Standardiser(NamedTuple):
    """Gives numbers mean 0 and deviation 1 over training clips; those that do not vary become 0."""

    mean: Float[np.ndarray, " feature"]
    """Of the training clips."""
    scale: Float[np.ndarray, " feature"]
    """Their deviation; 1 where they do not vary."""
    varies: Bool[np.ndarray, " feature"]
    """Which numbers vary, see :func:`melpatch.inference.varying.varies`."""

    @classmethod
    def of(cls, features: Float[np.ndarray, "clip feature"]) -> "Standardiser":
        """Return the standardiser of training clips, all finite."""
        scaler = StandardScaler().fit(features)
        varying = varies(scaler.mean_, np.sqrt(scaler.var_))
        return cls(scaler.mean_, np.where(varying, scaler.scale_, 1.0), varying)

    def __call__(
        self, features: Float[np.ndarray, "clip feature"]
    ) -> Float[np.ndarray, "clip feature"]:
        """Return standardised features, in their own precision."""
        standardised = np.array(features)
        standardised -= self.mean.astype(features.dtype)
        standardised /= self.scale.astype(features.dtype)
        standardised[:, ~self.varies] = 0.0
        return standardised
