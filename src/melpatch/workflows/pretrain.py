"""Pretrain an encoder on unlabelled audio: from a config to a finished run."""

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from melpatch.config import check
from melpatch.counted import counted
from melpatch.data.manifest import Corpus
from melpatch.default_dtype import float32_by_default
from melpatch.interop.base import Axes, Channels, Reading
from melpatch.nn.positions import Resize
from melpatch.progress import notice
from melpatch.recipes.base import clips_to_measure, recipe_settings
from melpatch.training.config import RunConfig, build, read_settings
from melpatch.training.health import EmbeddingHealth
from melpatch.training.loop import fit
from melpatch.training.run import Run
from melpatch.training.size import require_training_fits
from melpatch.training.start import fitted, measured, plan, shortened
from melpatch.training.trackers import Track, make_tracker
from melpatch.workflows.budget import parse_budget, within_budget
from melpatch.workflows.corpus import (
    clips_without_a_mask,
    describe_corpus,
    low_coverage,
    read_corpus,
    tell_about_sound,
    without_splits,
)
from melpatch.workflows.initialize import (
    as_run,
    initialize_encoder,
    is_run,
    named_size,
    sized_as_published,
)
from melpatch.workflows.runs import describe_objective, reopen
from melpatch.workflows.teacher import (
    hand_in,
    heard_as,
    keep_teacher,
    measure_targets,
    tell_of_empty_bands,
    with_teacher,
)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Settings of a pretraining run; every field of the recipe is a flag."""

    recipe: tyro.conf.Positional[str]
    """A recipe for your own data (ssast, asit_short) or a paper's (melpatch list), an objective
    with its defaults, or auto, which chooses recipe and settings from the corpus and the budget."""
    out: Path
    """Run folder to write."""
    size: str = "tiny"
    """Size of the encoder: nano, mini, tiny, small, base or large; weights in --init have one
    already."""
    encoder: str | None = None
    """Kind of encoder: vit, beats, cnn14 or byol_a (melpatch list encoders); by default the
    recipe's."""
    init: str | None = None
    """Run folder, weight file or hf:owner/name (a Hub repository) whose encoder to start from;
    front end and encoder are as there, unless flags say otherwise; by default random weights."""
    init_channels: Channels = "sum"
    """How the three input channels of an image model in --init become one."""
    init_axes: Axes | None = None
    """Axes of the spectrograms that weights in --init saw, see melpatch finetune --help."""
    resize_positions: Resize | None = None
    """How learned positions of --init are fitted to another grid, see melpatch finetune --help."""
    resume: bool = False
    """Continue the run in --out, if there is one."""
    exclude_splits: tuple[str, ...] | None = None
    """Splits or folds that are left out of pretraining; by default val and test, if they exist."""
    budget: str | None = None
    """Wall-clock time of the run, such as 45s, 30m or 2h, instead of --steps and --epochs; it
    starts when the libraries are loaded. A few real steps are timed, and the number of steps is set
    so that the run, including evaluations and saves, ends in that time. Evaluations take at most a
    tenth of it."""
    stats_clips: int = 512
    """Clips on which the spectrogram's mean and std are measured; 0 takes the given ones."""
    track: Track = "none"
    """Where curves and pictures go besides metrics.jsonl."""
    trust_code: bool = False
    """Allow the run in --init, or in --out with --resume, to name code outside melpatch, which is
    run."""
    training: Annotated[RunConfig, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.stats_clips >= 0, "stats_clips", self.stats_clips, "0 or more")
        if self.budget is not None:
            parse_budget(self.budget)


