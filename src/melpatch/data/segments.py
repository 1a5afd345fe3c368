"""Segments of clips: a random crop for training."""

import dataclasses

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
