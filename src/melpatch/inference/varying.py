"""Which numbers of vectors vary over clips: the others must not be divided by next to nothing."""

import numpy as np
from jaxtyping import Bool, Float

# Below this share of its own size, or of what the numbers vary by on average, a deviation may be
# rounding: the mean of equal float32 numbers depends on how many there are.
_ROUNDING = 1e-5


def varies(
    mean: Float[np.ndarray, " number"], deviation: Float[np.ndarray, " number"]
) -> Bool[np.ndarray, " number"]:
    """Return which numbers vary by more than rounding.

    A mel bin that is empty, or below the range of a recording, stays at the floor of the log-mel
    spectrogram. Divided by the deviation that rounding gives it, the first sound in it would
    outweigh all others.

    Args:
        mean: of each number over clips.
        deviation: its standard deviation.
    """
    least = _ROUNDING * np.maximum(np.abs(mean), deviation.mean())
    varying: Bool[np.ndarray, " number"] = deviation > least
    return varying
