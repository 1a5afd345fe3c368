"""Logistic regressions of many labels at once: the same optimum as one by one, in matrix products of all of them."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

TOLERANCE = 1e-6
"""Largest slope at which a minimum counts as found, per clip as scikit-learn has it, whose own is 1e-4."""

_AT_ONCE = 64  # labels; the easy ones are not to wait for the hard ones, and memory is bounded
_NEWTON, _CONJUGATE, _HALVINGS = 100, 50, 30  # steps at most; some ten, ten and none are usual


def logistic(
    features: Float[np.ndarray, "clip feature"],
    targets: Bool[np.ndarray, "clip label"],
    C: float,  # noqa: N803 - scikit-learn's name
) -> tuple[Float[np.ndarray, "feature label"], Float[np.ndarray, " label"]]:
    """Return weights and biases that minimise, for each label, C times the sum of log-losses plus half the squared
    length of its weights; in float64, on a GPU if there is one.

    Newton's method, each step of it by conjugate gradients (Lin, Weng and Keerthi 2008, "Trust region Newton method for
    large-scale logistic regression", with step halving in the place of the region). The features are turned to their
    principal axes first. There the Hessian is close to diagonal, which makes some ten conjugate gradients enough. These
    only point the way, and are in float32; what decides where the minimum is, slopes and losses, is in float64.

    Args:
        features: standardised.
        targets: which clips have which label; each label is on some clips and not on others.
        C: inverse strength of the penalty.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = torch.from_numpy(np.asarray(features, np.float64)).to(device)
    positive = torch.from_numpy(targets).to(device)
    axes, spectrum = _principal(rows)
    turned = torch.cat([rows @ axes, rows.new_ones(len(rows), 1)], dim=1)
    spectrum = torch.cat([spectrum, spectrum.new_tensor([len(rows)])])
    found = turned.new_empty(len(spectrum), positive.shape[1])
    for labels in torch.split(
        positive.sum(dim=0).argsort(), _AT_ONCE
    ):  # the rare ones together, which take longest
        found[:, labels] = _minimum(
            turned, turned.float(), spectrum[:, None], positive[:, labels].double(), C
        )
    return (axes @ found[:-1]).cpu().numpy(), found[-1].cpu().numpy()


def _principal(
    rows: Float[Tensor, "clip feature"],
) -> tuple[Float[Tensor, "feature axis"], Float[Tensor, " axis"]]:
    """Return the principal axes of some rows, and the sums of squares along them; those without any are left out."""
    if len(rows) < rows.shape[1]:
        squares, turned = torch.linalg.eigh(rows @ rows.T)
        axes = rows.T @ (turned * squares.clamp(min=1e-300).rsqrt())
    else:
        squares, axes = torch.linalg.eigh(rows.T @ rows)
    kept = squares > squares[-1] * 1e-12
    return axes[:, kept], squares[kept]


def _minimum(
    rows: Float[Tensor, "clip axis"],
    rough: Float[Tensor, "clip axis"],
    spectrum: Float[Tensor, "axis 1"],
    targets: Float[Tensor, "clip label"],
    C: float,  # noqa: N803
) -> Float[Tensor, "axis label"]:
    """Return the weights along each axis, the last being the bias, which is not penalised."""
    penalty = torch.ones_like(spectrum)
    penalty[-1] = 0
    weights = rows.new_zeros(len(spectrum), targets.shape[1])
    weights[-1] = targets.mean(dim=0).logit()
    found, labels = weights.clone(), torch.arange(targets.shape[1], device=rows.device)

    def loss(logits: Tensor, weights: Tensor) -> Float[Tensor, " label"]:
        errors = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return C * errors.sum(dim=0) + 0.5 * (penalty * weights.square()).sum(dim=0)

    logits = rows @ weights
    for _ in range(_NEWTON):
        slope = C * (rows.T @ (logits.sigmoid() - targets)) + penalty * weights
        steep = slope.abs().amax(dim=0) > TOLERANCE * C * len(rows)
        found[:, labels] = weights
        if not steep.any():
            break
        labels, targets = labels[steep], targets[:, steep]  # the others are done
        weights, logits, slope = weights[:, steep], logits[:, steep], slope[:, steep]
        said = logits.sigmoid()
        way = _way(rough, C * said * (1 - said), spectrum, penalty, slope)
        along, down, before = rows @ way, (way * slope).sum(dim=0), loss(logits, weights)
        step = torch.ones_like(before)
        for _ in range(_HALVINGS):
            after = loss(logits + step * along, weights + step * way)
            worse = after > before + 1e-4 * step * down + 1e-12 * before  # beyond rounding
            if not worse.any():
                break
            step = torch.where(worse, step / 2, step)
        weights, logits = weights + step * way, logits + step * along
    return found


def _way(
    rough: Float[Tensor, "clip axis"],
    bend: Float[Tensor, "clip label"],
    spectrum: Float[Tensor, "axis 1"],
    penalty: Float[Tensor, "axis 1"],
    slope: Float[Tensor, "axis label"],
) -> Float[Tensor, "axis label"]:
    """Return the way to where the slope, as it bends here, would end: conjugate gradients to a third of it."""
    inverse = 1 / (
        bend.mean(dim=0) * spectrum + penalty
    )  # of the Hessian's diagonal, were all clips to bend alike
    curved, way, left = bend.float(), torch.zeros_like(slope), -slope
    ahead = inverse * left
    size = first = (left * ahead).sum(dim=0)
    for _ in range(_CONJUGATE):
        turned = (rough.T @ (curved * (rough @ ahead.float()))).double() + penalty * ahead
        step = size / (ahead * turned).sum(dim=0).clamp(min=1e-300)
        way, left = way + step * ahead, left - step * turned
        scaled = inverse * left
        before, size = size, (left * scaled).sum(dim=0)
        if (size <= 0.1 * first).all():
            break
        ahead = scaled + size / before.clamp(min=1e-300) * ahead
    return way
