"""Learn how unlike the training clips a clip can be and still be one of the classes."""

from dataclasses import replace
from math import ceil

import numpy as np
from jaxtyping import Float
from scipy.linalg import eigh

from melpatch.inference.novelty import Novelty

MOST_TRAINING_CLIPS = 2000
"""Training clips from which is learnt what is like them; more change little, and take time."""
_MOST_DIRECTIONS = 64
_CLIPS_PER_DIRECTION = 4  # at least; the variances of more directions could not be told
_LEAST_CLIPS = 8
_RIDGE = 1e-6
"""Variance that is added, in case that there is none."""


def fit_novelty(
    train: Float[np.ndarray, "clip dim"], val: Float[np.ndarray, "held_out dim"]
) -> Novelty | None:
    """Return the distance from training clips; None for fewer than 8 of these or of the others.

    Energy and the greatest probability, which need no vectors, found next to nothing: a classifier
    is as certain of other kinds of sound as of its own (lab/novelty.md).

    Args:
        train: vectors of training clips.
        val: vectors of validation clips, which say how large the distance is for new clips.
    """
    if min(len(train), len(val)) < _LEAST_CLIPS:
        return None
    train = train[:: ceil(len(train) / MOST_TRAINING_CLIPS)].astype(np.float64)
    mean = train.mean(axis=0)
    scale = train.std(axis=0)
    # What never changes says nothing by its size; the floor keeps a change from being infinite.
    scale = np.maximum(scale, 1e-3 * np.maximum(scale.mean(), 1e-6))
    standardised = (train - mean) / scale
    # At most half of all directions, so that something is left across them.
    dim = train.shape[1]
    number = max(1, min(_MOST_DIRECTIONS, len(train) // _CLIPS_PER_DIRECTION, dim // 2))
    variances, directions = _main_directions(standardised, number)
    directions = directions / np.sqrt(variances)
    novelty = Novelty(mean, scale, directions, variances, np.zeros(2), np.eye(2), np.zeros(1))
    logarithms = novelty.log_lengths(val)
    covariance = np.cov(logarithms.T, ddof=0) + _RIDGE * np.eye(2)
    return replace(
        novelty,
        centre=logarithms.mean(axis=0),
        # With covariance C = L L^T, rows times the inverse of L^T have covariance 1.
        whitening=np.linalg.inv(np.linalg.cholesky(covariance)).T,
        held_out=np.sort(_left_out_distances(logarithms)),
    )


def _left_out_distances(rows: Float[np.ndarray, "clip 2"]) -> Float[np.ndarray, " clip"]:
    """Return the distance of each clip from all others: from itself as well it would be too small."""
    others = len(rows) - 1
    means = (rows.sum(axis=0) - rows) / others
    products = rows[:, :, None] * rows[:, None]
    covariances = (products.sum(axis=0) - products) / others - means[:, :, None] * means[:, None]
    inverses = np.linalg.inv(covariances + _RIDGE * np.eye(2))
    gaps = rows - means
    distances: np.ndarray = np.einsum("ni,nij,nj->n", gaps, inverses, gaps)
    return distances


def _main_directions(
    rows: Float[np.ndarray, "clip dim"], number: int
) -> tuple[Float[np.ndarray, " direction"], Float[np.ndarray, "dim direction"]]:
    """Return the largest variances of centred rows, and the unit vectors along which they are."""
    clips = len(rows)
    dim = rows.shape[1]
    # Of the two products of rows with themselves, the smaller has the same eigenvalues.
    product = rows.T @ rows if dim <= clips else rows @ rows.T
    size = len(product)
    values, vectors = eigh(product, subset_by_index=(size - number, size - 1))
    values = np.maximum(values, 1e-9 * max(values[-1], 1e-9))
    if dim > clips:
        vectors = rows.T @ vectors / np.sqrt(values)
    return values / clips, vectors
