"""Embedding in batches of one and more: eager, compiled, and compiled with CUDA graphs.

    python benchmarks/cuda_graphs.py [--size tiny] [--batch-size 1 8 64]

A small batch spends its time on launching kernels, which a graph launches together. Prints one JSON line per way and
size of the batch. On a processor torch has no graphs, and the two compiled ways are the same.
"""

import json
import time
from dataclasses import dataclass
from typing import Literal

import torch
import tyro
from speed import synchronise

from melpatch.encoders.vit import ViT

MODES = {"compiled": "default", "graphs": "reduce-overhead"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to time."""

    ways: tuple[Literal["eager", "compiled", "graphs"], ...] = ("eager", "compiled", "graphs")
    """Ways to run the encoder."""
    size: str = "tiny"
    """The encoder."""
    batch_size: tuple[int, ...] = (1, 8, 64)
    """Clips at a time."""
    frames: int = 1024
    """Frames of a clip, about ten milliseconds each."""
    steps: int = 20
    """Batches that are timed, after three to warm up."""


def main(config: Config) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = ViT(size=config.size).to(device).eval()
    for way in config.ways:
        # Each size is compiled for itself, since a graph holds one shape.
        torch.compiler.reset()
        run = encoder if way == "eager" else torch.compile(encoder, mode=MODES[way], dynamic=False)
        for clips in config.batch_size:
            seconds = timed(run, torch.randn(clips, 128, config.frames).to(device), config)
            record = {"task": "embed", "size": config.size, "precision": "bf16", "way": way}
            record |= {"batch_size": clips, "clips_per_second": round(clips / seconds, 3)}
            print(json.dumps(record | {"device": str(device)}), flush=True)


def timed(run: torch.nn.Module, spectrograms: torch.Tensor, config: Config) -> float:
    """Return the seconds of a batch."""
    device = spectrograms.device
    began = 0.0
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
        for step in range(3 + config.steps):
            if step == 3:
                synchronise(device)
                began = time.perf_counter()
            run(spectrograms)
        synchronise(device)
    return (time.perf_counter() - began) / config.steps


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
