"""Principal components of vectors, and whitening: each component divided by its deviation."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from melpatch.config import check
from melpatch.counted import counted
from melpatch.inference.fitted import FittedPooling, fitted_pooling
from melpatch.inference.varying import varies
from melpatch.nn.pooling import Pooling

RIDGE = 1.0
"""What whitening adds to the variance of a component, in mean variances of a component."""
_NEGLIGIBLE = 1e-9  # share of the largest variance below which a component is rounding


class Components(NamedTuple):
    """Principal components of standardised vectors.

    Attributes:
        mean: of each number of a vector, over the clips that the components are of.
        axes: a vector less the mean, times these, is its components; a number that does not vary
            has no share in them.
        variance: of each component, the largest first.
        mean_variance: over all components that the clips have, also those that are not kept.
    """

    mean: Float[np.ndarray, " number"]
    axes: Float[np.ndarray, "number component"]
    variance: Float[np.ndarray, " component"]
    mean_variance: float

    @classmethod
    def of(cls, vectors: Float[np.ndarray, "clip number"], most: int) -> "Components":
        """Return the components of clips; they have at most one fewer than there are clips.

        Args:
            vectors: of the clips, all finite.
            most: components to keep.
        """
        # Imported here, since it takes longer than most of what loads a model.
        from sklearn.decomposition import PCA

        mean = vectors.mean(axis=0, dtype=np.float64)
        deviation = vectors.std(axis=0, dtype=np.float64)
        # A number that never varies says nothing, and must not be divided by nothing.
        scale = np.where(varies(mean, deviation), deviation, np.inf)
        varying = int(np.isfinite(scale).sum())
        if varying == 0:
            return cls(mean, np.zeros((len(mean), 1)), np.zeros(1), 0.0)
        possible = min(len(vectors) - 1, varying)
        standardised = vectors - mean.astype(vectors.dtype)
        standardised /= scale.astype(vectors.dtype)
        pca = PCA(min(most, possible), svd_solver="auto", random_state=0).fit(standardised)
        # Standardised numbers have the variance n / (n - 1) each by the definition of components.
        total = varying * len(vectors) / (len(vectors) - 1)
        return cls(
            mean,
            pca.components_.T / scale[:, None],
            pca.explained_variance_,
            total / possible,
        )

    @property
    def rank(self) -> int:
        """Number of the kept components that vary by more than rounding."""
        return int((self.variance > _NEGLIGIBLE * self.variance[0]).sum())

    def whitened(self, ridge: float = RIDGE) -> Float[np.ndarray, "number component"]:
        """Return the axes of components of nearly equal variance; those that are rounding are left out.

        The smallest components of few clips are mostly chance, and whitening makes them as large as
        the others. A ridge keeps them small: it is added to the variance of every component.

        Args:
            ridge: what is added, in mean variances of a component; 0 for variances of exactly 1.
        """
        rank = self.rank
        if rank == 0:
            # All clips are the same, which one component of zeros says.
            return np.zeros_like(self.axes[:, :1])
        variance = self.variance[:rank] + ridge * self.mean_variance
        whitened: np.ndarray = self.axes[:, :rank] / np.sqrt(variance)
        return whitened

    def pooling(
        self, pooling: Pooling, axes: Float[np.ndarray, "number component"]
    ) -> FittedPooling:
        """Return the pooling of the vectors, followed by their map onto some axes."""
        return fitted_pooling(
            pooling,
            torch.from_numpy(self.mean).float(),
            torch.from_numpy(np.ascontiguousarray(axes)).float(),
        )


def fit(
    vectors: Float[np.ndarray, "clip number"],
    pooling: Pooling,
    dim: int,
    *,
    whiten: bool,
    ridge: float = RIDGE,
) -> FittedPooling:
    """Return the pooling whose vectors are the principal components of standardised ones.

    Args:
        vectors: pooled vectors of unlabelled clips.
        pooling: how they were pooled.
        dim: components to keep.
        whiten: whether each component is divided by its deviation.
        ridge: see :meth:`Components.whitened`.

    Raises:
        ConfigError: there are fewer independent vectors, or numbers in each, than components.
    """
    most = min(len(vectors) - 1, vectors.shape[1])
    given = f"{counted(len(vectors), 'clip')} and vectors of {counted(vectors.shape[1], 'number')}"
    allowed = f"1 to {most}, with {given}"
    check(1 <= dim <= most, "dim", dim, allowed)
    components = Components.of(vectors, dim)
    axes = components.axes
    if whiten:
        rank = components.rank
        check(dim <= rank, "dim", dim, f"1 to {rank}: the clips vary no further")
        axes = components.whitened(ridge)
    return components.pooling(pooling, axes)
