"""Compare pretraining methods under one budget, on several tasks and seeds, in one table."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from rich.table import Table

from melpatch.atomic import written_aside
from melpatch.commands.base import read_pretrain_flags
from melpatch.comparison import table
from melpatch.comparison.floors import collect_floors, write_floors
from melpatch.comparison.plan import Pretraining, plan, refuse_leaks
from melpatch.comparison.results import Results, is_comparison, locked
from melpatch.comparison.spec import (
    UNITS,
    Budget,
    Sound,
    Spec,
    parse_task,
    read_spec,
    shipped,
    words_of,
)
from melpatch.comparison.summary import summarise, summary_table
from melpatch.comparison.work import Comparison
from melpatch.config import check
from melpatch.counted import counted
from melpatch.data.sources import source_name
from melpatch.errors import ConfigError, MelpatchError
from melpatch.evaluation.select import parse_settings, select_protocols
from melpatch.machine import most_workers
from melpatch.outputs import check_output_folder
from melpatch.progress import console, notice, show_text
from melpatch.weight_files import HUB


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which methods to compare, on what, and for how long; flags override the spec."""

    spec: tyro.conf.Positional[str] = ""
    """TOML file, or the name of a comparison shipped with melpatch; without it, these are listed."""
    budget: str | None = None
    """Scale of the comparison, one of those in the spec; by default the first."""
    data: tuple[str, ...] = ()
    """Folders or CSV files to pretrain on."""
    split_column: str | None = None
    """Column of the CSV files that holds the split or fold."""
    exclude_splits: tuple[str, ...] | None = None
    """Splits or folds to leave out of pretraining; by default val and test, where they exist."""
    task: tuple[str, ...] = ()
    """Tasks to score, each NAME=labels.csv:split_column:split,split; without splits, test or else
    every fold is scored."""
    protocol: tuple[str, ...] = ()
    """Protocols of melpatch evaluate, each with its changed settings, such as 'knn k=20'."""
    size: tuple[str, ...] = ()
    """Encoder sizes: nano, mini, tiny, small, base or large."""
    recipe: str | None = None
    """Recipe of the methods that do not name a recipe."""
    steps: tuple[int, ...] = ()
    """Optimiser steps; one run for each number."""
    epochs: tuple[float, ...] = ()
    """Passes over the audio, instead of steps; one run for each number."""
    cpu_seconds: tuple[float, ...] = ()
    """CPU seconds of training on one thread, instead of steps; one run for each number."""
    seeds: tuple[int, ...] = ()
    """Seeds; one pretraining run and its evaluations for each."""
    init: str | None = None
    """Initial weights of the methods with init = true: a run folder, weight file or hf:owner/name."""
    only: tuple[str, ...] = ()
    """Methods to run now; the table keeps the results of the others."""
    out: Path | None = None
    """Folder for runs, results and table; an earlier comparison there is continued. By default
    compare/SPEC-BUDGET."""
    jobs: int = 1
    """Number of commands to run at a time, each on one thread unless OMP_NUM_THREADS is set."""
    floors: bool = True
    """Score the same clips with the majority class, statistics of spectrograms and random weights,
    and give the gains over them."""
    allow_leaks: bool = False
    """Compare even if scored files are also pretrained on."""
    trust_code: bool = False
    """Allow the spec to name code outside melpatch, such as your own objective; that code is run."""
    dry_run: bool = False
    """Show the commands without running them."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(1 <= self.jobs <= most_workers(), "jobs", self.jobs, f"1 to {most_workers()}")


def run(config: Config) -> None:
    """Compute what is missing; write table.md, table.csv and compare.png, and print the table.

    Raises:
        MelpatchError: a run or a score failed; all others are done and in the table.
    """
    if not config.spec:
        _list_shipped()
        return
    spec, budget = _spec_and_budget(config)
    all_runs = plan(spec, budget)
    methods = [method.name for method in spec.methods]
    unknown = sorted({*config.only}.difference(methods))
    check(not unknown, "only", tuple(unknown), ", ".join(methods))
    _check_commands(all_runs)
    if not config.allow_leaks:
        refuse_leaks(spec)
    chosen = config.only or methods
    runs = [run for run in all_runs if run.method.name in chosen]
    if config.dry_run:
        _show_commands(runs)
        return
    out = config.out or Path("compare", f"{Path(config.spec).stem}-{budget.name}")
    title = _title(spec, budget)
    inputs = (config.spec, *spec.sound.data, *(task.data for task in spec.tasks))
    check_output_folder(out, inputs, alone=not is_comparison(out))
    with locked(out):
        comparison = Comparison(out, runs, floors=config.floors)

        def write() -> None:
            _write_tables(out, title, all_runs, comparison.results)

        comparison.carry_out(config.jobs, after=write)
        try:
            cells = table.collect_cells(all_runs, comparison.results)
            table.draw(out / "compare.png", title, cells)
        except MelpatchError as error:
            # The table is complete without a figure, which needs matplotlib and a trained network.
            notice(str(error))
    show_text((out / "table.md").read_text(encoding="utf-8").removesuffix("\n"))
    notice(f"written to {out}")
    comparison.require_all_results()


def _title(spec: Spec, budget: Budget) -> str:
    """Return what is compared, at which scale, on which corpora and splits."""
    parts = [f"{spec.title} ({budget.name})"]
    if spec.sound.data:
        parts.append(f"pretrained on {' + '.join(map(source_name, spec.sound.data))}")
    tasks = []
    for task in spec.tasks:
        splits = f" ({', '.join(task.split)})" if task.split else ""
        tasks.append(f"{task.name} of {source_name(task.data)}{splits}")
    if tasks:
        parts.append(f"scored on {', '.join(tasks)}")
    return "; ".join(parts)


def _write_tables(out: Path, title: str, runs: Sequence[Pretraining], results: Results) -> None:
    """Write table.md, table.csv and floors.csv with the results so far."""
    command = shlex.join(["melpatch", *sys.argv[1:]])
    cells = table.collect_cells(runs, results)
    floors = collect_floors(runs, results)
    summary = summary_table(summarise(runs, results), runs)
    with written_aside(out / "table.md") as aside:
        aside.write_text(table.markdown(title, command, cells, floors, summary), encoding="utf-8")
    table.write_csv(out / "table.csv", cells)
    if floors:
        write_floors(out / "floors.csv", floors)


def _spec_and_budget(config: Config) -> tuple[Spec, Budget]:
    """Return the spec and its budget; flags of the command line override their settings."""
    spec = read_spec(config.spec, trust_code=config.trust_code)
    budget = spec.budget(config.budget)
    exclude_splits = config.exclude_splits
    if exclude_splits is None:
        exclude_splits = spec.sound.exclude_splits
    sound = Sound(
        data=config.data or spec.sound.data,
        split_column=config.split_column or spec.sound.split_column,
        exclude_splits=exclude_splits,
    )
    changes: dict[str, Any] = {"sizes": config.size, "recipe": config.recipe, "init": config.init}
    changes |= {"protocols": config.protocol, "seeds": config.seeds}
    given = {name: value for name, value in changes.items() if value}
    # A length in one unit also clears those of the spec in other units.
    lengths: dict[str, Any] = {unit: getattr(config, unit) for unit in UNITS}
    if any(lengths.values()):
        given |= lengths
    tasks = tuple(map(parse_task, config.task)) or spec.tasks
    if config.protocol:
        tasks = tuple(replace(task, protocols=()) for task in tasks)
    return replace(spec, sound=sound, tasks=tasks), replace(budget, **given)


def _without_hub_weights(words: Sequence[str]) -> list[str]:
    """Return the words of a command without weights of the Hub, which only the run itself fetches."""
    kept: list[str] = []
    for word in words:
        if word.startswith(HUB) and kept[-1:] == ["--init"]:
            kept.pop()
        else:
            kept.append(word)
    return kept


def _check_commands(runs: Sequence[Pretraining]) -> None:
    """Read the flags and settings of all commands, so that a wrong one is reported before the start.

    Raises:
        ConfigError: a command could not be run; the message names the method.
    """
    for words, name in {run.words: run.method.name for run in runs}.items():
        message = f"method {name!r}: melpatch pretrain cannot read {shlex.join(words)}"
        try:
            read_pretrain_flags([*_without_hub_weights(words), "--out", "checked"], "")
        except ConfigError as error:
            raise ConfigError(f"{message}: {error}") from error
    for protocol in {scoring.protocol for run in runs for scoring in run.scorings}:
        name, *changes = words_of("protocols", protocol)
        select_protocols([name], parse_settings(changes))


def _show_commands(runs: Sequence[Pretraining]) -> None:
    for run in runs:
        words = ["melpatch", "pretrain", *run.words]
        if run.unit == "cpu_seconds":
            words += ["--steps", f"<as many as {run.length} CPU seconds pay for>"]
        elif run.unit:
            words += [f"--{run.unit}", run.length]
        words += ["--seed", f"{run.seed}", "--out", f"runs/{run.name}"]
        show_text(shlex.join(words))
        for scoring in run.scorings:
            words = ["melpatch", "evaluate", f"runs/{run.name}", *scoring.words]
            show_text(f"  {shlex.join(words)}")
    scores = sum(len(run.scorings) for run in runs)
    notice(f"{counted(len(runs), 'run')}, {counted(scores, 'score')}")


def _list_shipped() -> None:
    grid = Table("name", "what it shows", "budgets", box=None)
    for name, spec in shipped().items():
        grid.add_row(name, spec.title, ", ".join(budget.name for budget in spec.budgets))
    console().print(grid)
