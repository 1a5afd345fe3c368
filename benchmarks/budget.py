"""Objectives side by side: the same sound and the same CPU seconds for each, then frozen scores against the budget.

    python benchmarks/budget.py --recipes ssast "asit_short --batch-size 24" --sizes nano tiny --cpu-seconds 60 240 \\
        --data A.csv B.csv --split-column fold --exclude 1 val test --probe NAME=labels.csv:fold:1 --out DIR

The budget pays for optimiser steps and all that belongs to them (decoding, front end, both passes), on one thread. What
a step costs is measured first; then each budget is a run of its own, whose whole schedule fits into it. What starting a
run costs (imports, opening the corpus, its mean and std) is the same for all and recorded apart. Nothing is selected:
runs end with their last weights, and nothing is tuned on the scored split. Probes are those of benchmarks/probe.py; the
row "random" is the first run's network with such an encoder, at random weights.

Every result is a JSON line of DIR/results.jsonl. A result that is there is not made again, one that failed is. The end
is DIR/table.md and DIR/budget.png, of all results there on the same sound.
"""

import json
import os
import re
import shlex
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple
from unittest.mock import patch

import tyro
from probe import parted, scores, untrained
from step import one_process

from melpatch.commands import pretrain
from melpatch.data.manifest import Corpus
from melpatch.data.sources import Row, rows
from melpatch.model import load
from melpatch.objectives.base import Objective
from melpatch.plots.budget import Point, budget
from melpatch.registry import name_of
from melpatch.training.run import Progress, Run

Line = dict[str, Any]
Place = tuple[str, str, float]
PROBES, POOLINGS = ("knn", "linear"), ("mean", "frequency")
WARM = 4
"""Steps before those that are timed: the first ones are slower."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to compare."""

    data: tuple[str, ...]
    """Corpus to pretrain on."""
    probe: tuple[str, ...]
    """Tasks to score, each NAME=labels.csv:split_column:test_split."""
    out: Path
    """Folder for runs, results, table and picture."""
    recipes: tuple[str, ...] = ("ssast", "asit_short", "mae_ast", "maskspec", "cola")
    """Recipes; one with flags of its own stands in quotation marks."""
    sizes: tuple[str, ...] = ("nano", "tiny")
    """Encoders."""
    cpu_seconds: tuple[float, ...] = (60.0, 240.0)
    """Budgets."""
    seeds: tuple[int, ...] = (0,)
    """One run each."""
    split_column: str = "split"
    """Column of the corpus's splits."""
    exclude: tuple[str, ...] = ("val", "test")
    """Splits or folds that stay out of pretraining."""
    timed_steps: int = 12
    """Steps whose mean cost is taken for that of all, after 4 to warm up."""
    drawn: Literal["knn_mean", "knn_frequency", "linear_mean", "linear_frequency"] = "linear_frequency"
    """Score in the picture."""


class Task(NamedTuple):
    """A labelled corpus, and the split of it that is scored."""

    name: str
    labels: str
    split_column: str
    split: str


def main(config: Config) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started from here
    tasks = [task(text) for text in config.probe]
    for one in tasks:
        refuse_leaks(config, one)
    sound = {"data": [*config.data], "exclude": [*config.exclude]}
    results = Results(config.out / "results.jsonl")
    if any(not line.items() >= sound.items() for line in results.good):
        raise SystemExit(f"{config.out} holds results with other --data or --exclude; give another --out")
    for seed in config.seeds:
        for size in config.sizes:
            for recipe in config.recipes:
                compare(config, results, tasks, {"recipe": recipe, "size": size, **sound}, seed)
    failed = [f"Failed: {one}" for one in results.failed]
    table = "\n".join([*heading(config), *rows_of(results.good, tasks), *[""] * bool(failed), *failed])
    (config.out / "table.md").write_text(table + "\n")
    print(table)
    draw(config.out / "budget.png", results.good, tasks, config.drawn)


