"""Logistic regression on standardised features: the linear probe, and what floors are measured with."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression

from melpatch.evaluation.logistic import fit_logistic, principal_axes
from melpatch.evaluation.metrics import check_finite
from melpatch.evaluation.standardise import Standardiser

_CERTAIN = 1e4
"""Logit whose probability is exactly 1, and that of whose negative is exactly 0."""


@dataclass(frozen=True)
class LinearHead:
    """A fitted linear probe: logits are ``weight @ ((features - mean) / scale) + bias``.

    Attributes:
        mean: of the training features.
        scale: their deviation; 1 where they do not vary.
        weight: of each label.
        bias: of each label.
        multi_label: whether logits go through a sigmoid each, instead of a softmax over labels.
    """

    mean: Float[np.ndarray, " feature"]
    scale: Float[np.ndarray, " feature"]
    weight: Float[np.ndarray, "label feature"]
    bias: Float[np.ndarray, " label"]
    multi_label: bool

    def probabilities(
        self, features: Float[np.ndarray, "clip feature"]
    ) -> Float[np.ndarray, "clip label"]:
        """Return the probability of each label.

        Raises:
            MelpatchError: a feature is not finite.
        """
        check_finite("features", features)
        logits = (features - self.mean) / self.scale @ self.weight.T + self.bias
        probabilities: np.ndarray = expit(logits) if self.multi_label else softmax(logits, axis=1)
        return probabilities


def fit_linear(
    features: Float[np.ndarray, "clip feature"],
    targets: Shaped[np.ndarray, "clip label"],
    *,
    multi_label: bool,
    C: float = 0.1,  # noqa: N803 - scikit-learn's name
    clip_weights: Float[np.ndarray, " clip"] | None = None,
) -> LinearHead:
    """Return the linear probe of training clips: a softmax over labels, or a sigmoid for each.

    A label that no training clip has gets the probability 0, one that all have gets 1.

    Args:
        features: embeddings of the training clips.
        targets: 1 where a training clip has the label, else 0.
        multi_label: whether a clip may have several labels or none.
        C: inverse strength of the L2 penalty, as in scikit-learn.
        clip_weights: weight of each clip's loss, for a softmax only; None for equal ones.

    Raises:
        MelpatchError: a feature is not finite.
    """
    check_finite("training features", features)
    standardiser = Standardiser.of(features)
    scaled = standardiser(features)
    positive = targets > 0.5
    weight = np.zeros((targets.shape[1], features.shape[1]))
    bias = np.where(positive.all(axis=0), _CERTAIN, -_CERTAIN)
    if multi_label:
        # Only labels that some training clips have and others lack can be learnt.
        learnable = positive.any(axis=0) & ~positive.all(axis=0)
        if learnable.any():
            columns, bias[learnable] = fit_logistic(scaled, positive[:, learnable], C)
            weight[learnable] = columns.T
    else:
        classes = targets.argmax(axis=1)
        seen = np.unique(classes)
        bias[seen] = 0.0
        if len(seen) > 1:
            # Of two classes, scikit-learn has the logit of the second alone.
            rows = seen if len(seen) > 2 else seen[1:]
            weight[rows], bias[rows] = _fit_softmax(scaled, classes, C, clip_weights)
    # What does not vary has the weight 0, whatever it is in other clips.
    weight[:, ~standardiser.varies] = 0.0
    return LinearHead(standardiser.mean, standardiser.scale, weight, bias, multi_label)


def _fit_softmax(
    scaled: Float[np.ndarray, "clip feature"],
    classes: Shaped[np.ndarray, " clip"],
    C: float,  # noqa: N803
    weights: Float[np.ndarray, " clip"] | None,
) -> tuple[Float[np.ndarray, "row feature"], Float[np.ndarray, " row"]]:
    """Return the weights and biases of scikit-learn's logistic regression."""
    regression = LogisticRegression(C=C, max_iter=2000)
    if scaled.shape[1] <= len(scaled):
        regression.fit(scaled, classes, sample_weight=weights)
        return regression.coef_, regression.intercept_
    # The minimum lies in the span of the clips, whose principal axes are fewer than the features.
    axes, _ = principal_axes(torch.from_numpy(np.asarray(scaled, np.float64)))
    rotation = axes.numpy()
    regression.fit(scaled @ rotation, classes, sample_weight=weights)
    return regression.coef_ @ rotation.T, regression.intercept_
