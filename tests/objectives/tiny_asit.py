"""A tiny ASiT, and noise for it."""

import torch

from melpatch.audio.logmel import LogMel
from melpatch.data.clip import Batch
from melpatch.encoders.vit import ViT
from melpatch.nn.corruption import Corruption
from melpatch.nn.self_distillation import SelfDistillation
from melpatch.objectives.asit import ASiT
from melpatch.objectives.base import Plan
from melpatch.training.config import RunConfig, build

RATE, PATCH = 8000, 8
FRAMES = (48, 20, 31, 5)
"""Of the clips: longer and shorter than a view, than a crop, and than a patch."""
STEP = 2
HEADS = SelfDistillation.Config(
    global_prototypes=12,
    local_prototypes=10,
    hidden_dim=16,
    bottleneck_dim=8,
    momentum=0.9,
    freeze_prototypes=0.0,
    temperature_warmup=0.5,
)
OWN = Corruption.Config(alien_probability=0.0)


def samples(frames):
    return 200 + 80 * (frames - 1)


def seconds(frames):
    return samples(frames) / RATE


LONGEST = seconds(max(FRAMES))


def asit(front_end=None, encoder=None, seed=0, **settings):
    """A tiny ASiT, in double precision so that differences are not rounding; views of 24 frames and crops of 12."""
    tiny = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch": (PATCH, PATCH)}
    chosen = {
        "view_seconds": seconds(24),
        "local_crop_seconds": seconds(12),
        "decoder": (16, 8),
        "distillation": HEADS,
    }
    config = RunConfig(
        seed=seed,
        front_end=LogMel.Config(
            **({"sample_rate": RATE, "n_mels": 32, "scale": 1.0} | (front_end or {}))
        ),
        encoder=ViT.Config(**(tiny | (encoder or {}))),
        objective=ASiT.Config(**(chosen | settings)),
    )
    return build(config).double()


def plan(longest=LONGEST):
    return Plan(steps=10, batch_size=4, seconds=longest, longest_segment=longest)


def begun(**settings):
    """In the middle of a run: teacher and student differ, the centres are not 0, and no number is small."""
    objective, generator = asit(**settings), torch.Generator().manual_seed(0)
    objective.begin(plan())
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter += 0.2 * torch.randn(
                parameter.shape, generator=generator, dtype=parameter.dtype
            )
        for buffer in (
            value for name, value in objective.named_buffers() if name.endswith("centre")
        ):
            buffer += 0.2 * torch.randn(buffer.shape, generator=generator, dtype=buffer.dtype)
    return objective


def batch(frames=FRAMES):
    """Coloured noise of several lengths, zeros after their ends."""
    lengths = torch.tensor([samples(count) for count in frames])
    noise = torch.randn(
        len(frames), int(lengths.max()), generator=torch.Generator().manual_seed(0)
    ).double()
    inside = torch.arange(noise.shape[1]) < lengths[:, None]
    return Batch(0.1 * noise.cumsum(dim=1) * inside, lengths, torch.arange(7, 7 + len(frames)))
