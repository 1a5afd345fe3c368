"""How far a figure may be off because the evaluated clips are a sample: bootstrap intervals over clips."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from melpatch.rng import hash_text

RESAMPLES = 1000
_AT_ONCE = 100  # bounds the memory of a set the size of AudioSet's to some ten MB


def resampled(
    metric: Callable[[Float[np.ndarray, "resample clip"]], Float[np.ndarray, " resample"]],
    clips: int,
    seed: int,
) -> Float[np.ndarray, " resample"]:
    """Return a metric's values over 1000 draws of clips with replacement (Efron 1979).

    Args:
        metric: takes rows of clip weights, which say how often each clip was drawn, and returns one value per row; nan
            where a draw leaves it undefined.
        clips: how many clips there are.
        seed: the same seed draws the same clips.
    """
    generator = np.random.default_rng(hash_text(f"{seed}/bootstrap") % 2**64)
    even = np.full(clips, 1 / clips)
    draws = (
        generator.multinomial(clips, even, size=_AT_ONCE).astype(np.float64)
        for _ in range(RESAMPLES // _AT_ONCE)
    )
    return np.concatenate([metric(weights) for weights in draws])


def interval(values: Float[np.ndarray, " resample"]) -> list[float] | None:
    """Return the lower and the upper end of the 95 % percentile interval of resampled values, or None if none is
    defined."""
    values = values[~np.isnan(values)]
    return [float(end) for end in np.quantile(values, [0.025, 0.975])] if len(values) else None
