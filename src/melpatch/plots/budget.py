"""A figure of scores against the time spent on pretraining."""

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
    """A score and its cost."""

    row: str
    """Row of panels, such as the size of the encoder and the protocol; may be empty."""
    task: str
    """Task that was scored; one column of panels each."""
    method: str
    """Method that was trained; one line each."""
    seconds: float
    """Cost of pretraining; 0 for random weights, which are drawn as a horizontal line."""
    score: float


def budget(
    path: Path, points: Sequence[Point], score: str, unit: str = "CPU seconds", title: str = ""
) -> None:
    """Draw scores against time on a logarithmic axis: a panel per row and task, a line per method.

    Args:
        path: PNG file to write.
        points: in any order; colours are assigned to methods in order of appearance.
        score: name of the score.
        unit: unit of the time.
        title: words above the picture.

    Raises:
        MelpatchError: no point has a cost, or matplotlib is missing.
    """
    if not any(point.seconds > 0 for point in points):
        raise MelpatchError("no score of a trained network to draw; see what the runs failed of")
    rows, tasks, methods = (
        list(dict.fromkeys(column)) for column in list(zip(*points, strict=True))[:3]
    )
    colours = class_colours(torch.arange(len(methods))).tolist()
    figure = sheet(max(6.0, 0.6 + 3.2 * len(tasks)), 1.0 + 2.8 * len(rows), title)
    # One axis of time for all, so that budgets can be compared across panels.
    grid = figure.subplots(len(rows), len(tasks), squeeze=False, sharex=True)
    for row, panels in zip(rows, grid, strict=True):
        for task, panel in zip(tasks, panels, strict=True):
            panel.set_title(
                f"{task}, {row}" if row else task, loc="left", fontsize=10, parse_math=False
            )
            for number, method in enumerate(methods):
                drawn = sorted(point[3:] for point in points if point[:3] == (row, task, method))
                _draw(panel, drawn, method, colours[number], _MARKERS[number % len(_MARKERS)])
            _dress(panel)
    for panel in grid[-1]:
        panel.set_xlabel(f"{unit} of pretraining")
    for panel in grid[:, 0]:
        panel.set_ylabel(score, parse_math=False)
    lines = {str(line.get_label()): line for panel in grid.flat for line in panel.lines}
    legend = figure.legend(
        lines.values(), lines.keys(), loc="outside upper center", ncols=4, frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    save(figure, path)


def _draw(
    panel: "Axes", drawn: list[tuple[float, float]], method: str, colour: list[float], marker: str
) -> None:
    levels = [score for seconds, score in drawn if seconds == 0]
    for level in levels:
        panel.axhline(level, color=colour, linewidth=1, linestyle="--", label=method)
    if len(drawn) > len(levels):
        seconds, scores = zip(*drawn[len(levels) :], strict=True)
        panel.plot(
            seconds, scores, color=colour, linewidth=1.5, marker=marker, markersize=5, label=method
        )


def _dress(panel: "Axes") -> None:
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter("{x:g}")
    panel.grid(color="0.9", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
