"""Tables and a figure of a comparison: Markdown, CSV, and score against training time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from melpatch.atomic import written_aside
from melpatch.comparison.floors import FloorCell, floor_rows, gain_table
from melpatch.comparison.over_seeds import FEWEST_SEEDS, half_interval
from melpatch.comparison.plan import Pretraining
from melpatch.comparison.results import Line, Results
from melpatch.comparison.rows import markdown_row, write_rows
from melpatch.comparison.work import score_keys
from melpatch.counted import counted
from melpatch.plots.budget import Point, budget

_FOOT = """\
Scores: mean over seeds ± half the 95 % interval of that mean (Student's t, from {fewest} seeds \
on); in brackets the 95 % interval over the scored clips or groups (ends averaged over seeds); \
n clips. CPU-s, steps and passes over the audio are those of pretraining, means over seeds. \
Nothing is selected on scored clips unless the protocol says so: `melpatch list protocols`."""
_GAINS = """\
Gains over what no training, or no network, scores on the same clips, by the same probe; in \
brackets the 95 % interval of the gain, paired by clip or group (ends averaged over seeds)."""


class Cell(NamedTuple):
    """The score of a method on a task under a protocol, over all seeds."""

    method: str
    size: str
    budget: str
    task: str
    protocol: str
    metric: str
    value: float | None
    """Mean over seeds; None if no seed is done."""
    seeds_95: float | None
    """Half the 95 % interval of the mean over seeds."""
    seeds_std: float | None
    """Standard deviation between seeds."""
    low: float | None
    """Lower end of the 95 % interval over clips, mean over seeds."""
    high: float | None
    """Upper end of that interval."""
    n: int | None
    """Number of scored clips."""
    trained_on: int | None
    """Number of scored clips that were pretrained on; the largest number over all seeds."""
    seeds: int
    """Number of seeds that are done."""
    cpu_seconds: float | None
    """CPU seconds of pretraining, mean over seeds."""
    seconds: float | None
    """Wall-clock seconds of pretraining, mean over seeds."""
    steps: float | None
    """Optimiser steps of pretraining, mean over seeds."""
    passes: float | None
    """Passes over the audio in pretraining, mean over seeds."""
    gpu: str
    """GPU of the pretraining; empty for a CPU."""
    error: str
    """Error of the last seed that failed; empty if none failed."""
    balanced_accuracy: float | None = None
    """Mean over seeds; None where clips have several labels."""
    majority_rate: float | None = None
    """Accuracy of calling every scored clip the commonest class; None where clips have several
    labels."""


def collect_cells(runs: Sequence[Pretraining], results: Results) -> list[Cell]:
    """Return the cells of a plan in order; rows without any result are left out."""
    rows: dict[tuple[str, str, str], list[Pretraining]] = {}
    for run in runs:
        rows.setdefault((run.method.name, run.size, run.budget), []).append(run)
    cells = []
    for row, seeds in rows.items():
        trained = [results.find(run.key) or {} for run in seeds]
        if not any(trained):
            continue
        for number, scoring in enumerate(seeds[0].scorings):
            scored = [results.find(score_keys(run)[number]) or {} for run in seeds]
            cells.append(_cell((*row, scoring.task.name, scoring.protocol), trained, scored))
    return cells


def _cell(names: tuple[str, str, str, str, str], trained: list[Line], scored: list[Line]) -> Cell:
    """Return a cell from the result lines of all seeds; an empty line is a seed that is not done."""
    done = [line for line in scored if line.get("value") is not None]
    first = done[0] if done else {}
    values = [float(line["value"]) for line in done]
    bounds = [line["interval_95"] for line in done if line["interval_95"]]
    errors = ["", *(line["error"] for line in (*trained, *scored) if "error" in line)]
    # One unknown count makes the largest count unknown.
    trained_on = [line["scored_clips_trained_on"] for line in done]
    most_trained_on = None
    if None not in trained_on:
        most_trained_on = max(trained_on, default=None)
    return Cell(
        *names,
        metric=first.get("metric", ""),
        value=_mean(values),
        seeds_95=half_interval(values),
        seeds_std=_deviation(values),
        low=_mean([low for low, _ in bounds]),
        high=_mean([high for _, high in bounds]),
        n=first.get("n"),
        trained_on=most_trained_on,
        seeds=len(values),
        cpu_seconds=_mean_of(trained, "cpu_seconds"),
        seconds=_mean_of(trained, "seconds"),
        steps=_mean_of(trained, "steps"),
        passes=_mean_of(trained, "passes"),
        gpu=next((line["gpu"] for line in trained if line.get("gpu")), ""),
        error=errors[-1],
        balanced_accuracy=_mean([line["balanced_accuracy"] for line in done if _balanced(line)]),
        majority_rate=first.get("majority_rate"),
    )


def _balanced(line: Line) -> bool:
    """Return whether a result has a balanced accuracy."""
    return line.get("balanced_accuracy") is not None


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _mean_of(lines: Sequence[Line], name: str) -> float | None:
    """Return the mean of a field over the lines that have it."""
    return _mean([float(line[name]) for line in lines if name in line])


def _deviation(values: Sequence[float]) -> float | None:
    """Return the standard deviation between seeds; None for fewer than two."""
    return stdev(values) if len(values) > 1 else None


def write_csv(path: Path, cells: Sequence[Cell]) -> None:
    """Write one line per cell."""
    with written_aside(path) as aside:
        write_rows(aside, [Cell._fields, *cells])


def markdown(
    title: str,
    command: str,
    cells: Sequence[Cell],
    floors: Sequence[FloorCell] = (),
    summary: Sequence[str] = (),
) -> str:
    """Return a table with a row per method, size and budget, and a column per task and protocol.

    The lines of a summary come before it. Rows of the floors come last. Notes on the scores, the
    gains over the floors, leaks and errors follow below the table.
    """
    columns: dict[tuple[str, str], list[Cell]] = {}
    rows: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        columns.setdefault((cell.task, cell.protocol), []).append(cell)
        rows.setdefault((cell.method, cell.size, cell.budget), []).append(cell)
    seeds = {name: max(cell.seeds for cell in column) for name, column in columns.items()}
    several_sizes = len({cell.size for cell in cells}) > 1
    errors = [*dict.fromkeys(cell.error for cell in cells if cell.error)]

    heads = ["method", *["size"] * several_sizes, "budget", "CPU-s", "steps", "passes"]
    heads += [_head(column, seeds[name]) for name, column in columns.items()]
    lines = [f"**{title}**", "", f"`{command}`", ""]
    if summary:
        lines += [*summary, ""]
    lines += [markdown_row(heads), "|---" * len(heads) + "|"]
    for (method, size, length), row in rows.items():
        costs = [_cost(value) for value in (row[0].cpu_seconds, row[0].steps, row[0].passes)]
        scores = [_score(cell, errors, seeds[cell.task, cell.protocol]) for cell in row]
        lines.append(markdown_row([method, *[size] * several_sizes, length, *costs, *scores]))

    lines += floor_rows(floors, [*columns], len(heads) - len(columns))
    lines += ["", _FOOT.format(fewest=FEWEST_SEEDS)]
    if floors:
        lines += ["", _GAINS, "", *gain_table(floors, [*columns], several_sizes)]
    leaks = dict.fromkeys(_leak(cell) for cell in cells if cell.trained_on)
    if leaks:
        lines += ["", *leaks]
    if errors:
        lines += ["", *(f"- failed [{number}]: {text}" for number, text in enumerate(errors, 1))]
    return "\n".join([*lines, ""])


def _leak(cell: Cell) -> str:
    row = ", ".join((cell.method, cell.size, cell.budget))
    return (
        f"- pretrained on: {cell.trained_on} of {counted(cell.n or 0, 'scored clip')} of "
        f"{cell.task}, by {row}"
    )


def _head(column: Sequence[Cell], seeds: int) -> str:
    about = ""
    for cell in column:
        if cell.value is not None:
            majority = ""
            if cell.majority_rate is not None:
                majority = f"majority {cell.majority_rate:.3f}, "
            about = f"{cell.metric}, {majority}n = {cell.n}, "
            break
    return f"{column[0].task}, {column[0].protocol} ({about}{counted(seeds, 'seed')})"


def _cost(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _score(cell: Cell, errors: Sequence[str], seeds: int) -> str:
    """Return a score as text, with the number of its seeds if some are missing.

    A failed cell also has the number of its error in the list below the table.
    """
    parts = []
    if cell.value is not None:
        parts.append(f"{cell.value:.3f}")
        if cell.seeds_95 is not None:
            parts.append(f"± {cell.seeds_95:.3f}")
        if cell.low is not None:
            parts.append(f"[{cell.low:.3f}, {cell.high:.3f}]")
        if cell.balanced_accuracy is not None:
            parts.append(f"balanced {cell.balanced_accuracy:.3f}")
        if cell.seeds < seeds:
            parts.append(f"({counted(cell.seeds, 'seed')})")
    if cell.error:
        parts.append(f"failed [{errors.index(cell.error) + 1}]")
    return " ".join(parts) or "-"


def draw(path: Path, title: str, cells: Sequence[Cell]) -> None:
    """Draw scores against the cost of pretraining: CPU seconds, or wall-clock seconds on a GPU.

    Raises:
        MelpatchError: matplotlib is missing, or no trained network has a score.
    """
    on_gpu = any(cell.gpu for cell in cells)
    unit = "seconds" if on_gpu else "CPU seconds"
    budget(path, [*_points(cells, on_gpu)], "score", unit, title)


def _points(cells: Sequence[Cell], on_gpu: bool) -> Iterator[Point]:
    """Yield a point per score; its row names size and protocol if there are several."""
    several_sizes = len({cell.size for cell in cells}) > 1
    several_protocols = len({cell.protocol for cell in cells}) > 1
    majorities: dict[Point, None] = {}
    for cell in cells:
        if cell.value is None:
            continue
        names = [cell.size] * several_sizes + [cell.protocol] * several_protocols
        row = ", ".join(names)
        seconds = cell.seconds if on_gpu else cell.cpu_seconds
        yield Point(row, cell.task, cell.method, seconds or 0.0, cell.value)
        if cell.metric == "accuracy" and cell.majority_rate is not None:
            # Once for each panel, whatever number of methods has a score there.
            majorities[Point(row, cell.task, "majority class", 0.0, cell.majority_rate)] = None
    yield from majorities