def compare(config: Config, results: "Results", tasks: Sequence[Task], settings: Line, seed: int) -> None:
    """Train a recipe under every budget, and score what comes of it."""
    words = [*shlex.split(settings["recipe"]), "--size", settings["size"], "--workers", "0"]
    words += ["--data", *config.data, "--exclude", *config.exclude, "--split-column", config.split_column]
    cost = results.once({"what": "cost", **settings}, step_cost, words, config.timed_steps)
    for seconds in config.cpu_seconds if cost else ():
        settings = settings | {"seed": seed, "budget": seconds}
        name = f"{settings['recipe']} {settings['size']} {seconds:g} {seed}"
        folder = config.out / "runs" / re.sub(r"[^\w.]+", "-", name)
        steps = max(1, round(seconds / cost["cpu_seconds_per_step"]))
        run = results.once({"what": "run", **settings}, train, [*words, "--seed", f"{seed}"], steps, folder)
        for one in tasks if run else ():
            encoder = {"recipe": f"random {run['encoder']}", "budget": 0}  # of the first run with such an encoder
            results.once({"what": "score", **settings, **encoder, "task": one}, score, folder, one, True)
            results.once({"what": "score", **settings, "task": one}, score, folder, one, False)


def task(text: str) -> Task:
    name, _, place = text.partition("=")
    parts = place.rsplit(":", 2)
    if not name or len(parts) != 3:
        raise SystemExit(f"--probe {text}; allowed: NAME=labels.csv:split_column:test_split")
    return Task(name, *parts)


def refuse_leaks(config: Config, asked: Task) -> None:
    """Stop if a file that is scored is one that is pretrained on."""
    every = [row for data in config.data for row in listed(data, config.split_column)]
    heard = {row.path.resolve() for row in every if row.split not in config.exclude}
    for row in listed(asked.labels, asked.split_column):
        if row.split == asked.split and row.path.resolve() in heard:
            raise SystemExit(f"{row.path} is scored by {asked.name} but pretrained on; --exclude its split")


def listed(source: str, split_column: str) -> Iterator[Row]:
    return rows(Path(source), split_column=split_column, label_column="label")


