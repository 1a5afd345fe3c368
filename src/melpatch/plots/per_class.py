"""A figure of the score of every class, with its number of clips."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from melpatch.errors import MelpatchError
from melpatch.plots.base import save, sheet

_MOST = 60  # more rows than this cannot be read; the best and the worst are shown then


def per_class(path: Path, table: Sequence[Mapping[str, Any]], score: str, title: str = "") -> None:
    """Draw one bar per class, sorted, with its number of clips; classes without a score are named below.

    Args:
        path: PNG file to write.
        table: a row per class with ``label``, ``positives`` and the score, which may be None.
        score: the column to draw, between 0 and 1, such as ``F1`` or ``AP``.
        title: words above the picture.

    Raises:
        MelpatchError: no class has a score; or matplotlib is missing.
    """
    known = sorted(
        (row for row in table if row[score] is not None), key=lambda row: -float(row[score])
    )
    if not known:
        raise MelpatchError(
            f"no class can be drawn, since none has a score ({score}); score more clips"
        )
    shown = known if len(known) <= _MOST else [*known[: _MOST // 2], *known[-_MOST // 2 :]]
    figure = sheet(7.0, 1.2 + 0.22 * len(shown), title)
    panel = figure.subplots()
    values = [float(row[score]) for row in shown]
    panel.barh(range(len(shown)), values, color="#3b6ea5", height=0.75)
    for place, (row, value) in enumerate(zip(shown, values, strict=True)):
        panel.text(
            value + 0.01, place, f"{value:.2f}  ({row['positives']})", va="center", fontsize=7
        )
    panel.set_yticks(
        range(len(shown)), [str(row["label"]) for row in shown], fontsize=7, parse_math=False
    )
    panel.set_ylim(len(shown) - 0.4, -0.6)  # the best on top
    panel.set_xlim(0, 1.15)
    if len(shown) < len(known):
        panel.axhline(_MOST / 2 - 0.5, color="0.6", linestyle="--", linewidth=0.8)
        panel.set_ylabel(f"best and worst {_MOST // 2} of {len(known)} classes")
    missing = [str(row["label"]) for row in table if row[score] is None]
    without = f"; {len(missing)} without a score: {', '.join(missing[:8])}" if missing else ""
    panel.set_xlabel(f"{score} (number of clips){without}", fontsize=8, parse_math=False)
    panel.spines[["top", "right"]].set_visible(False)
    save(figure, path)
