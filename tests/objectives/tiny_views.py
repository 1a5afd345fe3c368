"""Tiny objectives that compare parts of clips; their noise is that of ASiT's tests."""

from objectives.tiny_asit import PATCH, RATE, seconds

from melpatch.audio.logmel import LogMel
from melpatch.encoders.vit import ViT
from melpatch.objectives.base import Plan
from melpatch.training.config import RunConfig, build

FRAMES = (48, 20, 31, 36)
"""Of the clips of a batch."""
ENCODER = ViT.Config(embed_dim=16, depth=2, num_heads=2, patch=(PATCH, PATCH))


def plan_of(frames=FRAMES):
    """Return the plan of a run on clips of so few frames."""
    longest = seconds(max(frames))
    return Plan(steps=20, batch_size=4, seconds=longest, longest_segment=longest)


PLAN = plan_of()


def config(objective, encoder=ENCODER):
    """Return the settings of a run."""
    front_end = LogMel.Config(sample_rate=RATE, n_mels=32, scale=1.0)
    return RunConfig(front_end=front_end, encoder=encoder, objective=objective)


def begun(objective, encoder=ENCODER, plan=PLAN):
    """Return an objective that training has begun with, in double precision, so that differences are not rounding."""
    made = build(config(objective, encoder)).double()
    made.begin(plan)
    return made
