"""Train a classifier on labelled sound, from a pretrained run, other people's weights or random ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from melpatch import distributed
from melpatch.commands.base import corpus_of, early, extent, few_clips, open_run, read_flags
from melpatch.commands.pretrain import describe
from melpatch.config import check
from melpatch.data.leaks import warn_of_groups
from melpatch.data.splits import divide
from melpatch.errors import ConfigError
from melpatch.evaluation.metrics import primary_metric
from melpatch.finetuning import classifier, resolved, run_of, starting_settings, train_classifier
from melpatch.interop.base import Channels
from melpatch.nn.positions import Resize
from melpatch.progress import notice
from melpatch.recipes.base import clips_to_measure, recipe_names
from melpatch.training.config import RunConfig
from melpatch.training.run import Run
from melpatch.training.start import plan
from melpatch.training.tracking import Track, make_tracker

TOGETHER = True


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a fine-tuning run; every field of the recipe is a flag."""

    out: Path
    """Run folder to write."""
    init: str
    """Run folder, weight file or hf:owner/name (a Hub repository) whose encoder to start from, or scratch for random
    weights."""
    init_channels: Channels = "sum"
    """What is done with the three colours of an image model that --init names."""
    like: Path | None = None
    """Where --init is no run: run folder whose front end and encoder settings to take, for a fair comparison."""
    recipe: str = "finetune"
    """A recipe that learns from labels: finetune, for own data, or a paper's (melpatch list). With a run in --init,
    front end and encoder stay those of the run, but for what a paper's recipe says of stride and statistics."""
    size: str = "tiny"
    """Encoder: nano, mini, tiny, small or base; that of a run has a size already."""
    encoder: str | None = None
    """Kind of encoder: vit, cnn14 (melpatch list encoders); by default the recipe's. That of a run stays what it is."""
    test_fold: str | None = None
    """Split or fold left alone; all others (but val) train."""
    val_fold: str | None = None
    """Split or fold on which the best weights are chosen; by default the split called val, if any."""
    resize: Resize | None = None
    """How learned positions are fitted to another grid: crop keeps the first (the default at the same stride), bilinear
    (the default at another) and bicubic (the default of stretched ones) stretch all, legacy is the published rule of
    AST and SSAST (the default with other people's weights)."""
    few: int | None = None
    """Train on so many clips per class only, chosen by the seed."""
    measure: int = 512
    """Clips on which the spectrogram's mean and std are measured; 0, the default with a run's front end or a paper's,
    takes the given ones."""
    resume: bool = False
    """Go on with the run in --out, if there is one."""
    track: Track = "none"
    """Where curves go besides metrics.jsonl."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.few is None or self.few >= 1, "few", self.few, "1 or more")
        check(self.measure >= 0, "measure", self.measure, "0 or more")


def parse(arguments: list[str]) -> Config:
    """Return the settings that the arguments spell; ears and encoder are those of --init or --like, where one is a
    run."""
    about = f"{__doc__}\n\nRecipes: {', '.join(recipe_names(with_labels=True))}."
    return read_flags(
        Config, _default, arguments, prog="melpatch finetune", about=about, required=["out", "init"]
    )


def _default(arguments: list[str]) -> Config:
    init, like = early(arguments, "--init", None) or "scratch", early(arguments, "--like", None)
    name, size = (
        early(arguments, "--recipe", None) or "finetune",
        early(arguments, "--size", None) or "tiny",
    )
    encoder = early(arguments, "--encoder", None)
    theirs = run_of(init, Path(like) if like else None)
    for flag in (
        ("--size", "--encoder", *(["--like"] if like not in (None, str(theirs)) else []))
        if theirs
        else ()
    ):
        given = early(arguments, flag, None)
        check(
            given is None,
            flag,
            given,
            f"nothing, since front end and encoder are those of {theirs}; leave it out",
        )
    settings = starting_settings(name, init, size=size, encoder=encoder, like=theirs)
    measure = 0 if theirs else clips_to_measure(settings)
    return Config(out=Path(), init="scratch", size=size, measure=measure, run=settings)


def run(config: Config) -> None:
    """Fine-tune, and leave a run folder with the best weights by validation, or the last ones without; or with the mean
    of the last ones, where the settings say so."""
    opened = open_run(config)
    distributed.barrier()  # or one might find the folder that the first one makes
    settings = opened.config if opened else config.run
    corpus = corpus_of(settings)
    if not corpus.labels:
        raise ConfigError(
            f"{corpus.name}: has no labels; give a folder with one sub-folder per class, or a CSV with a label column"
        )
    split = divide(corpus, config.test_fold, config.val_fold)
    warn_of_groups(*filter(None, (split.train, split.val, split.test)))
    train = few_clips(split.train, config.few, settings.seed)
    if opened is None:
        settings = resolved(config.run, corpus, train, config.measure)
    objective = classifier(
        settings, config.init, resize=config.resize, channels=config.init_channels, opened=opened
    )
    notice(
        f"{len(train.clips)} labelled clips of {len(settings.labels)} classes, {extent(train)}; {describe(objective)}"
    )
    if split.test is None and len(corpus.splits) > 1:
        notice(
            "nothing is left out for a test: name a fold with --test-fold, or scores on these clips will be too good"
        )
    averaged = settings.train.average > 0
    if split.val is None and not averaged:
        notice(
            "no validation split: the last weights are kept, not the best; name one with --val-fold"
        )
    # Checked before the run folder exists, so that a run that cannot be trained leaves none.
    objective.check_plan(plan(settings, train))
    run = opened or Run.create(config.out, settings, config)
    run.reject(corpus.rejected)
    progress = train_classifier(
        objective, run, train, split.val, tracker=make_tracker(config.track, config.out)
    )
    kept = ""
    if averaged:
        kept = f"; the mean of the weights after the last {progress.averaged} evaluations"
    elif progress.best is not None:
        kept = f"; best {primary_metric(corpus.multi_label)} on validation {progress.best:.3f}"
        kept += f" at step {progress.best_step}"
    notice(f"done: {config.out}{kept}")
