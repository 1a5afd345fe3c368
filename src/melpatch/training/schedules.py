"""Learning-rate schedules: a factor of the base rate as a function of the share of the run that is done."""

import math
from typing import Literal

Schedule = Literal["cosine", "step", "constant"]


def factor(
    done: float,
    *,
    schedule: Schedule,
    warmup: float,
    floor: float,
    decay_start: float,
    decay_every: float,
    decay: float,
) -> float:
    """Return what to multiply the base learning rate with.

    Args:
        done: share of the run that lies behind, in [0, 1].
        schedule: ``cosine`` falls from 1 to ``floor`` after the warm-up; ``step`` is multiplied with ``decay`` at
            ``decay_start`` and every ``decay_every`` after it; ``constant`` stays.
        warmup: share of the run over which the rate rises linearly from near 0.
        floor: where a cosine ends, as a factor.
        decay_start: share of the run at which ``step`` decays first.
        decay_every: share of the run between decays.
        decay: factor of each decay.
    """
    if done < warmup:
        return done / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        phase = (done - warmup) / max(1 - warmup, 1e-9)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(phase, 1.0)))
    if done < decay_start:
        return 1.0
    return float(decay ** (1 + math.floor((done - decay_start) / decay_every + 1e-9)))
