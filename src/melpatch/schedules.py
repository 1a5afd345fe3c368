"""Numbers that change in the course of a run: learning rate, weight decay, momentum, temperature."""

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "step", "constant", "dino"]


def ramp(start: float, end: float, done: float) -> float:
    """Return the value on a straight line from ``start``, where ``done`` is 0, to ``end``, where it is 1 or more."""
    return start + (end - start) * min(max(done, 0.0), 1.0)


def cosine(start: float, end: float, done: float) -> float:
    """Return the value on half a cosine from ``start``, where ``done`` is 0, to ``end``, where it is 1 or more."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))


def factor(
    step: int,
    total: int,
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
        step: how many steps lie behind, 0 to ``total - 1``.
        total: steps of the whole run.
        schedule: ``cosine`` falls from 1 to ``floor`` after the warm-up, ``linear`` does so on a straight line;
            ``step`` is multiplied with ``decay`` at ``decay_start`` and every ``decay_every`` after it; ``constant``
            stays. These four take the rate of the middle of the step. ``dino`` is the cosine to the step as the
            published code of DINO (Caron et al. 2021, arXiv 2104.14294) and ASiT has it: 0 in the first step, 1 in the
            last of the warm-up and in the one after it, ``floor`` not quite reached.
        warmup: share of the run over which the rate rises linearly from near 0.
        floor: where a cosine or line ends, as a factor.
        decay_start: share of the run at which ``step`` decays first.
        decay_every: share of the run between decays.
        decay: factor of each decay.
    """
    if schedule == "dino":
        rising = round(warmup * total)
        if step < rising:
            return ramp(0.0, 1.0, step / max(rising - 1, 1))
        return cosine(1.0, floor, (step - rising) / (total - rising))
    done = (step + 0.5) / total
    if done < warmup:
        return ramp(0.0, 1.0, done / warmup)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return cosine(1.0, floor, (done - warmup) / (1 - warmup))
    if schedule == "linear":
        return ramp(1.0, floor, (done - warmup) / (1 - warmup))
    if done < decay_start:
        return 1.0
    return float(decay ** (1 + math.floor((done - decay_start) / decay_every + 1e-9)))
