"""A map of a collection: its vectors on their two principal axes, or by UMAP."""

import numpy as np
from jaxtyping import Float, Int

from melpatch.config import check
from melpatch.errors import ConfigError
from melpatch.page.split import random_order
from melpatch.search.index import Index

_MOST = 4000  # points
_FEWEST = 5  # for UMAP, which starts from eigenvectors of the graph of neighbours
WAYS = ("pca", "umap")
"""How the map is drawn: on the two principal axes, or by UMAP, which keeps neighbours together."""


def map_of(
    index: Index, by: str = "pca"
) -> tuple[Int[np.ndarray, " point"], Float[np.ndarray, "point axis"]]:
    """Return rows drawn at random, and where they lie on the map, in [-1, 1].

    Raises:
        ConfigError: there is no such way, or it needs a library that is not installed.
    """
    check(by in WAYS, "by", by, ", ".join(WAYS))
    rows = np.sort(random_order(len(index), "map")[:_MOST])
    rows = rows[index.latest[rows]]
    mean, deviation = index.scale
    standardised = (index.vectors(rows) - mean) / deviation
    # Lengths differ most between loud and faint sounds; what a search compares are directions.
    lengths = np.linalg.norm(standardised, axis=1, keepdims=True)
    unit = standardised / np.maximum(lengths, 1e-6)
    places = _by_umap(unit) if by == "umap" else _by_pca(unit)
    # A few far points would press all others together.
    reach = np.maximum(np.quantile(np.abs(places), 0.99, axis=0), 1e-9)
    clipped: np.ndarray = np.clip(places / reach, -1, 1)
    return rows, clipped


def _by_pca(unit: Float[np.ndarray, "point dim"]) -> Float[np.ndarray, "point axis"]:
    # Imported here, since it takes longer than most of what the page needs.
    from sklearn.decomposition import PCA

    places = np.zeros((len(unit), 2), np.float32)
    axes = min(2, *unit.shape)
    pca = PCA(axes, svd_solver="randomized", random_state=0)
    places[:, :axes] = pca.fit_transform(unit)
    return places


def _by_umap(unit: Float[np.ndarray, "point dim"]) -> Float[np.ndarray, "point axis"]:
    """Return places by UMAP with its own defaults (McInnes et al. 2018, arXiv 1802.03426)."""
    try:
        from umap import UMAP
    except ImportError as error:
        raise ConfigError(
            "a map by UMAP needs umap-learn; install it with: pip install 'melpatch[umap]'"
        ) from error
    check(len(unit) >= _FEWEST, "by", "umap", f"pca for fewer than {_FEWEST} clips")
    neighbours = min(15, len(unit) - 1)
    umap = UMAP(n_components=2, n_neighbors=neighbours, metric="cosine", random_state=0, n_jobs=1)
    places: np.ndarray = np.asarray(umap.fit_transform(unit), np.float32)
    places -= (places.max(axis=0) + places.min(axis=0)) / 2
    return places
