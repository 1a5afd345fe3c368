"""The picture of what a budget buys: scores against the CPU seconds that went into pretraining."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from melpatch.colours import class_colours
from melpatch.errors import MelpatchError
from melpatch.plots.base import save, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "osD^vP*X"


class Point(NamedTuple):
    """A score that was reached."""

    size: str
    """Of the encoder; a row of panels each."""
    task: str
    """What was scored; a column of panels each."""
    method: str
    """What was trained; a line each."""
    cpu_seconds: float
    """What it cost; 0 for random weights, which are drawn as a level from side to side."""
    score: float


def budget(path: Path, points: Sequence[Point], score: str) -> None:
    """Draw scores against CPU seconds on a logarithmic axis: a panel per size and task, a line per method.

    Args:
        path: PNG file to write.
        points: in any order; methods have their colours in the order in which they come first.
        score: what the scores are, in words.

    Raises:
        MelpatchError: there is no point that cost something; or matplotlib is missing.
    """
    if not any(point.cpu_seconds > 0 for point in points):
        raise MelpatchError("no score of a trained network to draw; see what the runs failed of")
    sizes, tasks, methods = (list(dict.fromkeys(column)) for column in list(zip(*points, strict=True))[:3])
    colours = class_colours(torch.arange(len(methods))).tolist()
    figure = sheet(max(6.0, 0.6 + 3.2 * len(tasks)), 1.0 + 2.8 * len(sizes))
    grid = figure.subplots(len(sizes), len(tasks), squeeze=False, sharex=True)
    for size, row in zip(sizes, grid, strict=True):
        for task, panel in zip(tasks, row, strict=True):
            panel.set_title(f"{task}, {size}", loc="left", fontsize=10, parse_math=False)
            for number, method in enumerate(methods):
                drawn = sorted(point[3:] for point in points if point[:3] == (size, task, method))
                _draw(panel, drawn, method, colours[number], _MARKERS[number % len(_MARKERS)])
            _dress(panel)
    for panel in grid[-1]:
        panel.set_xlabel("CPU seconds of pretraining")
    for panel in grid[:, 0]:
        panel.set_ylabel(score, parse_math=False)
    lines = {str(line.get_label()): line for panel in grid.flat for line in panel.lines}
    legend = figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=4, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    save(figure, path)


def _draw(panel: "Axes", drawn: list[tuple[float, float]], method: str, colour: list[float], marker: str) -> None:
    levels = [score for cpu_seconds, score in drawn if cpu_seconds == 0]
    for level in levels:
        panel.axhline(level, color=colour, linewidth=1, linestyle="--", label=method)
    if len(drawn) > len(levels):
        seconds, scores = zip(*drawn[len(levels) :], strict=True)
        panel.plot(seconds, scores, color=colour, linewidth=1.5, marker=marker, markersize=5, label=method)


def _dress(panel: "Axes") -> None:
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter("{x:g}")
    panel.grid(color="0.9", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
