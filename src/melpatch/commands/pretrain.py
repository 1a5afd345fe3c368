"""Learn an encoder from unlabelled sound."""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

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
from melpatch.data.loader import evaluation_batches
from melpatch.data.manifest import Corpus
from melpatch.data.segments import crop
from melpatch.errors import ConfigError
from melpatch.interop.base import Channels, is_run, start
from melpatch.nn.pooling import pool
from melpatch.nn.positions import Resize
from melpatch.objectives.base import Objective
from melpatch.progress import notice
from melpatch.recipes.base import clips_to_measure, recipe_names, recipe_settings
from melpatch.training.config import RunConfig, build
from melpatch.training.health import health, warning
from melpatch.training.loop import fit
from melpatch.training.run import Run
from melpatch.training.start import fitted, measured, plan, shortened
from melpatch.training.tracking import Track, make_tracker

TOGETHER = True
_HEALTH_CLIPS = 256


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
    objective.begin(
        plan(settings, corpus)
    )  # before there is a folder: what cannot be trained leaves none
    opened = opened or Run.create(config.out, settings, config)
    opened.remember(corpus)
    opened.reject(corpus.rejected)
    notice(f"{len(corpus.clips)} clips, {extent(corpus)}; {describe(objective)}")
    if (told := share_heard(corpus, settings.loader.seconds)) is not None:
        notice(told)
    gauge = Gauge(corpus, settings, objective)
    fit(objective, corpus, opened, evaluate=gauge, tracker=make_tracker(config.track, config.out))
    notice(f"done: {config.out}")


def describe(objective: Objective) -> str:
    """Return the number of weights in words."""
    millions = sum(parameter.numel() for parameter in objective.parameters()) / 1e6
    return f"{type(objective).__name__} with {millions:.2f} M parameters"


class Gauge:
    """The health of the embeddings on a fixed choice of clips, measured while a run goes on."""

    def __init__(self, corpus: Corpus, config: RunConfig, untrained: Objective) -> None:
        chosen = sorted(corpus.clips, key=lambda clip: clip.key)[:_HEALTH_CLIPS]
        heard = untrained.input_seconds(config.objective, config.loader.seconds)
        self.clips = [crop(clip, heard, config.seed, 0) for clip in chosen]
        self.batch_size = plan(config, corpus).at_once
        with (
            torch.no_grad()
        ):  # before a resumed run loads its weights: the start is the same for both
            self.first = self.measure(untrained.eval())

    def __call__(self, objective: Objective, step: int) -> dict[str, float]:
        """Return the embeddings' std and effective rank; say so when they have collapsed."""
        now = self.measure(objective)
        collapsed = warning(now, self.first) if now else None
        if collapsed:
            notice(f"step {step}: {collapsed}")
        return now

    def measure(self, objective: Objective) -> dict[str, float]:
        """Return the embeddings' std and effective rank, or nothing where fewer than two clips can be read."""
        encoder = objective.export_encoder()
        device = next(encoder.parameters()).device
        own: list[Tensor] = []
        rate = objective.front_end.sample_rate
        for loaded in evaluation_batches(
            distributed.shard_of_rank(self.clips), rate, batch_size=self.batch_size
        ):
            if loaded.batch is not None:
                spectrogram, valid = objective.features(loaded.batch.to(device))
                encoded = encoder(spectrogram, valid)
                own.append(
                    pool(encoded.patches, encoded.cls, valid, encoder.grid.rows, "mean")
                    .float()
                    .cpu()
                )
        found = list(chain.from_iterable(distributed.all_gather_objects(own)))
        if sum(map(len, found)) < 2:
            return {}
        return health(torch.cat(found))
