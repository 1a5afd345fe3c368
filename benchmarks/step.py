"""Time and peak memory of one pretraining step, beside the rate of a plain matrix product on the same machine.

    python benchmarks/step.py [--sizes tiny small] [--precisions 32-true bf16-mixed] [--seconds 10] [--batch-size 8]
    python benchmarks/step.py --recipes ssast mae_ast cola --sizes tiny --seconds 3 --steps 8
    python benchmarks/step.py --recipe asit_2023 --sizes small --batch-size 4 8 --parts

Prints one JSON line per setting. CPU seconds count all threads. Each setting runs in a process of its own, so that peak
memory is its own too. Several recipes take their steps in turns, so that what else the machine does hits all alike; the
ratio is that of their CPU seconds to those of the first. ``--parts`` adds where an ASiT step's seconds go: what is left
of the whole after the forward parts is the backward pass, the optimiser and the teacher's movement.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from statistics import median
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
import tyro
from lightning_fabric import Fabric

from melpatch.data.clip import Batch
from melpatch.objectives.base import Objective, Plan
from melpatch.recipes.base import recipe
from melpatch.training.config import build
from melpatch.training.launching import memory_gib
from melpatch.training.stepping import make_optimizer


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to time."""

    recipes: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--recipe"])] = ("ssast",)
    """Recipes or objectives."""
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


class Setting(NamedTuple):
    """What a process times."""

    recipe: str
    size: str
    precision: str
    clip_seconds: float
    batch_size: int
    steps: int
    parts: bool


def main(config: Config) -> None:
    for size, precision, batch_size in product(config.sizes, config.precisions, config.batch_size):
        rest = (size, precision, config.seconds, batch_size, config.steps, config.parts)
        for record in in_turns([Setting(name, *rest) for name in config.recipes]):
            print(json.dumps(record), flush=True)


def in_turns(settings: list[Setting]) -> Iterator[dict[str, Any]]:
    """Yield a record per setting, each in a process of its own, after all have taken their steps in turns."""
    with ExitStack() as stack:
        turns = [(stack.enter_context(one_process()), setting) for setting in settings]
        for future in [process.submit(prepare, setting) for process, setting in turns]:
            future.result()
        for step, (process, setting) in product(range(settings[0].steps + 1), turns):
            process.submit(take, setting, step).result()
        first = 0.0
        for process, setting in turns:
            record = process.submit(report, setting).result()
            first = first or record["cpu_seconds_per_clip"]
            yield record | {"ratio": round(record["cpu_seconds_per_clip"] / first, 3)}


def one_process() -> Executor:
    return ProcessPoolExecutor(1, get_context("spawn"))  # a fork would inherit the threads of torch


steppers: "dict[Setting, Stepper]" = {}
"""What a process times, between its turns."""


def prepare(setting: Setting) -> None:
    steppers[setting] = Stepper(setting)


def take(setting: Setting, step: int) -> None:
    steppers[setting].take(step)


def report(setting: Setting) -> dict[str, Any]:
    return steppers[setting].report()


class Stepper:
    """An objective on made-up sound, and what its steps took."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        config = recipe(setting.recipe)(setting.size)
        config = replace(config, loader=replace(config.loader, seconds=setting.clip_seconds))
        self.objective = build(config)
        clips, seconds = setting.batch_size, setting.clip_seconds
        self.objective.begin(Plan(setting.steps + 1, clips, seconds, seconds))
        self.fabric = Fabric(devices=1, precision=setting.precision)  # type: ignore[arg-type]
        self.module, self.optimizer = self.fabric.setup(self.objective, make_optimizer(self.objective, config.train))
        samples = round(seconds * self.objective.front_end.sample_rate)
        batch = Batch(torch.randn(clips, samples) * 0.1, torch.full((clips,), samples), torch.arange(clips))
        self.batch = batch.to(self.fabric.device)
        self.parts = Parts(self.objective if setting.parts else None)
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def take(self, step: int) -> None:
        self.parts.seconds.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        output = self.module(self.batch, step)
        self.fabric.backward(output.loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.objective.after_step(step)
        synchronise(self.fabric.device)
        if step:
            self.wall.append(time.perf_counter() - wall)
            self.cpu.append(time.process_time() - cpu)

    def report(self) -> dict[str, Any]:
        setting, device = self.setting, self.fabric.device
        return {
            "recipe": setting.recipe,
            "size": setting.size,
            "precision": setting.precision,
            "clip_seconds": setting.clip_seconds,
            "batch_size": setting.batch_size,
            "threads": torch.get_num_threads(),
            "device": str(device),
            "seconds_per_step": round(min(self.wall), 3),
            "cpu_seconds_per_clip": round(min(self.cpu) / setting.batch_size, 5),
            "median_cpu_seconds_per_clip": round(median(self.cpu) / setting.batch_size, 5),
            "peak_memory_mib": round(memory_gib() * 1024),
            "matmul_gflops": round(ceiling(setting.precision, device)),
            **self.parts.record(),
        }


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
