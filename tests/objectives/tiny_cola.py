"""A tiny COLA; its noise is that of ASiT's tests."""

from objectives.tiny_asit import FRAMES, PATCH, RATE, seconds

from melpatch.audio.logmel import LogMel
from melpatch.encoders.vit import ViT
from melpatch.objectives.base import Plan
from melpatch.objectives.cola import COLA
from melpatch.training.config import RunConfig, build

CROP = 24
"""Frames of a crop."""
LONGEST = seconds(max(FRAMES))


def config(front_end=None, encoder=None, seed=0, **settings):
    """Return a run of crops of 24 frames."""
    tiny = ViT.Config(embed_dim=16, depth=2, num_heads=2, patch=(PATCH, PATCH))
    return RunConfig(
        seed=seed,
        front_end=LogMel.Config(
            **({"sample_rate": RATE, "n_mels": 32, "scale": 1.0} | (front_end or {}))
        ),
        encoder=encoder or tiny,
        objective=COLA.Config(
            **({"crop_seconds": seconds(CROP), "max_crop_ratio": 1.0, "projection": 6} | settings)
        ),
    )


def cola(**settings):
    """Return an objective in double precision, so that differences are not rounding."""
    return build(config(**settings)).double()


def plan(**changes):
    return Plan(steps=10, batch_size=4, seconds=LONGEST, longest_segment=LONGEST)._replace(
        **changes
    )
