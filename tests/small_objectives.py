"""The defaults of an objective with narrow heads and short views: a step of any objective takes milliseconds."""

from dataclasses import fields, is_dataclass, replace

LARGEST = {
    "dim": 64,
    "prototypes": 128,
    "projection": 64,
    "decoder": 64,
    "depth": 2,
    "heads": 4,
    "seconds": 0.5,
    "views": 4,
    "groups": 4,
}
"""The largest value, or each of several, of a setting whose name ends so."""


def small(config):
    """Return a configuration whose sizes, also those of its parts, are at most LARGEST."""
    changes = {}
    for field in fields(config):
        value = getattr(config, field.name)
        limit = LARGEST.get(field.name.rpartition("_")[2])
        if is_dataclass(value):
            changes[field.name] = small(value)
        elif limit is not None and isinstance(value, int | float):
            changes[field.name] = min(value, limit)
        elif limit is not None and isinstance(value, tuple):
            changes[field.name] = tuple(min(width, limit) for width in value)
    return replace(config, **changes)
