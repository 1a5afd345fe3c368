"""Learn an encoder from unlabelled sound."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from melpatch import distributed
from melpatch.commands.base import (
    corpus_of,
    early,
    extent,
    open_run,
    read_flags,
    share_heard,
    without,
)
from melpatch.config import check
from melpatch.errors import ConfigError
from melpatch.interop.base import Channels, is_run, start
from melpatch.nn.positions import Resize
from melpatch.objectives.base import Objective
from melpatch.progress import notice
from melpatch.recipes.base import clips_to_measure, recipe_names, recipe_settings
from melpatch.training.config import RunConfig, build
from melpatch.training.health import EmbeddingHealth
from melpatch.training.loop import fit
from melpatch.training.run import Run
from melpatch.training.start import fitted, measured, plan, shortened
from melpatch.training.tracking import Track, make_tracker

TOGETHER = True


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a pretraining run; every field of the recipe is a flag."""

    recipe: tyro.conf.Positional[str]
    """A recipe, for own data (ssast, asit_short) or a paper's (melpatch list), or an objective with its defaults."""
    out: Path
    """Run folder to write."""
    size: str = "tiny"
    """Encoder: nano, mini, tiny, small or base."""
    encoder: str | None = None
    """Kind of encoder: vit, cnn14 (melpatch list encoders); by default the recipe's."""
    init: str | None = None
    """Run folder, weight file or hf:owner/name (a Hub repository) whose encoder to start from; random weights
    without."""
    init_channels: Channels = "sum"
    """What is done with the three colours of an image model that --init names."""
    resize: Resize | None = None
    """How learned positions of --init are fitted to another grid; see melpatch finetune --help."""
    resume: bool = False
    """Go on with the run in --out, if there is one."""
    exclude: tuple[str, ...] | None = None
    """Splits or folds that stay out of pretraining; by default val and test, where they exist."""
    measure: int = 512
    """Clips on which the spectrogram's mean and std are measured; 0 takes the given ones."""
    track: Track = "none"
    """Where curves and pictures go besides metrics.jsonl."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.measure >= 0, "measure", self.measure, "0 or more")


def parse(arguments: list[str]) -> Config:
    """Return the settings that the arguments spell; the first word is the recipe."""
    names = recipe_names(with_labels=False)
    if not arguments or arguments[0].startswith("-"):
        if set(arguments) & {"-h", "--help"}:
            arguments = ["ssast", "--help"]
        else:
            raise ConfigError(
                f"melpatch pretrain needs a recipe as its first word; there are: {', '.join(names)}"
            )
    about = (
        f"{__doc__} 'melpatch pretrain RECIPE --help' shows a recipe's own flags and defaults.\n\n"
        f"Recipes: {', '.join(names)}, or package.module:Class for an objective of your own."
    )
    return read_flags(
        Config,
        _default,
        arguments,
        prog=f"melpatch pretrain {arguments[0]}",
        about=about,
        required=["out"],
    )


def _default(arguments: list[str]) -> Config:
    name, size = arguments[0], early(arguments, "--size", "tiny") or "tiny"
    base = recipe_settings(name, size, early(arguments, "--encoder", None), with_labels=False)
    init = early(arguments, "--init", None)
    if init is not None:
        is_run(init)  # or else it is refused, before the corpus is read
    return Config(recipe=name, out=Path(), size=size, measure=clips_to_measure(base), run=base)


def run(config: Config) -> None:
    """Pretrain, and leave a run folder."""
    opened = open_run(config)
    distributed.barrier()  # or one might find the folder that the first one makes
    settings = opened.config if opened else config.run
    corpus = without(corpus_of(settings), config.exclude)
    if opened is None:
        settings = shortened(settings, corpus)
        settings = fitted(
            measured(settings, corpus, config.measure) if config.measure else settings
        )
    objective = build(settings)
    if config.init is not None and not (opened and opened.newest):
        start(objective, config.init, config.resize, config.init_channels)
    # Checked before the run folder exists, so that a run that cannot be trained leaves none.
    objective.check_plan(plan(settings, corpus))
    opened = opened or Run.create(config.out, settings, config)
    opened.remember(corpus)
    opened.reject(corpus.rejected)
    notice(f"{len(corpus.clips)} clips, {extent(corpus)}; {describe(objective)}")
    if (told := share_heard(corpus, settings.loader.seconds)) is not None:
        notice(told)
    gauge = EmbeddingHealth(corpus, settings, objective)
    fit(objective, corpus, opened, evaluate=gauge, tracker=make_tracker(config.track, config.out))
    notice(f"done: {config.out}")


def describe(objective: Objective) -> str:
    """Return the number of weights in words."""
    millions = sum(parameter.numel() for parameter in objective.parameters()) / 1e6
    return f"{type(objective).__name__} with {millions:.2f} M parameters"
