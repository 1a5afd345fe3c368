"""Schedules of the learning rate, weight decay, momentum and temperature."""

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "step", "constant", "dino"]


def ramp(start: float, end: float, done: float) -> float:
    """Return the value on a line from ``start`` at ``done`` = 0 to ``end`` at ``done`` = 1.

    Before and after, the value is constant.
    """
    return start + (end - start) * min(max(done, 0.0), 1.0)


def cosine(start: float, end: float, done: float) -> float:
    """Return the value on half a cosine from ``start`` at ``done`` = 0 to ``end`` at ``done`` = 1.

    Before and after, the value is constant.
    """
    # end + (start - end) * (1 + cos(pi * done)) / 2
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(max(done, 0.0), 1.0)))


def lr_factor(
    step: int,
    total: int,
    *,
    schedule: Schedule,
    warmup: float,
    floor: float,
    step_start: float,
    step_every: float,
    step_factor: float,
) -> float:
    """Return the factor of the base learning rate at a step.

    After the warm-up, ``cosine`` and ``linear`` fall from 1 to ``floor``, ``step`` is multiplied by
    ``step_factor`` at ``step_start`` and every ``step_every`` after it, and ``constant`` stays at
    1. These four are evaluated in the middle of the step. ``dino`` is the cosine as the published
    code of DINO (Caron et al. 2021, arXiv 2104.14294) and ASiT computes it: 0 in the first step, 1
    in the last step of the warm-up and in the next one, and slightly above ``floor`` at the end.

    Args:
        step: steps done before, 0 to ``total - 1``.
        total: steps of the whole run.
        schedule: shape of the curve.
        warmup: share of the run over which the rate rises linearly from near 0.
        floor: end of a cosine or line, as a factor.
        step_start: share of the run at which ``step`` first decays.
        step_every: share of the run between decays.
        step_factor: factor of each decay.
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
    if done < step_start:
        return 1.0
    # 1e-9 makes up for rounding when a step lies exactly on a decay.
    decays = 1 + math.floor((done - step_start) / step_every + 1e-9)
    return float(step_factor**decays)
