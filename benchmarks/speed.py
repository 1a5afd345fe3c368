"""Rate, arithmetic and memory of whole steps, beside the rate of a plain matrix product on the same device.

    python benchmarks/speed.py                                     # every task at tiny, a few minutes on two cores
    python benchmarks/speed.py short --tasks ssast mae_ast --sizes tiny base --compile eager compiled --processes 1 2
    python benchmarks/speed.py lengths --plot lengths.png          # cost of a step against the length of clips
    python benchmarks/speed.py aim-ssast                           # beside the published step, on a processor
    python benchmarks/speed.py aim-asit
    python benchmarks/speed.py blocks                              # beside torch's own blocks, on a processor
    python benchmarks/speed.py gpu                                 # what a GPU is to reach

Prints one JSON line per setting. A task is a recipe or an objective, whose step is the one of training: losses,
gradients, clipping, optimiser and teacher; or ``embed``, vectors of clips; or a step as published (published.py), whose
clips are as long as published. Sound is made up and lies on the device.

Each setting has a process of its own, so that peak memory is its own too (with two processes: of the larger). On a
processor those that differ in task or compilation only take their steps in turns, so that what else the machine does
hits all alike. There, ``tflops`` and ``share`` are per CPU second, of all threads; on a GPU, per second by the clock.
Operations are counted (torch's FlopCounterMode: two for a multiplication and an addition; products and attention, no
recomputation), and ``share`` is that of the rate at which this process multiplies two large matrices.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby, product
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import torch
import tyro
from published import MELS, SSAST, ASiT
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch_blocks import give_torch_blocks

from melpatch import distributed
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.inference.model import Model
from melpatch.objectives.base import Plan
from melpatch.plots.base import save, sheet
from melpatch.recipes.base import recipe
from melpatch.training.config import RunConfig, build
from melpatch.training.launching import memory_gib
from melpatch.training.start import fitted
from melpatch.training.stepping import training_step
from melpatch.training.trainer import set_up

Precision = Literal["32-true", "bf16-mixed"]
Way = Literal["eager", "compiled", "torch"]
PUBLISHED = {"ssast_published": SSAST, "asit_published": ASiT}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to time: every combination."""

    tasks: tuple[str, ...] = ("ssast", "asit", "classify", "embed")
    """Recipes or objectives to train, embed, and ssast_published and asit_published, the steps of their releases."""
    sizes: tuple[str, ...] = ("tiny",)
    """Encoders."""
    precisions: tuple[Precision, ...] = ("32-true", "bf16-mixed")
    """Arithmetic."""
    compile: tuple[Way, ...] = ("eager",)
    """Ways to run the encoder; torch: eagerly, with torch.nn.TransformerEncoderLayer for its blocks."""
    processes: tuple[int, ...] = (1,)
    """Processes that train together, with a GPU each where there are GPUs."""
    seconds: tuple[float, ...] = (10.0,)
    """Lengths of the clips."""
    batch_size: tuple[int, ...] = (8,)
    """Clips per step, of all processes."""
    batch_seconds: float | None = None
    """Sound per step, in seconds; as many clips as that takes, instead of batch_size."""
    rounds: int = 3
    """Timed rounds, of which the fastest counts, after one to warm up."""
    steps: int = 1
    """Steps in a round."""
    operators: bool = False
    """Tell which operators one further step spent its time in."""
    plot: Path | None = None
    """PNG file to draw the cost against the length of clips in."""


PRESETS = {
    "short": ("every task at tiny", Config()),
    "full": (
        "every size, way and number of processes",
        Config(sizes=("tiny", "small", "base"), compile=("eager", "compiled"), processes=(1, 2)),
    ),
    "aim-ssast": (
        "SSAST base at 10 s beside the published step: a fifth of its cost in float32, on a processor",
        Config(tasks=("ssast_published", "ssast_patch"), sizes=("base",), batch_size=(4,)),
    ),
    "aim-asit": (
        "ASiT small beside the published step: a third of its cost in float32, on a processor",
        Config(tasks=("asit_published", "asit_2023", "asit"), sizes=("small",), batch_size=(4,)),
    ),
    "blocks": (
        "SSAST tiny and vectors, with our blocks and those of torch",
        Config(tasks=("ssast", "embed"), compile=("eager", "torch")),
    ),
    "lengths": (
        "SSAST tiny on clips of 1 to 60 s",
        Config(
            tasks=("ssast",), seconds=(1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0), batch_seconds=60.0
        ),
    ),
    "gpu": (
        "SSAST, ASiT and vectors in bfloat16, in large batches, on a GPU",
        Config(
            tasks=("ssast", "asit", "classify", "embed"),
            sizes=("tiny", "small", "base"),
            precisions=("bf16-mixed",),
            compile=("eager", "compiled"),
            batch_size=(256,),
            steps=10,
        ),
    ),
}


