"""Decisions before the first step: statistics, segment and table length, number of steps."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from melpatch import distributed
from melpatch.audio.logmel import LogMel
from melpatch.audio.stats import measure
from melpatch.checkpoint import load_into, load_weights
from melpatch.config import check, owner
from melpatch.counted import counted
from melpatch.data.clip_columns import durations_of
from melpatch.data.loader import evaluation_batches, training_order
from melpatch.data.manifest import Corpus
from melpatch.data.segments import crop
from melpatch.errors import ConfigError, DataError
from melpatch.objectives.base import Objective, Plan
from melpatch.progress import notice
from melpatch.training.config import RunConfig, build_unfilled, read_settings
from melpatch.training.foreign import Given, open_foreign
from melpatch.weight_files import is_weights, require_weights

OF_A_CORPUS = ("mean", "std", "scale", "padding", "target_frames")
"""Front-end settings that depend on the corpus; the others define what a spectrogram means."""


def measured(config: RunConfig, corpus: Corpus, clips: int) -> RunConfig:
    """Return the config with the front end's mean and std measured on the corpus.

    Only rank 0 measures; the result is broadcast.

    Args:
        config: the settings of the run.
        corpus: the training clips.
        clips: the largest number of clips to measure, the first in training order.

    Raises:
        DataError: none of them can be read.
    """
    values = distributed.on_rank_zero(lambda: statistics(config, corpus, clips))
    return replace(config, front_end=replace(config.front_end, mean=values.mean, std=values.std))


class Statistics(NamedTuple):
    """Mean and standard deviation of the log-mel values of some clips."""

    mean: float
    std: float
    clips: int
    """Number of clips that were measured; those that cannot be read are not among them."""


def statistics(config: RunConfig, corpus: Corpus, clips: int) -> Statistics:
    """Return mean and deviation of the log-mel values of a corpus; see :func:`measured`.

    Raises:
        DataError: no clip can be read, or all are silent.
    """
    # Without balanced sampling each clip is drawn once.
    loader = replace(config.loader, balanced_sampling=False)
    order = training_order(corpus, loader, config.seed, 0)
    draws = islice(order, min(clips, len(corpus.clips)))
    segments = [crop(corpus.clips[draw.clip], loader.seconds, config.seed, 0) for draw in draws]
    loaded = evaluation_batches(segments, config.front_end.sample_rate, batch_size=16)
    batches = (part.batch for part in loaded if part.batch is not None)
    first = next(batches, None)
    if first is None:
        raise DataError(
            f"{corpus.shown_name}: none of the first clips can be read; run melpatch prepare on it to "
            "see why"
        )
    counts: list[int] = []

    def waves() -> Iterator[tuple[Tensor, Tensor]]:
        for batch in chain([first], batches):
            counts.append(len(batch))
            yield batch.wave, batch.lengths

    mean, std = measure(LogMel(config.front_end), waves())
    values = Statistics(round(mean, 5), round(std, 5), sum(counts))
    if values.std <= 0:
        raise DataError(
            f"{corpus.shown_name}: no sound in {counted(values.clips, 'measured clip')}; "
            "melpatch prepare tells which are silent. Channels in opposite phase cancel each other: "
            "take one with --channel left"
        )
    return values


def shortened(config: RunConfig, corpus: Corpus) -> RunConfig:
    """Return the config with segments no longer than the longest clip, rounded up to a millisecond.

    Views, position tables and the windows of the trained model are then no longer than the audio.
    """
    seconds = config.loader.seconds
    longest = float(durations_of(corpus.clips).max(initial=0.0)) or seconds
    longest = math.ceil(1000 * longest) / 1000
    loader = replace(config.loader, seconds=min(seconds, longest))
    return replace(config, loader=loader)


def fitted(config: RunConfig) -> RunConfig:
    """Return the config with a learned position table as long as the encoder's input."""
    objective_class: Any = owner(config.objective)
    input_seconds = objective_class.input_seconds(config.objective, config.loader.seconds)
    front_end = config.front_end
    frames = front_end.target_frames
    if not frames:
        frames = LogMel(front_end).frames(round(input_seconds * front_end.sample_rate))
    return replace(config, encoder=config.encoder.fit_positions(front_end.n_mels, frames))


def plan(config: RunConfig, corpus: Corpus) -> Plan:
    """Return the number of steps of a run on the corpus, and the sizes of its batches.

    Raises:
        ConfigError: the batch size cannot be divided among the processes and accumulated batches.
    """
    batch_size = config.loader.batch_size
    accumulate = config.train.accumulate
    world_size = distributed.world_size()
    _check_divisible(config, world_size)
    steps = config.train.steps
    if steps is None:
        steps = max(1, round(config.train.epochs * len(corpus.clips) / batch_size))
    durations = durations_of(corpus.clips)
    longest = float(durations.max(initial=0.0))
    seconds = config.loader.seconds
    # Short clips are repeated from a random place.
    repeated = config.loader.short_clips == "repeat" and bool((durations < seconds).any())
    return Plan(
        steps=steps,
        batch_size=batch_size,
        seconds=seconds,
        longest_segment=min(longest, seconds),
        accumulate=accumulate,
        world_size=world_size,
        fixed_input=longest <= seconds and not repeated,
    )


def _check_divisible(config: RunConfig, world_size: int) -> None:
    """Raise ConfigError unless the batch divides into equal micro-batches of whole mixtures."""
    accumulate = config.train.accumulate
    divisor = world_size * accumulate
    factors = f"{world_size} processes x accumulate = {accumulate}"
    # A single micro-batch may leave some clips without a partner.
    objective_class: Any = owner(config.objective)
    together = objective_class.clips_together(config.objective)
    if divisor > 1 and together > 1:
        divisor *= together
        factors += f" x {together}, the clips that may be mixed with each other"
    batch_size = config.loader.batch_size
    allowed = f"a multiple of {divisor}, which is {factors}"
    check(batch_size % divisor == 0, "batch_size", batch_size, allowed)


def load_run(
    folder: Path, *, trust_code: bool = False, given: Given | None = None
) -> tuple[RunConfig, Objective]:
    """Return the settings and the trained objective of a run, or of a model of other code.

    Args:
        folder: the run folder, or see :func:`melpatch.weight_files.read_weights`.
        trust_code: whether the run may name code outside melpatch, which is then run.
        given: what the user says of a model of other code; not for a run.

    Raises:
        CheckpointError: weights are missing or damaged.
        ConfigError: the settings are missing or damaged.
    """
    if is_weights(str(folder)):
        if folder.is_dir() and not (folder / "config.json").exists():
            raise ConfigError(
                f"{folder}: holds weights, but neither config.toml, as a run does, nor config.json, as "
                "a model of Hugging Face does; restore or download it"
            )
        model = open_foreign(str(folder), given)
        notice(str(model.source))
        return model.config, model.objective
    if given is not None:
        raise ConfigError(f"{folder}: a run has labels of its own; leave out --labels")
    if (folder / "config.json").exists() and not (folder / "config.toml").exists():
        require_weights(str(folder))
    config = read_settings(folder, trust_code=trust_code)
    objective = build_unfilled(config)
    state = load_weights(folder / "model.safetensors")
    try:
        load_into(objective, state)
    except ConfigError as error:
        raise ConfigError(
            f"{folder}: model.safetensors does not fit config.toml; {error}"
        ) from error
    return config, objective
