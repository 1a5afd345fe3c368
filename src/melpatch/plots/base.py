"""Figures of matplotlib, which is imported on first use and whose global state is left alone."""

import textwrap
import warnings
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
# By which a picture is known as one of melpatch.
_SOFTWARE = "melpatch"
_BEFORE_IMAGE = 1000  # bytes of a PNG file, in which its texts stand


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


def is_own_picture(path: Path) -> bool:
    """Return whether a file is a picture that melpatch drew."""
    with path.open("rb") as file:
        return f"Software\0{_SOFTWARE}".encode() in file.read(_BEFORE_IMAGE)


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG file.

    Raises:
        MelpatchError: the file cannot be written.
    """
    require_usable_name(path)
    try:
        with written_aside(path) as aside, warnings.catch_warnings():
            # Names may hold letters that the font lacks, which are drawn as boxes.
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            figure.savefig(aside, format="png", metadata={"Software": _SOFTWARE})
    except OSError as error:
        raise MelpatchError(
            f"{path}: cannot be written ({error.strerror}); {remedy(error)}"
        ) from error
