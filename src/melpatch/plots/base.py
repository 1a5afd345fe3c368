"""Figures of matplotlib, which is imported on first use and whose global state is left alone."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from melpatch.atomic import written_aside
from melpatch.errors import MelpatchError
from melpatch.faults import remedy
from melpatch.outputs import require_usable_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
"""Dots per inch of every picture."""


def sheet(width: float, height: float, title: str = "") -> "Figure":
    """Return an empty figure of a size in inches; it never opens a window.

    Raises:
        MelpatchError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MelpatchError(
            "pictures need matplotlib; install it with: pip install 'melpatch[plots]'"
        ) from error
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        # A letter is about a ninth of an inch wide.
        title = textwrap.fill(title, round(9 * width))
        figure.suptitle(title, fontsize=12, fontweight="bold", parse_math=False)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG file.

    Raises:
        MelpatchError: the file cannot be written.
    """
    require_usable_name(path)
    try:
        with written_aside(path) as aside:
            figure.savefig(aside, format="png")
    except OSError as error:
        raise MelpatchError(
            f"{path}: cannot be written ({error.strerror}); {remedy(error)}"
        ) from error
