"""A figure of the confusion matrix of a classifier."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from melpatch.errors import ConfigError, MelpatchError
from melpatch.plots.base import save, sheet

MOST_CLASSES = 50
"""Largest number of classes that can be read in a figure."""
_WITH_COUNTS = 15  # classes up to which there is room for numbers in the cells


def confusion(
    path: Path, matrix: Int[np.ndarray, "_true _predicted"], labels: Sequence[str], title: str = ""
) -> None:
    """Draw a confusion matrix, coloured by the share of each true class; small ones show counts.

    Args:
        path: PNG file to write.
        matrix: number of clips of each true class (row) and predicted class (column).
        labels: the names of the classes.
        title: words above the picture.

    Raises:
        ConfigError: there are more than 50 classes.
        MelpatchError: the matrix does not fit the labels, or matplotlib is missing.
    """
    size = len(labels)
    if matrix.shape != (size, size):
        raise MelpatchError(
            f"a confusion matrix of shape {matrix.shape} for {size} labels; allowed: {(size, size)}"
        )
    if size > MOST_CLASSES:
        raise ConfigError(
            f"a confusion matrix of {size} classes cannot be read as a picture; at most {MOST_CLASSES}"
        )
    side = min(3.2 + 0.45 * size, 10.0)
    figure = sheet(side + 0.7, side, title)
    panel = figure.subplots()
    totals = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, totals, out=np.full(matrix.shape, np.nan), where=totals > 0)
    image = panel.imshow(np.ma.masked_invalid(share), cmap="magma_r", vmin=1e-9, vmax=1)
    # White: no clip in the cell. Grey: no clip of the true class.
    image.set_cmap(image.get_cmap().with_extremes(under="white", bad="0.85"))
    fontsize = 10 if size <= _WITH_COUNTS else 7
    panel.set_xticks(range(size), labels, rotation=90, fontsize=fontsize, parse_math=False)
    panel.set_yticks(range(size), labels, fontsize=fontsize, parse_math=False)
    panel.set_xlabel("predicted class")
    panel.set_ylabel("true class")
    panel.set_xticks(np.arange(size - 1) + 0.5, minor=True)
    panel.set_yticks(np.arange(size - 1) + 0.5, minor=True)
    panel.grid(which="minor", color="0.9", linewidth=0.5)
    panel.tick_params(which="both", length=0)
    if size <= _WITH_COUNTS:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if share[row, column] > 0.5 else "black"
                panel.text(
                    column, row, str(count), ha="center", va="center", color=colour, fontsize=9
                )
    figure.colorbar(image, label="share of the true class", shrink=0.8, pad=0.02)
    save(figure, path)
