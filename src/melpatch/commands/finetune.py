"""Train a classifier on labelled sound, from a pretrained run, other people's weights or random ones."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from melpatch.commands.base import (
    clips_to_measure,
    corpus_of,
    early,
    extent,
    few_clips,
    is_run,
    open_run,
    read_flags,
    recipe_names,
    recipe_settings,
    start,
)
from melpatch.commands.pretrain import describe
from melpatch.config import check, from_toml
from melpatch.data.manifest import Corpus, label_matrix
from melpatch.data.splits import Split, divide
from melpatch.errors import ConfigError, DataError
from melpatch.evaluation.inference import over_clips
from melpatch.evaluation.metrics import primary_metric, scores
from melpatch.interop.base import Channels
from melpatch.nn.positions import Resize
from melpatch.objectives.base import Objective
from melpatch.objectives.classify import Classify
from melpatch.progress import notice
from melpatch.training.config import RunConfig, build
from melpatch.training.loop import fit
from melpatch.training.run import Run
from melpatch.training.start import fitted, measured
from melpatch.training.tracking import Track, make_tracker


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
    front end and encoder stay those of the run."""
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
    return read_flags(Config, _default, arguments, prog="melpatch finetune", about=about, required=["out", "init"])


def _default(arguments: list[str]) -> Config:
    init, like = early(arguments, "--init", None) or "scratch", early(arguments, "--like", None)
    name, size = early(arguments, "--recipe", None) or "finetune", early(arguments, "--size", None) or "tiny"
    base = recipe_settings(name, size, early(arguments, "--encoder", None), with_labels=True)
    if init == "scratch" and name == "finetune":  # blocks that know nothing yet all learn at the full rate
        base = replace(base, train=replace(base.train, layer_decay=1.0))
    theirs = init if init != "scratch" and is_run(init) else like
    if theirs is None:
        return Config(out=Path(), init="scratch", size=size, measure=clips_to_measure(base), run=base)
    for flag in ("--size", "--encoder", *(["--like"] if like not in (None, theirs) else [])):
        given = early(arguments, flag, None)
        check(given is None, flag, given, f"nothing, since front end and encoder are those of {theirs}; leave it out")
    settings = from_toml(RunConfig, Path(theirs) / "config.toml")
    loader = base.loader
    if settings.front_end.target_frames is not None:  # it hears no more at once than it did
        loader = replace(loader, seconds=min(loader.seconds, settings.loader.seconds))
    encoder, drop_path = settings.encoder, getattr(base.encoder, "drop_path", 0.0)
    if drop_path and isinstance(encoder, type(base.encoder)):  # a matter of the training, not of the weights
        encoder = replace(encoder, drop_path=drop_path)
    base = replace(base, front_end=settings.front_end, encoder=encoder, loader=loader)
    return Config(out=Path(), init="scratch", size=size, measure=0, run=base)


def run(config: Config) -> None:
    """Fine-tune, and leave a run folder with the best weights by validation, or the last ones without."""
    opened = open_run(config)
    settings = opened.config if opened else config.run
    corpus = corpus_of(settings)
    if not corpus.labels:
        raise ConfigError(
            f"{corpus.name}: has no labels; give a folder with one sub-folder per class, or a CSV with a label column"
        )
    split = divide(corpus, config.test_fold, config.val_fold)
    train = few_clips(split.train, config.few, settings.seed)
    if opened is None:
        settings = _resolve(config, corpus, train)
    objective = build(settings)
    if config.init != "scratch" and not (opened and opened.newest):
        start(objective, config.init, config.resize, config.init_channels)
    metric = primary_metric(corpus.multi_label)
    select = f"val_{metric}" if split.val else None
    notice(
        f"{len(train.clips)} labelled clips of {len(settings.labels)} classes, {extent(train)}; {describe(objective)}"
    )
    if split.test is None and len(corpus.splits) > 1:
        notice(
            "nothing is left out for a test: name a fold with --test-fold, or scores on these clips will be too good"
        )
    if select is None:
        notice("no validation split: the last weights are kept, not the best; name one with --val-fold")
    run = opened or Run.create(config.out, settings, config)
    run.remember(train)
    run.reject(corpus.rejected)
    validate = _Validation(split, settings, metric) if split.val else None
    progress = fit(
        objective, train, run, evaluate=validate, select=select, tracker=make_tracker(config.track, config.out)
    )
    best = (
        f"; best {metric} on validation {progress.best:.3f} at step {progress.best_step}"
        if progress.best is not None
        else ""
    )
    notice(f"done: {config.out}{best}")


def _resolve(config: Config, corpus: Corpus, train: Corpus) -> RunConfig:
    objective = replace(config.run.objective, multi_label=corpus.multi_label)
    settings = replace(config.run, labels=corpus.labels, objective=objective)
    return fitted(measured(settings, train, config.measure) if config.measure else settings)


@dataclass(frozen=True)
class _Validation:
    """The score on the validation split, which chooses the weights to keep."""

    split: Split
    config: RunConfig
    metric: str

    def __call__(self, objective: Objective, step: int) -> dict[str, float]:
        """Return the metric under its name with ``val_`` in front."""
        if not isinstance(objective, Classify) or self.split.val is None:
            raise TypeError("validation takes a classifier and a validation split")
        device = next(objective.parameters()).device
        table = over_clips(
            lambda batch: objective.probabilities(batch.to(device)),
            self.split.val.clips,
            sample_rate=objective.front_end.sample_rate,
            seconds=self.config.loader.seconds,
            batch_size=self.config.loader.batch_size,
        )
        targets = label_matrix(table.clips, self.config.labels)
        found = scores(table.rows, targets, self.config.labels, self.split.val.multi_label)[self.metric]
        if found is None:
            raise DataError(
                f"{self.split.val.name}: no class has validation clips both with and without it, so that {self.metric} "
                "is not defined; validate on more clips, or on another --val-fold"
            )
        return {f"val_{self.metric}": float(found)}
