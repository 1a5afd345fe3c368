"""The defaults of an objective with narrow heads and short views: a step of any objective takes milliseconds."""

from dataclasses import fields, is_dataclass, replace

from melpatch import registry
from melpatch.audio.logmel import LogMel
from melpatch.encoders.cnn14 import CNN14
from melpatch.nn.distillation_settings import Classification
from melpatch.nn.hypotheses import Hypotheses
from melpatch.nn.mixtures import Mixtures
from melpatch.objectives.audio2vec import Audio2Vec
from melpatch.objectives.classify import Classify
from melpatch.objectives.distill import Distill
from melpatch.objectives.eat import EAT
from melpatch.objectives.m2d import M2D
from melpatch.objectives.teacher import TeacherConfig

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


CLASSIFIER = TeacherConfig(
    front_end=LogMel.Config(sample_rate=11025, n_mels=32, hop_ms=6.0, scale=1.0),
    encoder=CNN14.Config(network="cnn6", width=8),
    objective=Classify.Config(pooling="cls"),
    labels=("high", "low"),
    longest=10.0,
    vector_dim=64,
    token_dim=64,
    layer_dims=(8, 16, 32, 64),
)
"""A classifier of another kind than the students, at another rate and front end."""

VARIANTS = {
    "audio2vec by skip_gram": Variant(Audio2Vec, pretext="skip_gram"),
    "audio2vec by temporal_gap": Variant(Audio2Vec, pretext="temporal_gap"),
    "distill from a classifier": Variant(
        Distill,
        network=CLASSIFIER,
        layers=(2, 4),
        labels=1.0,
        hidden=16,
        loss="cosine",
        patch_out=0.4,
    ),
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


WITHOUT_CHANCE = (Classify, Distill)
"""Objectives that draw no random numbers unless their settings say so."""


def find(name):
    """Return an objective, or a variant of one, by its name."""
    return VARIANTS.get(name) or registry.find("objectives", name)
