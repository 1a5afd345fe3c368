"""Small runs that fit what they are exported to, with random weights that differ from those at the start."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.inference.model import Model, load
from melpatch.objectives.classify import Classify
from melpatch.objectives.ssast import SSAST
from melpatch.training.config import RunConfig, build
from melpatch.training.run import Run

LABELS = ("Rain, on a roof", "Dog", "Speech")
GRID = {"stride": (10, 10), "partial": "drop", "positions": "learned", "columns": 12}


def ast(labels=LABELS, *, front_end=None, objective=None, **encoder) -> RunConfig:
    """A classifier, or without labels an SSAST run, of AST's shape: 128 frames, 12 x 12 patches."""
    front = {"padding": "legacy", "target_frames": 128, "mean": -6.8, "std": 5.5}
    small = {"embed_dim": 24, "depth": 2, "num_heads": 3, "cls_tokens": 2}
    head = Classify.Config(**{"pooling": "cls"} | (objective or {}))
    return RunConfig(
        labels=labels,
        front_end=LogMel.Config(**front | (front_end or {})),
        encoder=ViT.Config(**small | GRID | encoder),
        objective=head if labels else SSAST.Config(num_masked=2),
        loader=LoaderConfig(seconds=1.295, workers=0),
    )


def ssast() -> RunConfig:
    """A pretraining run of SSAST's shape, 8 x 8 patches."""
    return ast((), stride=None, columns=8)


def with_seconds(config: RunConfig, seconds: float) -> RunConfig:
    """Return the run with segments of another length."""
    return replace(config, loader=replace(config.loader, seconds=seconds))


def write_run(folder: Path, config: RunConfig, weights=None) -> Model:
    """Write a run whose weights are changed at random, or are those given; return its model."""
    objective = build(config)
    generator = torch.Generator().manual_seed(5)
    for parameter in objective.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 0.2 * noise
    if weights is not None:
        objective.load_state_dict(weights)
    run = Run.create(folder, config)
    with run.checkpoints:
        run.publish(objective.state_dict())
    run.log({"step": 1, "loss": 1.0})
    return load(folder)


def sound(seconds: float, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """A tone that is followed by noise, in float32."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    noise = 0.1 * rng.standard_normal(len(time)) * (time > seconds / 2)
    return (0.3 * np.sin(2 * np.pi * 440 * time) + noise).astype(np.float32)
