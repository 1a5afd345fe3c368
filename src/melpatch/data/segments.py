"""Segments of clips: a random crop for training, consecutive windows for evaluation."""

import dataclasses
import math
from collections.abc import Iterator

import torch

from melpatch.data.clip import Clip
from melpatch.rng import stream, uniform


def crop(clip: Clip, seconds: float, seed: int, epoch: int) -> Clip:
    """Return a crop of at most ``seconds`` with the same key, placed by (seed, key, epoch) alone."""
    spare = clip.duration - seconds
    if spare <= 0:
        return clip
    share = uniform(stream(seed, "crop", torch.tensor([clip.key]), epoch), 1).item()
    return dataclasses.replace(clip, start=clip.start + spare * share, duration=seconds)


def windows(clip: Clip, seconds: float) -> Iterator[Clip]:
    """Yield consecutive windows of ``seconds`` that cover the clip; the last may be shorter."""
    # The tolerance avoids a window of a fraction of a sample due to rounding.
    for number in range(max(1, math.ceil((clip.duration - 1e-6) / seconds))):
        start = number * seconds
        duration = min(seconds, clip.duration - start)
        yield dataclasses.replace(clip, start=clip.start + start, duration=duration)
