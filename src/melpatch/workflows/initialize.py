"""Initialise an encoder from a run folder or from foreign weights."""

from dataclasses import fields
from pathlib import Path

from melpatch.checkpoint import load_into
from melpatch.config import check
from melpatch.errors import ConfigError
from melpatch.interop.base import ENDINGS, HUB, Channels, is_weights, start_from_weights
from melpatch.nn.positions import Resize
from melpatch.objectives.base import Objective
from melpatch.progress import notice
from melpatch.training.start import OF_A_CORPUS, load_run

SCRATCH = "scratch"
"""The value of ``init`` that asks for random weights."""


def is_run(init: str) -> bool:
    """Return whether ``init`` names a run folder rather than foreign weights.

    Raises:
        ConfigError: ``init`` names neither.
    """
    weights = is_weights(init)
    problem = "which holds no config.toml" if Path(init).exists() else "which does not exist"
    allowed = (
        f"a run folder, a weight file ({', '.join(ENDINGS)}), {HUB}owner/name "
        f"or, for a classifier, scratch; this is {init}, {problem}"
    )
    check(weights or Path(init, "config.toml").is_file(), "init", init, allowed)
    return not weights


def initialize_encoder(
    objective: Objective,
    init: str,
    resize: Resize | None = None,
    channels: Channels = "sum",
    *,
    trust_code: bool = False,
) -> None:
    """Load the weights that ``init`` names into the encoder of an objective.

    Args:
        objective: the objective whose encoder gets the weights; its heads stay random.
        init: run folder, weight file, or ``hf:owner/name`` for a Hub repository.
        resize: how learned positions are fitted to the encoder's grid; None takes the default of
            the source.
        channels: how the three input channels of an image model are reduced to one.
        trust_code: whether the run may name code outside melpatch, which is then run.

    Raises:
        CheckpointError: the weights cannot be read.
        ConfigError: the weights do not fit the encoder.
    """
    if is_run(init):
        copy_encoder(objective, Path(init), resize, trust_code=trust_code)
    else:
        notice(start_from_weights(objective, init, channels, resize))


def copy_encoder(
    objective: Objective, run: Path, resize: Resize | None = None, *, trust_code: bool = False
) -> None:
    """Copy the encoder of a run into an objective, with learned positions resized to its grid.

    Args:
        objective: the objective whose encoder gets the weights.
        run: the run folder.
        resize: see :func:`melpatch.nn.positions.resize`; None leaves it to the encoder, see
            :meth:`melpatch.encoders.base.Encoder.match_geometry`.
        trust_code: whether the run may name code outside melpatch, which is then run.

    Raises:
        ConfigError: the encoders differ in more than their geometry, or the front ends in more than
            the statistics of a corpus.
    """
    config, source = load_run(run, trust_code=trust_code)
    theirs = config.front_end
    ours = objective.front_end.config
    # A pretrained encoder needs the kind of spectrogram that it was trained on. Mean and std may
    # differ, since a new corpus has its own.
    for field in fields(ours):
        if field.name in OF_A_CORPUS:
            continue
        our_value = getattr(ours, field.name)
        their_value = getattr(theirs, field.name)
        if their_value != our_value:
            raise ConfigError(
                f"front_end.{field.name} = {our_value!r} but {run} was trained with "
                f"{their_value!r}; leave it out, or start from other weights"
            )
    encoder = source.export_encoder()
    encoder.match_geometry(objective.encoder, resize)
    try:
        load_into(objective.encoder, encoder.state_dict())
    except ConfigError as error:
        raise ConfigError(
            f"encoder settings do not fit the weights of {run}: {error}; "
            "leave them out to take its own"
        ) from error
