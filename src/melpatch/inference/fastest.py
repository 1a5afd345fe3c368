"""Which arithmetic is faster on this machine, by a measurement of a second or so, and how near it is.

The network embeds a second of noise in float32 and in bfloat16. CPU time counts, or on a GPU time by
the clock, the least of some passes; bfloat16 is taken where it saves a tenth at least. Where it takes
twice as long, as on processors without products in bfloat16, one pass shows it.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_PASSES = 3
_GAIN = 0.9
_HOPELESS = 2.0


class Measured(NamedTuple):
    """What the two arithmetics took, and how much their vectors agree."""

    float32_seconds: float
    bf16_seconds: float
    cosine: float
    """Least cosine of a vector in bfloat16 with that in float32."""

    @property
    def bf16_is_faster(self) -> bool:
        """Whether bfloat16 saves enough to be taken."""
        return self.bf16_seconds < _GAIN * self.float32_seconds

    def __str__(self) -> str:
        """Return the finding in one line."""
        chosen = "bf16-mixed" if self.bf16_is_faster else "32-true"
        times = self.float32_seconds / self.bf16_seconds
        return (
            f"precision {chosen}: here bf16 is {times:.2g} times as fast as float32, "
            f"and the cosine of their vectors {self.cosine:.5f}"
        )


def measure(
    float32: Callable[[], Float[Tensor, "clip dim"]],
    bf16: Callable[[], Float[Tensor, "clip dim"]],
    device: torch.device,
) -> Measured:
    """Return how long each of two ways to the same vectors takes; they take turns."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    seconds: dict[str, list[float]] = {"float32": [], "bf16": []}
    vectors: dict[str, np.ndarray] = {}
    # The first pass of each warms it up.
    for passes in range(_PASSES + 1):
        for name, way in (("float32", float32), ("bf16", bf16)):
            began = clock()
            vectors[name] = way().float().cpu().numpy()  # which waits for a GPU
            seconds[name].append(clock() - began)
        if passes == 1 and seconds["bf16"][1] > _HOPELESS * seconds["float32"][1]:
            break
    exact, fast = vectors["float32"], vectors["bf16"]
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(fast, axis=1)
    cosine = float(((exact * fast).sum(axis=1) / lengths).min())
    return Measured(min(seconds["float32"][1:]), min(seconds["bf16"][1:]), cosine)
