"""Initialise an encoder from a run folder, or from other people's weights."""

from dataclasses import fields
from pathlib import Path

from melpatch.config import check
from melpatch.errors import ConfigError
from melpatch.interop.base import ENDINGS, HUB, Channels, is_weights, start_from_weights
from melpatch.nn.positions import Resize
from melpatch.objectives.base import Objective
from melpatch.progress import notice
from melpatch.training.start import OF_A_CORPUS, load_run

SCRATCH = "scratch"
"""The ``init`` that stands for random weights."""


def is_run(init: str) -> bool:
    """Return whether ``init`` names a run folder rather than foreign weights.

    Raises:
        ConfigError: it names neither.
    """
    weights = is_weights(init)
    allowed = f"a run folder, a weight file ({', '.join(ENDINGS)}), {HUB}owner/name or, for a classifier, scratch"
    check(weights or Path(init, "config.toml").is_file(), "init", init, allowed)
    return not weights


def initialize_encoder(
    objective: Objective, init: str, resize: Resize | None = None, channels: Channels = "sum"
) -> None:
    """Load the weights that ``init`` names into the encoder of an objective.

    Args:
        objective: its encoder is filled; heads keep their random weights.
        init: run folder, weight file, or ``hf:owner/name`` for a Hub repository.
        resize: how learned positions are fitted to the encoder's grid; None takes the default of the source.
        channels: how the three input channels of an image model are reduced to one.

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: they do not fit the encoder.
    """
    if is_run(init):
        copy_encoder(objective, Path(init), resize)
    else:
        notice(start_from_weights(objective, init, channels, resize))


def copy_encoder(objective: Objective, run: Path, resize: Resize | None = None) -> None:
    """Copy the encoder of a run into an objective, resizing learned positions to the objective's grid.

    Args:
        objective: where to copy it to.
        run: the run folder.
        resize: see :func:`melpatch.nn.positions.resize`; None leaves it to the encoder, see
            :meth:`melpatch.encoders.base.Encoder.match_geometry`.

    Raises:
        ConfigError: the encoders differ in more than geometry, or the front ends in what a spectrogram means.
    """
    config, source = load_run(run)
    theirs = config.front_end
    ours = objective.front_end.config
    for name in (field.name for field in fields(ours) if field.name not in OF_A_CORPUS):
        if getattr(theirs, name) != getattr(ours, name):
            raise ConfigError(
                f"front_end.{name} = {getattr(ours, name)!r} but {run} was trained with {getattr(theirs, name)!r}; "
                "leave it out, or start from other weights"
            )
    encoder = source.export_encoder()
    encoder.match_geometry(objective.encoder, resize)
    try:
        objective.encoder.load_state_dict(encoder.state_dict())
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ConfigError(
            f"encoder settings do not fit the weights of {run}: {reason}; leave them out to take its own"
        ) from error
