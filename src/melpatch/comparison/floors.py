"""Floors in a comparison: what no pretraining, or no network, scores on the same clips, and the gains over it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from melpatch.atomic import written_aside
from melpatch.comparison.plan import Pretraining
from melpatch.comparison.results import Line, Results
from melpatch.comparison.rows import markdown_row, write_rows
from melpatch.comparison.work import score_keys

Names = tuple[str, str, str, str, str, str]
"""Method, size, budget, task, protocol and floor."""


class FloorCell(NamedTuple):
    """A floor beside the score of a method on a task, means over all seeds."""

    method: str
    size: str
    budget: str
    task: str
    protocol: str
    floor: str
    """What is scored: majority class, log-mel statistics, MFCC statistics, or random weights."""
    value: float | None
    """Its score."""
    low: float | None
    """Lower end of the 95 % interval over clips."""
    high: float | None
    """Upper end of that interval."""
    gain: float | None
    """Score of the method less that of the floor."""
    gain_low: float | None
    """Lower end of the 95 % interval of the gain, paired by clip or group."""
    gain_high: float | None
    """Upper end of that interval."""
    seeds: int
    """Number of seeds that are done."""


def collect_floors(runs: Sequence[Pretraining], results: Results) -> list[FloorCell]:
    """Return the floors beside every score of a plan, in order; none where none were measured."""
    rows: dict[Names, list[Line]] = {}
    for run in runs:
        for scoring, key in zip(run.scorings, score_keys(run), strict=True):
            names = (run.method.name, run.size, run.budget, scoring.task.name, scoring.protocol)
            for floor in (results.find(key) or {}).get("floors", []):
                rows.setdefault((*names, floor["name"]), []).append(floor)
    return [_cell(names, floors) for names, floors in rows.items()]


def _cell(names: Names, floors: list[Line]) -> FloorCell:
    low, high = _ends(floors, "interval_95")
    gain_low, gain_high = _ends(floors, "gain_95")
    return FloorCell(
        *names,
        value=_mean([floor["value"] for floor in floors]),
        low=low,
        high=high,
        gain=_mean([floor["gain"] for floor in floors]),
        gain_low=gain_low,
        gain_high=gain_high,
        seeds=len(floors),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _ends(floors: Sequence[Line], name: str) -> tuple[float | None, float | None]:
    """Return both ends of an interval, averaged over the seeds that have one."""
    known = [floor[name] for floor in floors if floor[name]]
    return _mean([low for low, _ in known]), _mean([high for _, high in known])


def write_floors(path: Path, floors: Sequence[FloorCell]) -> None:
    """Write one line per score and floor."""
    with written_aside(path) as aside:
        write_rows(aside, [FloorCell._fields, *floors])


def floor_rows(
    floors: Sequence[FloorCell], columns: Sequence[tuple[str, str]], width: int
) -> Iterator[str]:
    """Yield a row of the table of scores for each floor that needs no network.

    Args:
        floors: the floors.
        columns: task and protocol of each column of scores.
        width: columns before them, of which the first names the row.
    """
    for name in dict.fromkeys(floor.floor for floor in floors if floor.floor != "random weights"):
        # Equal for all runs with one front end; of several, the first run's stands here.
        first = {(own.task, own.protocol): own for own in reversed(floors) if own.floor == name}
        scores = [_value(first.get(column)) for column in columns]
        yield markdown_row([name, *["-"] * (width - 1), *scores])


def gain_table(
    floors: Sequence[FloorCell], columns: Sequence[tuple[str, str]], several_sizes: bool
) -> list[str]:
    """Return a table in Markdown of the gain of each method over each floor."""
    heads = ["method", *["size"] * several_sizes, "budget", "gain over"]
    heads += [f"{task}, {protocol}" for task, protocol in columns]
    rows: dict[tuple[str, ...], dict[tuple[str, str], FloorCell]] = {}
    for own in floors:
        names = (own.method, *[own.size] * several_sizes, own.budget, own.floor)
        rows.setdefault(names, {})[own.task, own.protocol] = own
    lines = [markdown_row(heads), "|---" * len(heads) + "|"]
    for names, cells in rows.items():
        lines.append(markdown_row([*names, *(_gain(cells.get(column)) for column in columns)]))
    return lines


def _value(floor: FloorCell | None) -> str:
    if floor is None or floor.value is None:
        return "-"
    if floor.low is None:
        return f"{floor.value:.3f}"
    return f"{floor.value:.3f} [{floor.low:.3f}, {floor.high:.3f}]"


def _gain(floor: FloorCell | None) -> str:
    if floor is None or floor.gain is None:
        return "-"
    if floor.gain_low is None:
        return f"{floor.gain:+.3f}"
    return f"{floor.gain:+.3f} [{floor.gain_low:+.3f}, {floor.gain_high:+.3f}]"
