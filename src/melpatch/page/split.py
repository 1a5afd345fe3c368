"""Which rows of an index are kept apart to test heads: those of recordings drawn at random."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int

from melpatch import rng
from melpatch.search.index import Index

_SHARE = 0.2
_FEWEST = 10
"""Recordings below which stretches of a minute are drawn instead."""
_MINUTE = 60.0


def groups_of(index: Index) -> Int[np.ndarray, " row"]:
    """Return a number for the recording of each row; where there are few, for its minute in it.

    A recording is known by its name and that of its folder, so that a collection may be moved.
    """
    names = ["/".join(Path(recording.path).parts[-2:]) for recording in index.recordings]
    files = np.array([rng.hash_text(name) for name in names])
    groups: np.ndarray = files[index.rows["recording"]]
    if len(np.unique(groups)) < _FEWEST:
        minutes = (index.rows["start"] // _MINUTE).astype(np.int64)
        # Wraps around, which does no harm to a number that only tells groups apart.
        groups = groups ^ (minutes << 1)
    return groups


def kept_for_tests(groups: Int[np.ndarray, " row"]) -> Bool[np.ndarray, " row"]:
    """Return which rows are kept for tests: all those of a fifth of the groups.

    Whether a group is one of them depends on nothing but its number, so that an index may grow.
    """
    unique, inverse = np.unique(groups, return_inverse=True)
    drawn = rng.uniform(rng.stream(0, "page test", torch.from_numpy(unique)))
    result: np.ndarray = (drawn.numpy() < _SHARE)[inverse]
    return result


def random_order(size: int, purpose: str) -> Int[np.ndarray, " row"]:
    """Return all rows in an order drawn at random once and for all."""
    order: np.ndarray = rng.permutation(0, f"page {purpose}", 0, size).numpy()
    return order
