"""What is decided before the first step: corpus statistics, segment and table length, number of steps."""

import math
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from melpatch import distributed
from melpatch.audio.logmel import LogMel
from melpatch.audio.stats import measure
from melpatch.checkpoint import load_weights
from melpatch.config import check, from_toml, owner
from melpatch.data.loader import evaluation_batches, training_order
from melpatch.data.manifest import Corpus
from melpatch.data.segments import crop
from melpatch.errors import ConfigError, DataError
from melpatch.objectives.base import Objective, Plan
from melpatch.training.config import RunConfig, build

OF_A_CORPUS = ("mean", "std", "scale", "padding", "target_frames")
"""Front-end settings that depend on the corpus; the others define what a spectrogram means."""


def measured(config: RunConfig, corpus: Corpus, clips: int) -> RunConfig:
    """Return the config with mean and std measured on at most ``clips`` clips, the first in training order.

    Only rank 0 measures; the result is broadcast.

    Raises:
        DataError: none of them can be read.
    """
    mean, std = distributed.on_rank_zero(lambda: _statistics(config, corpus, clips))
    return replace(config, front_end=replace(config.front_end, mean=mean, std=std))


def _statistics(config: RunConfig, corpus: Corpus, clips: int) -> tuple[float, float]:
    draws = islice(
        training_order(corpus, replace(config.loader, balanced_sampling=False), config.seed, 0),
        min(clips, len(corpus.clips)),
    )
    pieces = [
        crop(corpus.clips[draw.clip], config.loader.seconds, config.seed, 0) for draw in draws
    ]
    loaded = evaluation_batches(pieces, config.front_end.sample_rate, batch_size=16)
    batches = (part.batch for part in loaded if part.batch is not None)
    first = next(batches, None)
    if first is None:
        raise DataError(
            f"{corpus.name}: none of the first clips can be read; run melpatch prepare on it to see why"
        )
    sound = ((batch.wave, batch.lengths) for batch in chain([first], batches))
    mean, std = measure(LogMel(config.front_end), sound)
    return round(mean, 5), round(std, 5)


def shortened(config: RunConfig, corpus: Corpus) -> RunConfig:
    """Return the config with segments no longer than the longest clip, rounded up to a millisecond.

    Views, position tables and the windows of the trained model are then no longer than the audio.
    """
    longest = (
        math.ceil(
            1000 * max((clip.duration for clip in corpus.clips), default=config.loader.seconds)
        )
        / 1000
    )
    return replace(
        config, loader=replace(config.loader, seconds=min(config.loader.seconds, longest))
    )


def fitted(config: RunConfig) -> RunConfig:
    """Return the config with a learned position table as long as what the encoder will be given at once."""
    method: Any = owner(config.objective)
    heard = method.input_seconds(config.objective, config.loader.seconds)
    frames = LogMel(config.front_end).frames(round(heard * config.front_end.sample_rate))
    encoder = config.encoder.fit_positions(
        config.front_end.n_mels, config.front_end.target_frames or frames
    )
    return replace(config, encoder=encoder)


def plan(config: RunConfig, corpus: Corpus) -> Plan:
    """Return the number of steps of a run on the corpus, and what its batches hold.

    Raises:
        ConfigError: the batch size cannot be divided among them.
    """
    batch_size, accumulate, together = (
        config.loader.batch_size,
        config.train.accumulate,
        distributed.world_size(),
    )
    method: Any = owner(config.objective)
    shares = together * accumulate
    pairs = 2 if shares > 1 and method.needs_pairs(config.objective) else 1
    allowed = (
        f"a multiple of {shares * pairs}, which is {together} processes x accumulate = {accumulate}"
    )
    allowed += " x 2, since clips are mixed in pairs" if pairs == 2 else ""
    check(batch_size % (shares * pairs) == 0, "batch_size", batch_size, allowed)
    steps = config.train.steps
    if steps is None:
        steps = max(1, round(config.train.epochs * len(corpus.clips) / batch_size))
    longest = max((clip.duration for clip in corpus.clips), default=0.0)
    seconds = config.loader.seconds
    return Plan(steps, batch_size, seconds, min(longest, seconds), accumulate, together)


def load_run(folder: Path) -> tuple[RunConfig, Objective]:
    """Return the settings and the trained objective of a run folder.

    Raises:
        CheckpointError: weights are missing or damaged.
        ConfigError: the settings are missing or damaged.
    """
    config = from_toml(RunConfig, folder / "config.toml")
    objective = build(config)
    state = load_weights(folder / "model.safetensors")
    try:
        objective.load_state_dict(state)
    except RuntimeError as error:
        raise ConfigError(
            f"{folder}: model.safetensors does not fit config.toml; {str(error).splitlines()[-1].strip()}"
        ) from error
    return config, objective
