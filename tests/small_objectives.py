"""The defaults of an objective with narrow heads and short views: a step of any objective takes milliseconds."""

from dataclasses import fields, is_dataclass, replace

from melpatch import registry
from melpatch.nn.distillation_settings import Classification
from melpatch.nn.hypotheses import Hypotheses
from melpatch.nn.mixtures import Mixtures
from melpatch.objectives.eat import EAT
from melpatch.objectives.m2d import M2D

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


class Variant:
    """An objective with settings that make it another published one, which keeps the same promises."""

    def __init__(self, objective, *, on_other_clips=False, **settings):
        self.objective = objective
        self.settings = settings
        self.depends_on_other_clips = on_other_clips

    def Config(self):  # noqa: N802
        """Return the settings, as the class of an objective does."""
        return self.objective.Config(**self.settings)

    def __getattr__(self, name):
        return getattr(self.objective, name)


VARIANTS = {
    "m2d as matpac++": Variant(
        M2D,
        standardise=False,
        classification=Classification(weight=0.5, momentum=0.9),
        hypotheses=Hypotheses(count=3),
    ),
    "eat as sslam": Variant(
        EAT,
        on_other_clips=True,
        views=2,
        utterance_weight=1.0,
        utterance_layers=1,
        mixtures=Mixtures(use=True),
    ),
}
NAMES = [*registry.names("objectives"), *VARIANTS]
"""Names of all objectives and variants."""


def find(name):
    """Return an objective, or a variant of one, by its name."""
    return VARIANTS.get(name) or registry.find("objectives", name)
