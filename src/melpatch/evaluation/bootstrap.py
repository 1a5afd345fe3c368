"""How far a figure may be off because the evaluated clips are a sample: bootstrap intervals over clips."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from melpatch.rng import hash_text

RESAMPLES = 1000
_AT_ONCE = 100  # bounds the memory of a set the size of AudioSet's to some ten MB


def interval(
    metric: Callable[[Float[np.ndarray, "resample clip"]], Float[np.ndarray, " resample"]], clips: int, seed: int
) -> list[float] | None:
    """Return the 95 % percentile interval of a metric over clips drawn with replacement (Efron 1979).

    Args:
        metric: takes rows of clip weights, which say how often each clip was drawn, and returns one value per row; nan
            where a draw leaves it undefined.
        clips: how many clips there are.
        seed: the same seed draws the same clips.

    Returns:
        The lower and the upper end, or None if no draw gives a value.
    """
    generator = np.random.default_rng(hash_text(f"{seed}/bootstrap") % 2**64)
    even = np.full(clips, 1 / clips)
    draws = (generator.multinomial(clips, even, size=_AT_ONCE).astype(np.float64) for _ in range(RESAMPLES // _AT_ONCE))
    values = np.concatenate([metric(weights) for weights in draws])
    values = values[~np.isnan(values)]
    return [float(end) for end in np.quantile(values, [0.025, 0.975])] if len(values) else None
