"""k nearest neighbours on frozen embeddings: what the geometry alone knows, with nothing trained and nothing tuned."""

import numpy as np
from jaxtyping import Float, Shaped
from sklearn.neighbors import NearestNeighbors

from melpatch.evaluation.metrics import check_finite


def predict(
    train_features: Float[np.ndarray, "train feature"],
    train_targets: Shaped[np.ndarray, "train label"],
    test_features: Float[np.ndarray, "test feature"],
    *,
    k: int = 10,
) -> Float[np.ndarray, "test label"]:
    """Return, per label, the share of the k most similar training clips (by cosine) that have it.

    For single-label tasks the arg-max is the majority vote, the first label winning a tie; for multi-label tasks the
    shares are the scores. A training set smaller than k is used whole.

    Raises:
        MelpatchError: a feature is not finite.
    """
    check_finite("training features", train_features)
    check_finite("test features", test_features)
    index = NearestNeighbors(n_neighbors=min(k, len(train_features)), metric="cosine").fit(train_features)
    neighbours = index.kneighbors(test_features, return_distance=False)
    return np.asarray(train_targets[neighbours].mean(axis=1, dtype=np.float64))
