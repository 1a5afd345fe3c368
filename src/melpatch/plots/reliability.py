"""A figure of how often a classifier is right that is so certain."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from melpatch.plots.base import save, sheet


def reliability_diagram(
    path: Path, curves: Mapping[str, Mapping[str, Sequence[float]]], title: str = ""
) -> None:
    """Draw the share of right answers over the probability that was promised.

    Args:
        path: PNG file to write.
        curves: of each by its name the number of ``answers`` in each bin, their mean probability
            (``confidence``), and the share that is ``right``.
        title: words above the picture.

    Raises:
        MelpatchError: matplotlib is missing, or the file cannot be written.
    """
    figure = sheet(6.5, 6.5, title)
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="as promised")
    for name, bins in curves.items():
        # The bins hold equal numbers of answers, but for one.
        label = f"{name}, {max(bins['answers']):,.0f} answers a point"
        panel.plot(bins["confidence"], bins["right"], marker="o", markersize=5, label=label)
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)
    panel.set_aspect("equal")
    panel.set_xlabel("probability of the answer")
    panel.set_ylabel("share of answers that are right")
    panel.grid(color="0.9")
    panel.legend(loc="upper left", frameon=False)
    save(figure, path)
