"""A small module of Python that lets a benchmark load a run through ``melpatch.load``."""

from dataclasses import dataclass, replace
from importlib.metadata import version
from string import Template

import numpy as np

from melpatch.export.source import Source
from melpatch.inference.fitted import FittedPooling
from melpatch.training.config import require_run


@dataclass(frozen=True)
class Facts:
    """What benchmarks ask of a run.

    Attributes:
        run: absolute path of the run folder.
        pooling: spelling of the pooling of a whole clip.
        dim: numbers of a clip's vector.
        frame_pooling: spelling of the pooling of a frame, which has the mean only.
        frame_dim: numbers of a frame's vector.
        hop: seconds between frames, one column of patches.
    """

    run: str
    pooling: str
    dim: int
    frame_pooling: str
    frame_dim: int
    hop: float


def facts_of(source: Source) -> Facts:
    """Return what benchmarks ask of a run.

    Raises:
        ConfigError: the run has no such pooling, or it is a model of other code.
    """
    require_run(source.folder)
    model = source.model
    pooling = model.network.resolve_pooling(source.pooling)
    per_frame = pooling.pooled if isinstance(pooling, FittedPooling) else pooling
    per_frame = replace(per_frame, statistics=("mean",), takes_cls=False, segments=1)
    objective = model.objective
    hop = round(objective.encoder.grid.stride[1] * objective.front_end.hop_seconds, 9)
    name = source.pooling or str(pooling)
    silence = np.zeros(1, np.float32)
    frames = model.embed(silence, model.sample_rate, pooling=str(per_frame), hop=hop)
    return Facts(
        run=str(source.folder.resolve()),
        pooling=name,
        dim=len(model.embed(silence, model.sample_rate, pooling=name)),
        frame_pooling=str(per_frame),
        frame_dim=frames.vectors.shape[1],
        hop=hop,
    )


def adapter(template: str, facts: Facts, **more: object) -> str:
    """Return a module of Python.

    Args:
        template: its text, with ``$NAME`` for the values, which are written as Python has them, and
            ``$MELPATCH`` for the version.
        facts: gives the values RUN, POOLING, DIM, FRAME_POOLING, FRAME_DIM and HOP.
        more: further values.
    """
    values = {name.upper(): repr(value) for name, value in vars(facts).items()}
    values |= {name.upper(): repr(value) for name, value in more.items()}
    return Template(template).substitute(values, MELPATCH=version("melpatch"))
