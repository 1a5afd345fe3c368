"""A map of embeddings: the two directions in which they differ most."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from melpatch.errors import MelpatchError
from melpatch.plots.base import save, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito 2008: eight colours that are distinct in every kind of colour vision. Each comes
# with a shape of its own, for print without colours.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
_SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")


def principal_components(
    vectors: Float[np.ndarray, "clip dim"],
) -> tuple[Float[np.ndarray, "clip 2"], Float[np.ndarray, "2"]]:
    """Return the vectors in the two directions of largest variance, and the shares of it there.

    Raises:
        MelpatchError: there are fewer than three vectors, or they are all the same.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    total = float(np.square(centred).sum())
    if len(vectors) < 3 or vectors.shape[1] < 2 or total == 0:
        raise MelpatchError("a map needs three clips or more whose embeddings differ")
    left, scales, _ = np.linalg.svd(centred, full_matrices=False)
    return left[:, :2] * scales[:2], np.square(scales[:2]) / total


def embedding_map(
    path: Path, vectors: Float[np.ndarray, "clip dim"], labels: Sequence[str], title: str = ""
) -> None:
    """Draw each embedding as a point in the plane of the first two principal components.

    The eight commonest labels have a colour and a shape each; all others are grey.

    Args:
        path: PNG file to write.
        vectors: the embeddings.
        labels: the label of each; blank for none.
        title: words above the picture.

    Raises:
        MelpatchError: the embeddings do not differ, or matplotlib is missing.
    """
    points, shares = principal_components(vectors)
    figure = sheet(8.0, 5.4, title)
    panel = figure.subplots()
    counts = Counter(label for label in labels if label)
    named = [label for label, _ in counts.most_common(len(_COLOURS))]
    given = np.array(labels)
    rest = ~np.isin(given, named)
    if rest.any():
        name = f"others: {rest.sum()}" if named else f"clips: {rest.sum()}"
        _scatter(panel, points[rest], "0.6", ".", name)
    for label, colour, shape in zip(named, _COLOURS, _SHAPES, strict=False):
        own = points[given == label]
        _scatter(panel, own, colour, shape, f"{label}: {len(own)}")
    first, second = (f"({share:.0%} of the variance)" for share in shares)
    panel.set_xlabel(f"first principal component {first}")
    panel.set_ylabel(f"second principal component {second}")
    legend = figure.legend(loc="outside right upper", frameon=False, title="label: clips")
    for words in legend.get_texts():
        words.set_parse_math(False)
    panel.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def _scatter(
    panel: "Axes", points: Float[np.ndarray, "clip 2"], colour: str, shape: str, name: str
) -> None:
    panel.scatter(
        points[:, 0],
        points[:, 1],
        s=26,
        color=colour,
        marker=shape,
        edgecolors="white",
        linewidths=0.4,
        label=name,
    )
