"""Compare ways to pretrain under one budget: methods, tasks, protocols and seeds, resumable, in one table."""

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
from melpatch.comparison.plan import Pretraining, plan, refuse_leaks
from melpatch.comparison.results import alone
from melpatch.comparison.spec import UNITS, Budget, Sound, Spec, read, shipped, task, words_of
from melpatch.comparison.work import Comparison
from melpatch.config import check
from melpatch.errors import ConfigError, MelpatchError
from melpatch.evaluation.select import parse_settings, select_protocols
from melpatch.progress import console, notice


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to compare, on what, and how long; what is given here stands in the place of what the spec says."""

    spec: tyro.conf.Positional[str] = ""
    """TOML file, or the name of a comparison that comes with melpatch; without one, these are listed."""
    budget: str | None = None
    """Scale of the comparison, one of the spec's; by default the first."""
    data: tuple[str, ...] = ()
    """Folders or CSV files to pretrain on."""
    split_column: str | None = None
    """Their column of the split or fold."""
    exclude_splits: tuple[str, ...] | None = None
    """Splits or folds that stay out of pretraining; by default val and test, where they exist."""
    task: tuple[str, ...] = ()
    """What to score, each NAME=labels.csv:split_column:split,split; without splits test, or else every fold."""
    protocol: tuple[str, ...] = ()
    """How to score, each a protocol of melpatch evaluate with its changed settings, such as 'knn k=20'."""
    size: tuple[str, ...] = ()
    """Encoders."""
    recipe: str | None = None
    """Recipe of the methods that name none."""
    steps: tuple[int, ...] = ()
    """Optimiser steps; a run of its own for each number."""
    epochs: tuple[float, ...] = ()
    """Passes over the sound, in the place of steps."""
    cpu_seconds: tuple[float, ...] = ()
    """CPU seconds of training on one thread, in the place of steps."""
    seeds: tuple[int, ...] = ()
    """One pretraining and one evaluation each."""
    init: str | None = None
    """Weights for the methods that start from some."""
    only: tuple[str, ...] = ()
    """Methods to work on now; the table keeps the others."""
    out: Path | None = None
    """Folder for runs, results and table; the same one goes on where it was. By default compare/SPEC-BUDGET."""
    jobs: int = 1
    """Commands at a time, each on one thread unless OMP_NUM_THREADS says otherwise."""
    allow_leaks: bool = False
    """Compare even where scored files are pretrained on."""
    dry_run: bool = False
    """Show the commands, and run none."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.jobs >= 1, "jobs", self.jobs, "1 or more")


def run(config: Config) -> None:
    """Do what is not done yet; write table.md, table.csv and compare.png, and print the table."""
    if not config.spec:
        _list()
        return
    spec, budget = _asked(config)
    runs = plan(spec, budget)
    unknown = sorted({*config.only} - {one.name for one in spec.methods})
    check(not unknown, "only", tuple(unknown), ", ".join(one.name for one in spec.methods))
    _check(runs)
    if not config.allow_leaks:
        refuse_leaks(spec)
    now = [one for one in runs if not config.only or one.method.name in config.only]
    if config.dry_run:
        _show(now)
        return
    out = config.out or Path("compare", f"{Path(config.spec).stem}-{budget.name}")
    with alone(out):
        comparison = Comparison(out, now)

        def found() -> list[table.Cell]:
            return table.cells(runs, comparison.results)

        comparison.carry_out(config.jobs, after=lambda: _write(out, spec.title, found()))
        try:
            table.draw(out / "compare.png", found())
        except (
            MelpatchError
        ) as error:  # nothing trained, or no matplotlib: the table stands all the same
            notice(str(error))
    sys.stdout.write((out / "table.md").read_text(encoding="utf-8"))
    notice(f"written to {out}")


def _write(out: Path, title: str, found: Sequence[table.Cell]) -> None:
    """Write the table as far as it is known."""
    with written_aside(out / "table.md") as aside:
        aside.write_text(
            table.markdown(title, shlex.join(["melpatch", *sys.argv[1:]]), found), encoding="utf-8"
        )
    table.write_csv(out / "table.csv", found)


def _asked(config: Config) -> tuple[Spec, Budget]:
    """Return the spec and its budget, with what the command line says in the place of theirs."""
    spec = read(config.spec)
    budget = spec.budget(config.budget)
    sound = Sound(
        data=config.data or spec.sound.data,
        split_column=config.split_column or spec.sound.split_column,
        exclude_splits=config.exclude_splits
        if config.exclude_splits is not None
        else spec.sound.exclude_splits,
    )
    changes: dict[str, Any] = {"sizes": config.size, "recipe": config.recipe, "init": config.init}
    changes |= {"protocols": config.protocol, "seeds": config.seeds}
    given = {name: value for name, value in changes.items() if value}
    lengths: dict[str, Any] = {unit: getattr(config, unit) for unit in UNITS}
    if any(lengths.values()):
        given |= lengths
    tasks = tuple(map(task, config.task)) or spec.tasks
    if config.protocol:
        tasks = tuple(replace(one, protocols=()) for one in tasks)
    return replace(spec, sound=sound, tasks=tasks), replace(budget, **given)


def _check(runs: Sequence[Pretraining]) -> None:
    """Refuse flags and settings that no command would take, before the first one is started."""
    for words, name in {one.words: one.method.name for one in runs}.items():
        try:
            read_pretrain_flags([*words, "--out", "checked"], "")
        except SystemExit as error:  # tyro has shown which
            raise ConfigError(
                f"method {name!r}: melpatch pretrain cannot read {shlex.join(words)}"
            ) from error
        except ConfigError as error:
            raise ConfigError(
                f"method {name!r}: melpatch pretrain cannot read {shlex.join(words)}: {error}"
            ) from error
    for protocol in {scoring.protocol for one in runs for scoring in one.scorings}:
        name, *changes = words_of("protocols", protocol)
        select_protocols([name], parse_settings(changes))


def _show(runs: Sequence[Pretraining]) -> None:
    for one in runs:
        length = [f"--{one.unit}", one.length] if one.unit else []
        if one.unit == "cpu_seconds":
            length = ["--steps", f"<as many as {one.length} CPU seconds pay for>"]
        end = [*length, "--seed", f"{one.seed}", "--out", f"runs/{one.name}"]
        sys.stdout.write(shlex.join(["melpatch", "pretrain", *one.words, *end]) + "\n")
        for scoring in one.scorings:
            sys.stdout.write(
                f"  {shlex.join(['melpatch', 'evaluate', f'runs/{one.name}', *scoring.words])}\n"
            )
    notice(f"{len(runs)} runs, {sum(len(one.scorings) for one in runs)} scores")


def _list() -> None:
    grid = Table("name", "what it shows", "budgets", box=None)
    for name, spec in shipped().items():
        grid.add_row(name, spec.title, ", ".join(one.name for one in spec.budgets))
    console().print(grid)
