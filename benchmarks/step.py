"""Time and peak memory of one pretraining step, beside the rate of a plain matrix product on the same machine.

    python benchmarks/step.py [--sizes tiny small] [--precisions 32-true bf16-mixed] [--seconds 10] [--batch-size 8]

Prints one JSON line per setting. CPU seconds count all threads. Each setting runs in a process of its own, so that peak
memory is its own too.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace

import torch
import tyro
from lightning_fabric import Fabric

from melpatch.data.clip import Batch
from melpatch.recipes.base import recipe
from melpatch.training.config import build
from melpatch.training.loop import make_optimizer, memory_gib


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to time."""

    recipe: str = "ssast"
    """Recipe or objective."""
    sizes: tuple[str, ...] = ("tiny", "small")
    """Encoders."""
    precisions: tuple[str, ...] = ("32-true", "bf16-mixed")
    """Arithmetic."""
    seconds: float = 10.0
    """Length of the clips."""
    batch_size: int = 8
    """Clips per step."""
    steps: int = 3
    """Timed steps, after one to warm up; the fastest counts."""
    inner: bool = False
    """Used by the script itself."""


def main(config: Config) -> None:
    if config.inner:
        measure(config)
        return
    for size in config.sizes:
        for precision in config.precisions:
            words = ["--recipe", config.recipe, "--sizes", size, "--precisions", precision, "--inner"]
            words += ["--seconds", f"{config.seconds}", "--batch-size", f"{config.batch_size}"]
            subprocess.run([sys.executable, __file__, *words, "--steps", f"{config.steps}"], check=True)


def measure(config: Config) -> None:
    size, precision = config.sizes[0], config.precisions[0]
    settings = recipe(config.recipe)(size)
    settings = replace(settings, loader=replace(settings.loader, seconds=config.seconds))
    objective = build(settings)
    objective.check(config.seconds)
    fabric = Fabric(devices=1, precision=precision)  # type: ignore[arg-type]
    module, optimizer = fabric.setup(objective, make_optimizer(objective, settings.train))
    samples = round(config.seconds * objective.front_end.sample_rate)
    wave = torch.randn(config.batch_size, samples) * 0.1
    lengths = torch.full((config.batch_size,), samples)
    batch = Batch(wave, lengths, torch.arange(config.batch_size)).to(fabric.device)
    best_wall, best_cpu = float("inf"), float("inf")
    for step in range(config.steps + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        output = module(batch, step)
        fabric.backward(output.loss)
        optimizer.step()
        optimizer.zero_grad()
        if fabric.device.type == "cuda":
            torch.cuda.synchronize()
        if step:
            best_wall = min(best_wall, time.perf_counter() - wall)
            best_cpu = min(best_cpu, time.process_time() - cpu)
    record = {
        "recipe": config.recipe,
        "size": size,
        "precision": precision,
        "clip_seconds": config.seconds,
        "batch_size": config.batch_size,
        "threads": torch.get_num_threads(),
        "device": str(fabric.device),
        "seconds_per_step": round(best_wall, 3),
        "cpu_seconds_per_clip": round(best_cpu / config.batch_size, 4),
        "peak_memory_mib": round(memory_gib() * 1024),
        "matmul_gflops": round(ceiling(precision, fabric.device)),
    }
    print(json.dumps(record), flush=True)


def ceiling(precision: str, device: torch.device) -> float:
    """Return the rate of a large matrix product in the same arithmetic, in GFLOP/s."""
    kind = torch.bfloat16 if "bf16" in precision else torch.float32
    a, b = (torch.randn(2048, 2048, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best / 1e9


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