class Setting(NamedTuple):
    """What some processes time together."""

    size: str
    precision: Precision
    processes: int
    clip_seconds: float
    batch_size: int
    task: str
    way: Way


def main(config: Config) -> None:
    if config.batch_seconds is None:
        loads = list(product(config.seconds, config.batch_size))
    else:
        loads = [
            (seconds, max(1, round(config.batch_seconds / seconds))) for seconds in config.seconds
        ]
    settings = product(
        config.sizes, config.precisions, config.processes, loads, config.tasks, config.compile
    )
    settings = [
        Setting(size, precision, count, *load, task, way)
        for size, precision, count, load, task, way in settings
    ]
    records = []
    # GPUs are nobody else's, and hold no more than one.
    alike = (
        (lambda setting: setting) if torch.cuda.is_available() else (lambda setting: setting[:5])
    )
    for _, group in groupby(settings, key=alike):
        for record in in_turns(list(group), config):
            print(json.dumps(record), flush=True)
            records.append(record)
            if config.plot is not None:
                draw(records, config.plot)


def in_turns(settings: Sequence[Setting], config: Config) -> Iterator[dict[str, Any]]:
    """Yield a record per setting, each in processes of its own, after all have taken their rounds in turns."""
    with ExitStack() as stack:
        teams = [Team(stack, setting, config) for setting in settings]
        for _, team in product(range(config.rounds + 1), teams):
            team.each(take)
        for setting, team in zip(settings, teams, strict=True):
            first, *others = team.each(report)
            yield setting._asdict() | together(first, others, setting.batch_size)


class Team:
    """The processes of a setting."""

    def __init__(self, stack: ExitStack, setting: Setting, config: Config) -> None:
        port = free_port()
        self.ranks = [
            (stack.enter_context(one_process()), (setting, rank))
            for rank in range(setting.processes)
        ]
        self.each(meet, port, config)

    def each(self, function: Any, *arguments: Any) -> list[Any]:
        """Return what a function returns in each process."""
        futures = [process.submit(function, name, *arguments) for process, name in self.ranks]
        return [future.result() for future in futures]


def one_process() -> Executor:
    return ProcessPoolExecutor(1, get_context("spawn"))  # a fork would inherit the threads of torch


def free_port() -> int:
    with socket.socket() as free_socket:
        free_socket.bind(("localhost", 0))
        return int(free_socket.getsockname()[1])


Name = tuple[Setting, int]
steppers: "dict[Name, Stepper]" = {}
"""What a process times, between its turns."""


def meet(name: Name, port: int, config: Config) -> None:
    """Begin, beside the other processes of the setting, as torchrun would have it."""
    setting, rank = name
    if setting.processes > 1:
        variables = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": setting.processes,
            "MASTER_PORT": port,
        }
        os.environ |= {key: str(value) for key, value in variables.items()} | {
            "MASTER_ADDR": "localhost"
        }
        ExitStack().enter_context(distributed.process_group())  # for as long as the process lives
    steppers[name] = Stepper(setting, config)


def take(name: Name) -> None:
    steppers[name].take()


def report(name: Name) -> dict[str, Any]:
    return steppers[name].report()


