"""Which seconds of a clip are used: a random crop for training, all windows in order for evaluation."""

import dataclasses
from collections.abc import Iterator

import torch

from melpatch.data.clip import Clip
from melpatch.rng import stream, uniform


def crop(clip: Clip, seconds: float, seed: int, epoch: int) -> Clip:
    """Return a part of the clip of at most ``seconds``, placed by (seed, clip key, epoch) alone; its key stays."""
    spare = clip.duration - seconds
    if spare <= 0:
        return clip
    share = uniform(stream(seed, "crop", torch.tensor([clip.key]), epoch), 1).item()
    return dataclasses.replace(clip, start=clip.start + spare * share, duration=seconds)


def windows(clip: Clip, seconds: float, hop: float | None = None) -> Iterator[Clip]:
    """Yield the parts of ``seconds`` that cover the clip, ``hop`` seconds apart (default: end to end); the last may be
    shorter."""
    start, hop = 0.0, hop or seconds
    while True:
        yield dataclasses.replace(clip, start=clip.start + start, duration=min(seconds, clip.duration - start))
        if start + seconds >= clip.duration - 1e-6:
            return
        start += hop