def pretrain_defaults(
    recipe: str,
    *,
    size: str | None = None,
    encoder: str | None = None,
    init: str | None = None,
    reading: Reading | None = None,
    teacher: str | None = None,
    own_rate: bool = False,
    trust_code: bool = False,
) -> PretrainConfig:
    """Return the config of a recipe, without data and ``out``.

    Args:
        recipe: recipe, objective, or ``package.module:Class``.
        size: size of the encoder; None is tiny, or that of the weights.
        encoder: kind of encoder; None takes the recipe's.
        init: run folder, weight file or Hub repository, whose front end and encoder are taken.
        reading: how weights of other code are read.
        teacher: who teaches, of a distillation, whose front end is the default.
        own_rate: whether the user gives a sampling rate, with which the recipe's front end goes.
        trust_code: whether the run or the teacher may name code outside melpatch, which is then
            run.

    Raises:
        CheckpointError: a weight file cannot be read.
        ConfigError: there is no such recipe, it needs labels, or ``init`` names no weights.
    """
    reading = reading or Reading()
    run = None
    chosen_size = size or "tiny"
    if init is not None and is_run(init):
        run = read_settings(Path(init), trust_code=trust_code)
        # Some recipes fit their heads to the size of the encoder.
        chosen_size = size or named_size(run.encoder) or "tiny"
    training = recipe_settings(recipe, chosen_size, encoder, with_labels=False)
    training = heard_as(training, teacher, own_rate=own_rate, trust_code=trust_code)
    if run is not None:
        training = as_run(training, run, size=size)
    elif init is not None:
        training = sized_as_published(training, init, reading, size=size, encoder=encoder)
    return PretrainConfig(
        recipe=recipe,
        out=Path(),
        size=chosen_size,
        encoder=encoder,
        init=init,
        init_axes=reading.axes,
        stats_clips=clips_to_measure(training),
        training=training,
    )


@float32_by_default()
def pretrain(config: PretrainConfig) -> Run:
    """Pretrain an encoder on unlabelled audio, and return the run.

    Raises:
        MelpatchError: the run cannot be started, resumed or trained; the message tells the remedy.
        Interrupted: a signal stopped the run, which is saved.
    """
    started = time.monotonic()
    run = reopen(config)
    training = config.training
    if run is not None:
        # The clips may have moved since.
        training = replace(run.config, data=training.data)
    corpus = without_splits(read_corpus(training, run), config.exclude_splits)
    training, teacher = with_teacher(training, run, config.out, trust_code=config.trust_code)
    # A resumed run keeps what was measured when it was started, its number of steps included.
    if run is None:
        tell_about_sound(corpus, training)
        tell_of_empty_bands(teacher, corpus)
        training = _resolved(training, corpus, config.stats_clips)
        if config.budget is not None:
            ready = partial(hand_in, teacher=teacher)
            training = within_budget(training, corpus, config.budget, started, ready)
    objective = build(training)
    hand_in(objective, teacher)
    if config.init is not None and not (run and run.newest):
        if is_run(config.init):
            notice(f"front end and encoder are as in {config.init}, apart from what flags say")
        initialize_encoder(
            objective,
            config.init,
            config.resize_positions,
            Reading(channels=config.init_channels, axes=config.init_axes),
            trust_code=config.trust_code,
        )
    # Checked before the run folder is created, so that a wrong setting leaves no folder.
    intended = plan(training, corpus)
    require_training_fits(objective, intended)
    objective.check_plan(intended)
    if not (run and run.newest):
        measure_targets(objective, training, corpus)
    run = run or Run.create(config.out, training, config)
    keep_teacher(run, teacher)
    run.reject(corpus.rejected)
    clips = counted(len(corpus.clips), "clip")
    notice(f"{clips}, {describe_corpus(corpus)}; {describe_objective(objective)}")
    warnings = [low_coverage(corpus, training.loader.seconds)]
    if training.loader.short_clips == "pad":
        warnings.append(clips_without_a_mask(corpus, objective.least_seconds(intended)))
    for warning in filter(None, warnings):
        notice(warning)
    health = EmbeddingHealth(corpus, training, objective)
    fit(objective, corpus, run, evaluate=health, tracker=make_tracker(config.track, config.out))
    notice(f"done: {config.out}")
    return run


def _resolved(training: RunConfig, corpus: Corpus, clips: int) -> RunConfig:
    """Return the settings with what the corpus decides: segment length, mean and std, positions."""
    training = shortened(training, corpus)
    if clips:
        training = measured(training, corpus, clips)
    return fitted(training)
