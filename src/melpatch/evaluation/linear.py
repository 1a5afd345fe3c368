"""Logistic regression on standardised features: the linear probe, and what floors are measured with."""

import numpy as np
from jaxtyping import Float, Shaped
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from melpatch.evaluation.logistic import fit_logistic
from melpatch.evaluation.metrics import check_finite


def linear_probabilities(
    train_features: Float[np.ndarray, "train feature"],
    train_targets: Shaped[np.ndarray, "train label"],
    test_features: Float[np.ndarray, "test feature"],
    *,
    multi_label: bool,
    C: float = 0.1,  # noqa: N803 - scikit-learn's name
) -> Float[np.ndarray, "test label"]:
    """Return the probability of every label: softmax over labels, or for multi-label tasks one sigmoid per label.

    Mean and variance of the features come from the training clips only. A label that no training
    clip has gets 0, one that all have gets 1.

    Args:
        train_features: embeddings of the training clips.
        train_targets: 1 where a training clip has the label, else 0.
        test_features: embeddings of the clips to score.
        multi_label: whether a clip may have several labels or none.
        C: inverse strength of the L2 penalty, as in scikit-learn.

    Raises:
        MelpatchError: a feature is not finite.
    """
    check_finite("training features", train_features)
    check_finite("test features", test_features)
    scaler = StandardScaler().fit(train_features)
    train = scaler.transform(train_features)
    test = scaler.transform(test_features)
    if not multi_label:
        return _softmax(train, train_targets.argmax(axis=1), test, train_targets.shape[1], C)
    positive = train_targets > 0.5
    # Only labels that some training clips have and others lack can be learnt; the others are constant.
    learnable = positive.any(axis=0) & ~positive.all(axis=0)
    constant = positive.all(axis=0).astype(np.float64)
    probabilities = np.tile(constant, (len(test), 1))
    if learnable.any():
        weights, bias = fit_logistic(train, positive[:, learnable], C)
        probabilities[:, learnable] = expit(test @ weights + bias)
    return probabilities


def _softmax(
    train: Float[np.ndarray, "train feature"],
    classes: Shaped[np.ndarray, " train"],
    test: Float[np.ndarray, "test feature"],
    num_classes: int,
    C: float,  # noqa: N803
) -> Float[np.ndarray, "test class"]:
    """Return the probability of each class; those without a training clip get 0."""
    seen = np.unique(classes.astype(int))
    probabilities = np.zeros((len(test), num_classes))
    if len(seen) == 1:
        probabilities[:, seen] = 1.0
    else:
        regression = LogisticRegression(C=C, max_iter=2000).fit(train, classes)
        probabilities[:, seen] = regression.predict_proba(test)
    return probabilities