class Results:
    """What is known, line by line.

    Attributes:
        good: the results.
        failed: what came to nothing this time, and why.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = map(json.loads, path.read_text().splitlines() if path.exists() else ())
        self.good = [line for line in lines if "error" not in line]
        self.failed: list[str] = []

    def once(self, settings: Line, function: Callable[..., Line], *arguments: Any) -> Line:
        """Return the result under these settings, made by a process of its own unless known; empty if it fails."""
        settings = json.loads(json.dumps(settings))  # as it is read back
        for line in self.good:
            if line.items() >= settings.items():
                return line
        with one_process() as process:
            future = process.submit(function, *arguments)
            error = future.exception()
        if error:
            line = settings | {"error": f"{type(error).__name__}: {error}"}
            self.failed.append(json.dumps(line))
            print(f"failed: {self.failed[-1]}", file=sys.stderr)
        else:
            line = settings | future.result()
            self.good.append(line)
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return {} if error else line


def step_cost(words: list[str], steps: int) -> dict[str, float]:
    """Return the CPU seconds of a step on the very corpus, as the mean over so many."""
    every = f"{WARM + steps}"
    with TemporaryDirectory() as folder:
        clock = pretrained([*words, "--out", f"{folder}/run", "--steps", every, "--evaluations", every])
    return {"cpu_seconds_per_step": (clock.marks[-1] - clock.marks[WARM]) / steps}


def train(words: list[str], steps: int, folder: Path) -> Line:
    """Leave a run in a folder; return what it cost."""
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted
    clock = pretrained([*words, "--out", str(folder), "--steps", f"{steps}", "--evaluations", "1"])
    clips = steps * clock.batch_size
    return {
        "steps": steps,
        "clips": clips,
        "passes": round(clips / clock.corpus, 2),
        "cpu_seconds": round(clock.marks[-1] - clock.marks[0], 2),
        "cpu_seconds_with_start": round(time.process_time(), 2),
        "encoder": clock.encoder,
    }


def pretrained(words: list[str]) -> "Clock":
    """Run ``melpatch pretrain`` under a clock."""
    clock = Clock(pretrain.fit)
    with patch.object(pretrain, "fit", clock):
        pretrain.run(pretrain.parse(words))
    return clock


class Clock:
    """The training loop, with the CPU seconds noted at its start and at each evaluation.

    The health of the embeddings is measured after the last step only, when the clock has stopped.
    """

    def __init__(self, fit: Callable[..., Progress]) -> None:
        self.fit = fit
        self.marks: list[float] = []

    def __call__(
        self, objective: Objective, corpus: Corpus, run: Run, *, evaluate: Callable[..., Any], **others: Any
    ) -> Progress:
        config = run.config
        self.corpus, self.batch_size = len(corpus.clips), config.loader.batch_size * config.train.accumulate
        self.encoder = name_of(type(objective.encoder))

        def noted(objective: Objective, step: int) -> dict[str, float]:
            self.marks.append(time.process_time())
            return evaluate(objective, step) if step == config.train.steps else {}

        self.marks.append(time.process_time())
        return self.fit(objective, corpus, run, evaluate=noted, **others)


def score(folder: Path, asked: Task, random: bool) -> dict[str, float]:
    """Return kNN and linear probe of a run, or of the same network at random weights, with both poolings."""
    model = load(folder)
    split = parted([asked.labels], asked.split_column, asked.split)
    found = scores(untrained(model) if random else model, split)
    return {f"{probe}_{pooling}": value for pooling, each in found for probe, value in each.items()}


def heading(config: Config) -> list[str]:
    """Return how the table came about."""
    columns = ["size", "recipe", "budget", "CPU-s", "steps", "passes", "seeds"]
    columns += [f"{task(text).name}, {pooling}" for text in config.probe for pooling in POOLINGS]
    return [
        f"`python {shlex.join(sys.argv)}`",
        "",
        "kNN / linear probe on frozen embeddings, accuracy; mean over seeds, ± their standard deviation. Last weights.",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]


def rows_of(lines: Sequence[Line], tasks: Sequence[Task]) -> Iterator[str]:
    """Yield a row per size, recipe and budget."""
    for place, scored in grouped(lines, "score").items():
        runs = grouped(lines, "run").get(place, [])
        cells = [place[0], f"`{place[1]}`", f"{place[2]:g}"]
        cells += [
            f"{mean([run[name] for run in runs]):.4g}" if runs else "" for name in ("cpu_seconds", "steps", "passes")
        ]
        cells.append(f"{len({line['seed'] for line in scored})}")
        for one in tasks:
            found = [line for line in scored if line["task"] == [*one]]
            for pooling in POOLINGS:
                cells.append(" / ".join(spread([line[f"{probe}_{pooling}"] for line in found]) for probe in PROBES))
        yield f"| {' | '.join(cells)} |"


def spread(values: Sequence[float]) -> str:
    deviation = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{deviation}" if values else "-"


def grouped(lines: Sequence[Line], what: str) -> dict[Place, list[Line]]:
    """Return the lines of a kind by size, recipe and budget; random weights first, then in the order of the lines."""
    sizes, recipes = ([*dict.fromkeys(line[name] for line in lines)] for name in ("size", "recipe"))
    found: dict[Place, list[Line]] = defaultdict(list)
    for line in lines:
        if line["what"] == what:
            found[line["size"], line["recipe"], line["budget"]].append(line)

    def order(place: Place) -> tuple[int, bool, int, float]:
        size, recipe, seconds = place
        return sizes.index(size), seconds > 0, recipes.index(recipe), seconds

    return {place: found[place] for place in sorted(found, key=order)}


def draw(path: Path, lines: Sequence[Line], tasks: Sequence[Task], name: str) -> None:
    """Draw one score, the mean over seeds, against the CPU seconds really spent."""
    points, runs = [], grouped(lines, "run")
    for place, scored in grouped(lines, "score").items():
        spent = mean([run["cpu_seconds"] for run in runs[place]]) if place in runs else 0.0
        for one in tasks:
            if found := [line[name] for line in scored if line["task"] == [*one]]:
                points.append(Point(place[0], one.name, place[1], spent, mean(found)))
    if points:
        budget(path, points, f"{name.replace('_', ' probe, ')} pooling: accuracy")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