def together(first: dict[str, Any], others: list[dict[str, Any]], clips: int) -> dict[str, Any]:
    """Return one record of what each process reports, and the rates that follow from it."""
    for other in others:
        first["cpu"] = [sum(pair) for pair in zip(first["cpu"], other["cpu"], strict=True)]
        first["wall"] = [max(pair) for pair in zip(first["wall"], other["wall"], strict=True)]
        first["peak_memory_mib"] = max(first["peak_memory_mib"], other["peak_memory_mib"])
    wall, cpu, ceiling = (first.pop(name) for name in ("wall", "cpu", "ceiling_tflops"))
    seconds = min(cpu) if first["device"] == "cpu" else min(wall) * (1 + len(others))
    tflops = first["gflop_per_clip"] * clips / seconds / 1e3
    return {
        "clips_per_second": round(clips / min(wall), 6),
        "cpu_seconds_per_clip": round(min(cpu) / clips, 9),
        "median_cpu_seconds_per_clip": round(median(cpu) / clips, 9),
        "cpu_seconds_of_rounds": [round(seconds, 9) for seconds in cpu],
        "tflops": round(tflops, 9),
        "ceiling_tflops": round(ceiling, 9),
        "share": round(tflops / ceiling, 6),
        **first,
    }


class Stepper:
    """A task on made-up sound, and what its steps took."""

    def __init__(self, setting: Setting, config: Config) -> None:
        task = (
            Published
            if setting.task in PUBLISHED
            else Embedding
            if setting.task == "embed"
            else Training
        )
        self.setting, self.config, self.task = setting, config, task(setting)
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def count(self) -> float:
        """Return the operations of one clip: a step of two, without compilation and without fused kernels, which the
        counter does not see into."""
        counter = FlopCounterMode(display=False)
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.compiler.set_stance("force_eager"), sdpa_kernel(SDPBackend.MATH), counter:
            self.task.step(self.task.made_up(2))
        torch.backends.mha.set_fastpath_enabled(fused)
        return counter.get_total_flops() / 2 / 1e9

    def take(self) -> None:
        """Take the steps of a round; the first round is the one to warm up in."""
        clips, device = self.setting.batch_size // self.setting.processes, self.task.device
        batch = self.task.made_up(clips)
        synchronise(device)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(self.config.steps):
            self.task.step(batch)
        synchronise(device)
        self.wall.append((time.perf_counter() - wall) / self.config.steps)
        self.cpu.append((time.process_time() - cpu) / self.config.steps)

    def report(self) -> dict[str, Any]:
        """Return what was found; see :func:`together` for what several processes make of it."""
        device, peak = self.task.device, memory_gib()  # before counting, which takes more of it
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        record = {
            "wall": self.wall[1:],
            "cpu": self.cpu[1:],
            "ceiling_tflops": ceiling(self.setting.precision, device),
            "gflop_per_clip": round(self.count(), 4),
            "peak_memory_mib": round(peak * 1024),
            "threads": torch.get_num_threads(),
            "device": name,
        }
        if isinstance(self.task, Published):
            record["clip_seconds"] = (
                self.task.task.frames / 100
            )  # as published, whatever was asked for
        return record | ({"operators": self.operators()} if self.config.operators else {})

    def operators(self) -> dict[str, float]:
        """Return the ten operators that cost most, each with its share of a step."""
        with torch.profiler.profile() as profile:
            self.task.step(self.task.made_up(self.setting.batch_size // self.setting.processes))
            synchronise(self.task.device)
        cost = "self_cpu_time_total" if self.task.device.type == "cpu" else "self_device_time_total"
        spent = {event.key: float(getattr(event, cost)) for event in profile.key_averages()}
        first = sorted(spent, key=spent.__getitem__, reverse=True)[:10]
        return {name: round(spent[name] / sum(spent.values()), 3) for name in first}


class Training:
    """The step of a run."""

    def __init__(self, setting: Setting) -> None:
        config = settings(setting)
        objective, seconds = build(config), setting.clip_seconds
        if setting.way == "torch":
            give_torch_blocks(objective)
        plan = Plan(1000, setting.batch_size, seconds, seconds, world_size=setting.processes)
        self.trainer = set_up(objective, config, plan)
        self.done = 0
        self.device, self.rank, self.config = self.trainer.fabric.device, distributed.rank(), config

    def step(self, batch: Batch) -> None:
        training_step(self.trainer, [batch], self.done)
        self.done += 1

    def made_up(self, clips: int) -> Batch:
        """Return this many clips of noise, on the device."""
        samples = round(self.config.loader.seconds * self.config.front_end.sample_rate)
        keys, classes = clips * self.rank + torch.arange(clips), len(self.config.labels)
        targets = torch.eye(classes)[keys % classes] if classes else None
        batch = Batch(
            torch.randn(clips, samples) * 0.1, torch.full((clips,), samples), keys, targets
        )
        return batch.to(self.device)


class Embedding(Training):
    """Vectors of clips, by the encoder of a run."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.model = Model(self.config, self.trainer.objective, self.device, setting.precision)

    def step(self, batch: Batch) -> None:
        self.model.embed_batch(batch, "mean").cpu()


class Published:
    """A step as published, in one process and without compilation."""

    def __init__(self, setting: Setting) -> None:
        check(setting.way == "eager", "compile", setting.way, f"eager for {setting.task}")
        check(setting.processes == 1, "processes", setting.processes, f"1 for {setting.task}")
        kind = "cuda" if torch.cuda.is_available() else "cpu"
        self.autocast = torch.autocast(
            kind, torch.bfloat16, enabled=setting.precision == "bf16-mixed"
        )
        self.device = torch.device(kind)
        with self.device:
            self.task = PUBLISHED[setting.task](setting.size)

    def step(self, spectrograms: Tensor) -> None:
        with self.device, self.autocast:
            self.task.step(spectrograms)

    def made_up(self, clips: int) -> Tensor:
        """Return this many spectrograms of noise, of the published length."""
        return torch.randn(clips, MELS, self.task.frames, device=self.device) * 0.5


def settings(setting: Setting) -> RunConfig:
    """Return the settings of a run that is such a task."""
    config = recipe("ssast" if setting.task == "embed" else setting.task)(setting.size)
    learns = bool(getattr(config.objective, "augment", None))
    train = replace(
        config.train, precision=setting.precision, compile=setting.way == "compiled", accumulate=1
    )
    loader = replace(config.loader, seconds=setting.clip_seconds, batch_size=setting.batch_size)
    labels = tuple(str(number) for number in range(50)) if learns else ()
    return fitted(replace(config, labels=labels, loader=loader, train=train))


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


@cache
def ceiling(precision: Precision, device: torch.device) -> float:
    """Return the rate of a large matrix product in the same arithmetic, in TFLOP/s: best of some rounds.

    A process measures it once.

    Products on a processor are 2,048 wide, and smaller where the processor is slow in this
    arithmetic, as most are in bfloat16 without instructions for it.
    """
    kind = torch.bfloat16 if "bf16" in precision else torch.float32
    if device.type == "cuda":
        size, products = 8192, 50
    else:
        size, products = 512, 1
        # Twice the width is eight times the work: at most half a second for a product.
        while size < 2048 and _product_seconds(size, 1, kind, device) < 0.06:
            size *= 2
    rounds = [_product_seconds(size, products, kind, device) for _ in range(6)]
    return 2 * size**3 * products / min(rounds) / 1e12


def _product_seconds(size: int, products: int, kind: torch.dtype, device: torch.device) -> float:
    """Return the CPU seconds (on a GPU, seconds) of some products of two square matrices."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    a = torch.randn(size, size, device=device, dtype=kind)
    b = torch.randn(size, size, device=device, dtype=kind)
    synchronise(device)
    start = clock()
    for _ in range(products):
        a @ b
    synchronise(device)
    return clock() - start


def draw(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the cost of a second of sound against the length of clips, a line per task, size and arithmetic."""
    figure = sheet(7.0, 4.5, "Cost of a step")
    panel = figure.subplots()
    unit = "CPU seconds" if records[0]["device"] == "cpu" else "seconds"
    lines: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        name = f"{record['task']} {record['size']}, {record['precision']}, {record['way']}"
        cost = (
            record["cpu_seconds_per_clip"]
            if record["device"] == "cpu"
            else 1 / record["clips_per_second"]
        )
        lines.setdefault(name, []).append((record["clip_seconds"], cost / record["clip_seconds"]))
    for name, points in lines.items():
        panel.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    panel.set_xscale("log")
    panel.set_xlabel("length of a clip in seconds")
    panel.set_ylabel(f"{unit} per second of sound")
    panel.set_ylim(bottom=0)
    panel.legend(frameon=False)
    save(figure, path)


if __name__ == "__main__":
    main(
        tyro.extras.overridable_config_cli(
            PRESETS, args=sys.argv[1:] or ["short"], description=__doc__
        )
    )
