"""Weights that were read for their settings, handed over to whoever loads them next.

A command takes the defaults of its flags from the weights that it starts from, and loads these
weights once it has read its data. Both are of one download, and one reading.
"""

from pathlib import Path

from melpatch.weight_files import Weights, is_on_hub

_HANDED: dict[tuple[object, ...], Weights] = {}
"""By the state of their source: one entry at most."""


def hand_over(source: str, weights: Weights) -> None:
    """Keep weights for the next :func:`taken_over` of their source, instead of any kept before.

    Args:
        source: see :func:`melpatch.weight_files.read_weights`.
        weights: what was read from it.
    """
    _HANDED.clear()
    _HANDED[_state_of(source)] = weights


def taken_over(source: str) -> Weights | None:
    """Return the weights that were handed over, and keep none.

    None if there are none, they are of another source, or a file has changed since.
    """
    weights = _HANDED.get(_state_of(source))
    _HANDED.clear()
    return weights


def _state_of(source: str) -> tuple[object, ...]:
    """Return the source with the times and sizes of its files, if they are on this machine."""
    path = Path(source)
    if is_on_hub(source) or not path.exists():
        return (source,)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files]
    return (str(path.resolve()), *states)
