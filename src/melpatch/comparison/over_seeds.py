"""The uncertainty of a mean over seeds."""

from collections.abc import Sequence
from statistics import stdev

from scipy.stats import t as student

FEWEST_SEEDS = 3
"""Seeds from which on an interval over seeds is given."""


def half_interval(values: Sequence[float]) -> float | None:
    """Return half the 95 % interval of the mean over seeds; None for fewer than FEWEST_SEEDS."""
    if len(values) < FEWEST_SEEDS:
        return None
    # Student's t with n - 1 degrees of freedom: t * s / sqrt(n).
    quantile = float(student.ppf(0.975, len(values) - 1))
    half: float = quantile * stdev(values) / len(values) ** 0.5
    return half
