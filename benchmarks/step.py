"""Time and peak memory of one pretraining step, beside the rate of a plain matrix product on the same machine.

    python benchmarks/step.py [--sizes tiny small] [--precisions 32-true bf16-mixed] [--seconds 10] [--batch-size 8]
    python benchmarks/step.py --recipe asit_2023 --sizes small --batch-size 4 8 --parts

Prints one JSON line per setting. CPU seconds count all threads. Each setting runs in a process of its own, so that peak
memory is its own too. ``--parts`` adds where an ASiT step's seconds go: what is left of the whole after the forward
parts is the backward pass, the optimiser and the teacher's movement.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar

import torch
import tyro
from lightning_fabric import Fabric

from melpatch.data.clip import Batch
from melpatch.objectives.base import Objective, Plan
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
    batch_size: tuple[int, ...] = (8,)
    """Clips per step."""
    steps: int = 3
    """Timed steps, after one to warm up; the fastest counts."""
    parts: bool = False
    """Tell the parts of an ASiT step apart."""
    inner: bool = False
    """Used by the script itself."""


def main(config: Config) -> None:
    if config.inner:
        measure(config)
        return
    for size, precision, batch_size in product(config.sizes, config.precisions, config.batch_size):
        words = ["--recipe", config.recipe, "--sizes", size, "--precisions", precision, "--inner"]
        words += ["--seconds", f"{config.seconds}", "--batch-size", f"{batch_size}", *["--parts"] * config.parts]
        subprocess.run([sys.executable, __file__, *words, "--steps", f"{config.steps}"], check=True)


def measure(config: Config) -> None:
    size, precision, clips = config.sizes[0], config.precisions[0], config.batch_size[0]
    settings = recipe(config.recipe)(size)
    settings = replace(settings, loader=replace(settings.loader, seconds=config.seconds))
    objective = build(settings)
    objective.begin(Plan(config.steps + 1, clips, config.seconds, config.seconds))
    fabric = Fabric(devices=1, precision=precision)  # type: ignore[arg-type]
    module, optimizer = fabric.setup(objective, make_optimizer(objective, settings.train))
    samples = round(config.seconds * objective.front_end.sample_rate)
    wave = torch.randn(clips, samples) * 0.1
    lengths = torch.full((clips,), samples)
    batch = Batch(wave, lengths, torch.arange(clips)).to(fabric.device)
    best_wall, best_cpu, parts = float("inf"), float("inf"), Parts(objective if config.parts else None)
    for step in range(config.steps + 1):
        parts.seconds.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        output = module(batch, step)
        fabric.backward(output.loss)
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(step)
        synchronise(fabric.device)
        if step:
            best_wall = min(best_wall, time.perf_counter() - wall)
            best_cpu = min(best_cpu, time.process_time() - cpu)
    record = {
        "recipe": config.recipe,
        "size": size,
        "precision": precision,
        "clip_seconds": config.seconds,
        "batch_size": clips,
        "threads": torch.get_num_threads(),
        "device": str(fabric.device),
        "seconds_per_step": round(best_wall, 3),
        "cpu_seconds_per_clip": round(best_cpu / clips, 4),
        "peak_memory_mib": round(memory_gib() * 1024),
        "matmul_gflops": round(ceiling(precision, fabric.device)),
        **parts.record(),
    }
    print(json.dumps(record), flush=True)


class Parts:
    """Seconds (of the CPU, or on a GPU of the wall) that the forward parts of an ASiT step took, of its last step."""

    METHODS: ClassVar[dict[str, str]] = {
        "views": "views",
        "teacher": "_tell",
        "reconstruction": "rebuild",
        "local_head_and_loss": "agree",
        "global_head_and_loss": "recognise",
    }

    def __init__(self, objective: Objective | None) -> None:
        self.seconds: dict[str, float] = {}
        if objective is not None:
            for part, name in self.METHODS.items():
                setattr(objective, name, self.timed(part, getattr(objective, name)))
            objective.encoder.forward = self.timed("student", objective.encoder.forward)

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            device = next(flat(arguments)).device
            clock = time.perf_counter if device.type == "cuda" else time.process_time
            synchronise(device)
            start = clock()
            result = function(*arguments)
            synchronise(device)
            self.seconds[part] = self.seconds.get(part, 0.0) + clock() - start
            return result

        return call

    def record(self) -> dict[str, dict[str, float]]:
        return {"parts": {part: round(seconds, 4) for part, seconds in self.seconds.items()}} if self.seconds else {}


def flat(values: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested tuples and dataclasses."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | Batch):
            yield from flat(value if isinstance(value, tuple) else vars(value).values())


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def ceiling(precision: str, device: torch.device) -> float:
    """Return the rate of a large matrix product in the same arithmetic, in GFLOP/s."""
    kind = torch.bfloat16 if "bf16" in precision else torch.float32
    a, b = (torch.randn(2048, 2048, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        a @ b
        synchronise(device)
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best / 1e9


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
