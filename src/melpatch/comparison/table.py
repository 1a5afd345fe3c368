"""What came of a comparison: a table to read, one for scripts, and a picture of score against training time."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.stats import t as student

from melpatch.atomic import written_aside
from melpatch.comparison.plan import Pretraining
from melpatch.comparison.results import Line, Results
from melpatch.comparison.work import score_keys
from melpatch.plots.budget import Point, budget

FEWEST_SEEDS = 3
"""Fewer say nothing of how far seeds are apart."""
_FOOT = """\
Scores: mean over seeds ± half the 95 % interval of that mean (Student's t, from {fewest} seeds on); in brackets the \
95 % interval over the scored clips (bootstrap, ends averaged over seeds); n clips. CPU-s, steps and passes over the \
sound are those of pretraining, means over seeds. Nothing is chosen on scored clips unless the protocol says so: \
`melpatch list protocols`."""


class Cell(NamedTuple):
    """A row's score on a task under a protocol."""

    method: str
    size: str
    budget: str
    task: str
    protocol: str
    metric: str
    value: float | None
    """Mean over seeds; None where every seed failed or is not done yet."""
    seeds_95: float | None
    """Half the 95 % interval of the mean over seeds."""
    seeds_std: float | None
    """Standard deviation between seeds."""
    low: float | None
    """Lower end of the 95 % interval over clips, mean over seeds."""
    high: float | None
    """Upper end."""
    n: int | None
    """Scored clips."""
    trained_on: int | None
    """How many of them the pretraining heard, the most of all seeds."""
    seeds: int
    """Seeds that are done."""
    cpu_seconds: float | None
    """Of pretraining, mean over seeds."""
    seconds: float | None
    """By the clock."""
    steps: float | None
    """Of pretraining."""
    passes: float | None
    """Over the sound."""
    gpu: str
    """On which pretraining ran, if on any."""
    error: str
    """What the last seed that failed failed of."""


def cells(runs: Sequence[Pretraining], results: Results) -> list[Cell]:
    """Return every score of a plan, in its order and missing ones too, but for rows of which nothing is known."""
    rows: dict[tuple[str, str, str], list[Pretraining]] = {}
    for run in runs:
        rows.setdefault((run.method.name, run.size, run.budget), []).append(run)
    found = []
    for row, same in rows.items():
        trained = [results.find(run.key) or {} for run in same]
        if not any(trained):
            continue
        for number, scoring in enumerate(same[0].scorings):
            scored = [results.find(score_keys(run)[number]) or {} for run in same]
            found.append(_cell((*row, scoring.task.name, scoring.protocol), trained, scored))
    return found


def _cell(names: tuple[str, str, str, str, str], trained: list[Line], scored: list[Line]) -> Cell:
    good = [line for line in scored if line.get("value") is not None]
    values = [float(line["value"]) for line in good]
    bounds = [line["interval_95"] for line in good if line["interval_95"]]
    trained_on = [line["scored_clips_trained_on"] for line in good]
    errors = [line["error"] for line in (*trained, *scored) if "error" in line]
    deviation = stdev(values) if len(values) > 1 else None
    half = None
    if deviation is not None and len(values) >= FEWEST_SEEDS:
        half = float(student.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
    return Cell(
        *names,
        metric=good[0]["metric"] if good else "",
        value=fmean(values) if values else None,
        seeds_95=half,
        seeds_std=deviation,
        low=fmean(low for low, _ in bounds) if bounds else None,
        high=fmean(high for _, high in bounds) if bounds else None,
        n=good[0]["n"] if good else None,
        trained_on=None if None in trained_on else max(trained_on, default=None),
        seeds=len(values),
        cpu_seconds=_mean(trained, "cpu_seconds"),
        seconds=_mean(trained, "seconds"),
        steps=_mean(trained, "steps"),
        passes=_mean(trained, "passes"),
        gpu=next((line["gpu"] for line in trained if line.get("gpu")), ""),
        error=errors[-1] if errors else "",
    )


def _mean(lines: Sequence[Line], name: str) -> float | None:
    known = [line[name] for line in lines if name in line]
    return fmean(known) if known else None


def write_csv(path: Path, found: Sequence[Cell]) -> None:
    """Write one line per cell."""
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([Cell._fields, *found])


def markdown(title: str, command: str, found: Sequence[Cell]) -> str:
    """Return a table of a row per method, size and budget, and a column per task and protocol, with a foot."""
    columns: dict[tuple[str, str], list[Cell]] = {}
    for cell in found:
        columns.setdefault((cell.task, cell.protocol), []).append(cell)
    seeds = {name: max(cell.seeds for cell in column) for name, column in columns.items()}
    sizes = len({cell.size for cell in found}) > 1
    heads = ["method", *["size"] * sizes, "budget", "CPU-s", "steps", "passes"]
    heads += [_head(column, seeds[name]) for name, column in columns.items()]
    errors = [*dict.fromkeys(cell.error for cell in found if cell.error)]
    lines = [f"**{title}**", "", f"`{command}`", "", _row(heads), "|---" * len(heads) + "|"]
    rows: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in found:
        rows.setdefault((cell.method, cell.size, cell.budget), []).append(cell)
    for (method, size, length), row in rows.items():
        spent = [row[0].cpu_seconds, row[0].steps, row[0].passes]
        cost = ["-" if value is None else f"{value:.4g}" for value in spent]
        scores = [_score(cell, errors, seeds[cell.task, cell.protocol]) for cell in row]
        lines.append(_row([method, *[size] * sizes, length, *cost, *scores]))
    lines += ["", _FOOT.format(fewest=FEWEST_SEEDS)]
    leaks = dict.fromkeys(_leak(cell) for cell in found if cell.trained_on)
    lines += ["", *leaks] if leaks else []
    lines += (
        ["", *(f"- failed [{number}]: {error}" for number, error in enumerate(errors, 1))]
        if errors
        else []
    )
    return "\n".join([*lines, ""])


def _leak(cell: Cell) -> str:
    row = ", ".join((cell.method, cell.size, cell.budget))
    return f"- heard in training: {cell.trained_on} of the {cell.n} scored clips of {cell.task}, by {row}"


def _head(column: Sequence[Cell], seeds: int) -> str:
    known = [cell for cell in column if cell.value is not None]
    about = f"{known[0].metric}, n = {known[0].n}, " if known else ""
    return f"{column[0].task}, {column[0].protocol} ({about}{seeds} seed{'s' * (seeds != 1)})"


def _score(cell: Cell, errors: Sequence[str], seeds: int) -> str:
    """Return a score in words; how many seeds it has, if not all; and where one failed, the number of the reason."""
    text = "-"
    if cell.value is not None:
        text = f"{cell.value:.3f}" + (
            f" ± {cell.seeds_95:.3f}" if cell.seeds_95 is not None else ""
        )
        text += f" [{cell.low:.3f}, {cell.high:.3f}]" if cell.low is not None else ""
        text += f" ({cell.seeds} seed{'s' * (cell.seeds != 1)})" if cell.seeds < seeds else ""
    return (
        f"{text} failed [{errors.index(cell.error) + 1}]".removeprefix("- ") if cell.error else text
    )


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def draw(path: Path, found: Sequence[Cell]) -> None:
    """Draw scores against what pretraining cost: CPU seconds, or seconds by the clock where a GPU did it.

    Raises:
        MelpatchError: matplotlib is missing, or there is no score of a trained network.
    """
    budget(
        path,
        [*_points(found)],
        "score",
        "seconds" if any(cell.gpu for cell in found) else "CPU seconds",
    )


def _points(found: Sequence[Cell]) -> Iterator[Point]:
    clock = any(cell.gpu for cell in found)
    sizes, protocols = ({getattr(cell, name) for cell in found} for name in ("size", "protocol"))
    for cell in found:
        if cell.value is not None:
            row = ", ".join([cell.size] * (len(sizes) > 1) + [cell.protocol] * (len(protocols) > 1))
            seconds = (cell.seconds if clock else cell.cpu_seconds) or 0.0
            yield Point(row, cell.task, cell.method, seconds, cell.value)
