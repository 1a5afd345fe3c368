"""Logistic regressions of many labels at once: the optimum of each alone, in matrix products shared by all."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

TOLERANCE = 1e-6
"""Largest gradient at which a minimum counts as reached, per clip as in scikit-learn, whose default is 1e-4."""

_LABELS_AT_ONCE = 64  # bounds memory, and easy labels do not wait for hard ones
# At most; about ten, ten and none are usual.
_NEWTON_STEPS = 100
_CONJUGATE_STEPS = 50
_HALVINGS = 30


def fit_logistic(
    features: Float[np.ndarray, "clip feature"],
    targets: Bool[np.ndarray, "clip label"],
    C: float,  # noqa: N803 - scikit-learn's name
) -> tuple[Float[np.ndarray, "feature label"], Float[np.ndarray, " label"]]:
    """Return the weights and biases of one logistic regression per label, in float64, on a GPU if there is one.

    Each minimises C times the sum of log-losses plus half the squared length of its weights.
    Newton's method, each step by conjugate gradients (Lin, Weng and Keerthi 2008, "Trust region
    Newton method for large-scale logistic regression", with step halving instead of the region).
    The features are rotated to their principal axes first: there the Hessian is close to diagonal,
    so that about ten conjugate gradients are enough. These only give the direction and are in
    float32; what decides where the minimum is, gradients and losses, is in float64.

    Args:
        features: standardised.
        targets: which clips have which label; each label is on some clips and not on others.
        C: inverse strength of the penalty.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = torch.from_numpy(np.asarray(features, np.float64)).to(device)
    positive = torch.from_numpy(targets).to(device)
    axes, squares = principal_axes(rows)
    # A column of ones carries the bias; its sum of squares is the number of clips.
    rotated = torch.cat([rows @ axes, rows.new_ones(len(rows), 1)], dim=1)
    squares = torch.cat([squares, squares.new_tensor([len(rows)])])
    weights = rotated.new_empty(len(squares), positive.shape[1])
    # Rare labels need the most steps, so labels of similar frequency are solved together.
    for labels in torch.split(positive.sum(dim=0).argsort(), _LABELS_AT_ONCE):
        weights[:, labels] = _minimize(
            rotated, rotated.float(), squares[:, None], positive[:, labels].double(), C
        )
    return (axes @ weights[:-1]).cpu().numpy(), weights[-1].cpu().numpy()


def principal_axes(
    rows: Float[Tensor, "clip feature"],
) -> tuple[Float[Tensor, "feature axis"], Float[Tensor, " axis"]]:
    """Return the principal axes of rows, and the sums of squares along them; axes without any are left out."""
    if len(rows) < rows.shape[1]:
        # Fewer clips than features: eigenvectors u of X X^T give the axes X^T u / sqrt(eigenvalue).
        squares, vectors = torch.linalg.eigh(rows @ rows.T)
        axes = rows.T @ (vectors * squares.clamp(min=1e-300).rsqrt())
    else:
        squares, axes = torch.linalg.eigh(rows.T @ rows)
    kept = squares > squares[-1] * 1e-12
    return axes[:, kept], squares[kept]


def _minimize(
    rows: Float[Tensor, "clip axis"],
    rows_float32: Float[Tensor, "clip axis"],
    squares: Float[Tensor, "axis 1"],
    targets: Float[Tensor, "clip label"],
    C: float,  # noqa: N803
) -> Float[Tensor, "axis label"]:
    """Return the weights along each axis, the last being the bias, which is not penalised."""
    penalty = torch.ones_like(squares)
    penalty[-1] = 0
    # Start from the bias alone: the log-odds of each label.
    weights = rows.new_zeros(len(squares), targets.shape[1])
    weights[-1] = targets.mean(dim=0).logit()
    solution = weights.clone()
    labels = torch.arange(targets.shape[1], device=rows.device)

    def loss(logits: Tensor, weights: Tensor) -> Float[Tensor, " label"]:
        errors = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return C * errors.sum(dim=0) + 0.5 * (penalty * weights.square()).sum(dim=0)

    logits = rows @ weights
    for _ in range(_NEWTON_STEPS):
        # d loss / d weights = C X^T (sigmoid(logits) - targets) + penalty * weights
        gradient = C * (rows.T @ (logits.sigmoid() - targets)) + penalty * weights
        unfinished = gradient.abs().amax(dim=0) > TOLERANCE * C * len(rows)
        solution[:, labels] = weights
        if not unfinished.any():
            break
        labels = labels[unfinished]
        targets = targets[:, unfinished]
        weights = weights[:, unfinished]
        logits = logits[:, unfinished]
        gradient = gradient[:, unfinished]
        # The second derivative of a clip's loss by its logit is C * p * (1 - p).
        probabilities = logits.sigmoid()
        curvature = C * probabilities * (1 - probabilities)
        direction = _newton_direction(rows_float32, curvature, squares, penalty, gradient)
        # Halve the step until the loss falls by a small part of what the gradient promises
        # (Armijo); the last term forgives rounding.
        logit_change = rows @ direction
        descent = (direction * gradient).sum(dim=0)
        before = loss(logits, weights)
        step = torch.ones_like(before)
        for _ in range(_HALVINGS):
            after = loss(logits + step * logit_change, weights + step * direction)
            too_long = after > before + 1e-4 * step * descent + 1e-12 * before
            if not too_long.any():
                break
            step = torch.where(too_long, step / 2, step)
        weights = weights + step * direction
        logits = logits + step * logit_change
    return solution


def _newton_direction(
    rows_float32: Float[Tensor, "clip axis"],
    curvature: Float[Tensor, "clip label"],
    squares: Float[Tensor, "axis 1"],
    penalty: Float[Tensor, "axis 1"],
    gradient: Float[Tensor, "axis label"],
) -> Float[Tensor, "axis label"]:
    """Return the Newton step, by preconditioned conjugate gradients until a tenth of the squared residual is left."""
    # The inverse of the Hessian's diagonal if all clips had the mean curvature: the preconditioner.
    inverse = 1 / (curvature.mean(dim=0) * squares + penalty)
    curvature_float32 = curvature.float()
    direction = torch.zeros_like(gradient)
    residual = -gradient
    search = inverse * residual
    size = (residual * search).sum(dim=0)
    first_size = size
    for _ in range(_CONJUGATE_STEPS):
        # Hessian times search direction: X^T (curvature * (X search)) + penalty * search
        bent = (rows_float32.T @ (curvature_float32 * (rows_float32 @ search.float()))).double()
        product = bent + penalty * search
        step = size / (search * product).sum(dim=0).clamp(min=1e-300)
        direction = direction + step * search
        residual = residual - step * product
        preconditioned = inverse * residual
        previous_size = size
        size = (residual * preconditioned).sum(dim=0)
        if (size <= 0.1 * first_size).all():
            break
        search = preconditioned + size / previous_size.clamp(min=1e-300) * search
    return direction
