"""Bootstrap intervals over clips: how far a figure may be off because the scored clips are a sample."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from melpatch.rng import hash_text

NUM_RESAMPLES = 1000
# Weights at a time: 64 MiB of them. A set of AudioSet's size is drawn 400 times at once.
_MOST_WEIGHTS = 1 << 23


def bootstrap(
    metric: Callable[[Float[np.ndarray, "resample clip"]], Float[np.ndarray, " resample"]],
    num_clips: int,
    seed: int,
) -> Float[np.ndarray, " resample"]:
    """Return a metric's values over 1000 draws of the clips with replacement (Efron 1979).

    Args:
        metric: takes rows of clip weights (how often each clip was drawn) and returns one value per
            row; nan where a draw leaves it undefined.
        num_clips: how many clips there are.
        seed: the same seed draws the same clips.
    """
    generator = np.random.default_rng(hash_text(f"{seed}/bootstrap") % 2**64)
    # How often each of n clips is drawn in n draws with replacement is multinomial with equal chances.
    chances = np.full(num_clips, 1 / num_clips)
    values = []
    at_once = max(1, _MOST_WEIGHTS // num_clips)
    for first in range(0, NUM_RESAMPLES, at_once):
        draws = min(at_once, NUM_RESAMPLES - first)
        weights = generator.multinomial(num_clips, chances, size=draws).astype(np.float64)
        values.append(metric(weights))
    return np.concatenate(values)


def percentile_interval(values: Float[np.ndarray, " resample"]) -> list[float] | None:
    """Return the ends of the 95 % percentile interval of resampled values; None if no value is defined."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return [float(low), float(high)]
