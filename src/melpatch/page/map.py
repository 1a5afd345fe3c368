"""A map of a collection: its vectors on their two principal axes."""

import numpy as np
from jaxtyping import Float, Int

from melpatch.page.split import random_order
from melpatch.search.index import Index

_MOST = 4000  # points


def map_of(index: Index) -> tuple[Int[np.ndarray, " point"], Float[np.ndarray, "point axis"]]:
    """Return rows drawn at random, and where they lie on the map, in [-1, 1]."""
    # Imported here, since it takes longer than most of what the page needs.
    from sklearn.decomposition import PCA

    rows = np.sort(random_order(len(index), "map")[:_MOST])
    rows = rows[index.latest[rows]]
    mean, deviation = index.scale
    standardised = (index.vectors(rows) - mean) / deviation
    # Lengths differ most between loud and faint sounds; what a search compares are directions.
    lengths = np.linalg.norm(standardised, axis=1, keepdims=True)
    unit = standardised / np.maximum(lengths, 1e-6)
    places = np.zeros((len(rows), 2), np.float32)
    axes = min(2, *unit.shape)
    pca = PCA(axes, svd_solver="randomized", random_state=0)
    places[:, :axes] = pca.fit_transform(unit)
    # A few far points would press all others together.
    reach = np.maximum(np.quantile(np.abs(places), 0.99, axis=0), 1e-9)
    clipped: np.ndarray = np.clip(places / reach, -1, 1)
    return rows, clipped
