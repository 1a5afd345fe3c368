"""Fine-tune a classifier on labelled audio: from a config or an encoder to a finished run."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from melpatch.config import check
from melpatch.counted import counted
from melpatch.data.corpus import Corpus
from melpatch.default_dtype import float32_by_default
from melpatch.evaluation.calibrate import calibrate, discard_calibration
from melpatch.evaluation.select import probe_to_keep
from melpatch.evaluation.thresholds import ThresholdRule
from melpatch.interop.base import Axes, Channels, Reading
from melpatch.nn.positions import Resize
from melpatch.objectives.base import Objective, Plan
from melpatch.progress import notice
from melpatch.recipes.base import clips_to_measure
from melpatch.training.config import RunConfig, read_settings
from melpatch.training.run import Run
from melpatch.training.size import require_training_fits
from melpatch.training.start import plan
from melpatch.training.trackers import Track, make_tracker
from melpatch.workflows.classifier import classifier, starting_settings, train_classifier
from melpatch.workflows.corpus import (
    describe_corpus,
    limit_labels,
    read_corpus,
    tell_about_sound,
)
from melpatch.workflows.frozen_probe import fit_and_keep, probe_first
from melpatch.workflows.head_start import (
    HeadStart,
    describe_few_labels,
    starts_from_probe,
    with_head_of_probe,
)
from melpatch.workflows.initialize import (
    SCRATCH,
    refuse_decided,
    source_run,
)
from melpatch.workflows.kept_weights import tell_kept_weights
from melpatch.workflows.label_settings import describe_selection, resolved
from melpatch.workflows.labelled_split import (
    labelled_split,
    warn_of_long_windows,
    warn_of_missing_validation,
    with_validation,
)
from melpatch.workflows.runs import describe_objective, reopen

Head = Literal["trained", "linear", "few_shot", "attentive", "prototype"]


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Settings of a fine-tuning run; every field of the recipe is a flag."""

    out: Path
    """Run folder to write."""
    init: str
    """Run folder, weight file or hf:owner/name (a Hub repository) whose encoder to start from, or
    scratch for random weights."""
    init_channels: Channels = "sum"
    """How the three input channels of an image model in --init become one."""
    init_axes: Axes | None = None
    """Axes of the images that weights in --init saw, slower one first; none: their family's."""
    encoder_from: Path | None = None
    """Run folder whose front end and encoder settings to take if --init is not a run, for a fair
    comparison."""
    recipe: str = "finetune"
    """A recipe that learns from labels: finetune, for your own data, or a paper's (melpatch list).
    A run or weights in --init keep their front end and encoder, except for the stride and the
    statistics that a paper's recipe sets."""
    size: str = "tiny"
    """Size of the encoder: nano, mini, tiny, small, base or large; a run or weights have one already."""
    encoder: str | None = None
    """Kind of encoder: vit, beats, cnn14 or byol_a (melpatch list encoders); by default the
    recipe's. A run or weights in --init keep their own."""
    test_fold: str | None = None
    """Split or fold held out for the test; all others, except val, are trained on."""
    val_fold: str | None = None
    """Split or fold on which the best weights are chosen; by default val, if it exists."""
    resize_positions: Resize | None = None
    """How learned positions are fitted to another grid: crop keeps the first ones (default for the
    same stride), bilinear (default for another stride) and bicubic (default for stretched
    positions) interpolate, legacy is the published rule of AST and SSAST (default for foreign
    weights, but crop for those of ATST, Dasheng and PaSST)."""
    head: Head = "trained"
    """What learns: the whole network (trained), or a probe on the frozen features, in seconds and
    from few labels: linear, few_shot (linear, on 10 clips of each class unless --labels-per-class
    says otherwise), attentive or prototype (melpatch list protocols). A probe hears windows as long
    as those of the run in --init."""
    head_start: HeadStart = "auto"
    """What the head of a trained network starts from: random weights, or that linear probe, whose
    pooling it then has (LP-FT, Kumar et al. 2022); auto takes the probe for own data, unless --init
    is scratch, there is none (--no-probe), a setting of the head is given, or it takes more than
    seconds."""
    probe: bool = True
    """Fit that linear probe before the whole network is trained, and say which of the two is better
    on the validation clips."""
    thresholds: str = "auto"
    """When predict gives a label, chosen on the validation clips: none (the most probable one, or
    those of 0.5 or more), f1 (the best F1 of each class), precision=0.9 (the most labels of which
    0.9 are right, for each class); auto is f1 where clips may have several labels, else none."""
    labels_per_class: int | None = None
    """Train on only this many clips of each class, chosen by the seed."""
    stats_clips: int = 512
    """Clips on which the spectrogram's mean and std are measured; 0 takes the given ones, which is
    the default with the front end of a run or a paper."""
    resume: bool = False
    """Continue the run in --out, if there is one."""
    track: Track = "none"
    """Where curves go besides metrics.jsonl."""
    trust_code: bool = False
    """Allow the run in --init or --encoder-from, or in --out with --resume, to name code outside
    melpatch, which is run."""
    training: Annotated[RunConfig, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(
            self.labels_per_class is None or self.labels_per_class >= 1,
            "labels_per_class",
            self.labels_per_class,
            "1 or more",
        )
        ThresholdRule.parse(self.thresholds)
        check(self.stats_clips >= 0, "stats_clips", self.stats_clips, "0 or more")


def finetune_defaults(
    init: str = SCRATCH,
    *,
    recipe: str = "finetune",
    size: str | None = None,
    encoder: str | None = None,
    encoder_from: Path | None = None,
    head: Head = "trained",
    reading: Reading | None = None,
    trust_code: bool = False,
) -> FinetuneConfig:
    """Return a recipe's config for a classifier that starts from ``init``, without data.

    Args:
        init: run folder, weight file, Hub repository or ``scratch``.
        recipe: a recipe, or objective, that learns from labels.
        size: size of the encoder; None is tiny, or the run's.
        encoder: kind of encoder; None takes the recipe's, or the run's.
        encoder_from: if ``init`` is not a run, the run whose front end and encoder to take.
        head: what learns; a probe hears windows as long as those of the run, as its protocol does.
        reading: how weights of other code are read.
        trust_code: whether the run may name code outside melpatch, which is then run.

    Raises:
        MelpatchError: there is no such recipe, what ``init`` names cannot be used, or a setting is
            given that a run decides.
    """
    source = source_run(init, encoder_from)
    if source is not None:
        refuse_decided(source, size, encoder, encoder_from)
    training = starting_settings(
        recipe,
        init,
        size=size,
        encoder=encoder,
        encoder_from=source,
        reading=reading,
        trust_code=trust_code,
    )
    if source is not None and head != "trained":
        seconds = read_settings(source, trust_code=trust_code).loader.seconds
        training = replace(training, loader=replace(training.loader, seconds=seconds))
    # The mean and std of a run's front end are what its encoder was trained with.
    stats_clips = 0
    if source is None:
        stats_clips = clips_to_measure(training)
    return FinetuneConfig(
        out=Path(),
        init=init,
        encoder_from=encoder_from,
        init_axes=reading.axes if reading else None,
        recipe=recipe,
        size=size or "tiny",
        encoder=encoder,
        head=head,
        stats_clips=stats_clips,
        trust_code=trust_code,
        training=training,
    )


@float32_by_default()
def finetune(config: FinetuneConfig) -> Run:
    """Fine-tune a classifier on labelled audio, and return the run.

    The run holds the weights with the best validation score; the last weights if there are no
    validation clips; or the mean of the last weights, if the settings ask for it.

    Raises:
        MelpatchError: the run cannot be started, resumed or trained; the message tells the remedy.
        Interrupted: a signal stopped the run, which is saved.
    """
    run = reopen(config)
    training = config.training
    if run is not None:
        # The clips may have moved since.
        training = replace(run.config, data=training.data)
    corpus = read_corpus(training, run)
    split = labelled_split(corpus, config.test_fold, config.val_fold)
    probe = None
    few = config.labels_per_class
    if config.head != "trained":
        probe = probe_to_keep(config.head)
        split = with_validation(split, probe)
        few = few or probe.most_labels_per_class
    train = limit_labels(split.train, few, training.seed)
    head_start = _starts_from_probe(config, train, split.val)
    if run is None:
        tell_about_sound(train, training)
        if head_start:
            training = with_head_of_probe(training)
        training = resolved(training, corpus, train, config.stats_clips, split.val)
    objective = classifier(
        training,
        config.init,
        resize=config.resize_positions,
        reading=Reading(channels=config.init_channels, axes=config.init_axes),
        run=run,
        trust_code=config.trust_code,
    )
    notice(
        f"{counted(len(train.clips), 'labelled clip')} of "
        f"{counted(len(training.labels), 'class')}, "
        f"{describe_corpus(train)}; {describe_objective(objective)}"
    )
    warn_of_long_windows(train, training)
    if probe is not None:
        given = probe, training, objective, config.init, config.out, train, split.val
        return run or fit_and_keep(*given, config.thresholds, config)
    warn_of_missing_validation(split, training)
    _tell_choice(config, training, train, split.val, head_start=head_start)
    # Checked before the run folder is created, so that a wrong setting leaves no folder.
    intended = plan(training, train)
    require_training_fits(objective, intended)
    objective.check_plan(intended)
    run = run or Run.create(config.out, training, config)
    run.reject(corpus.rejected)
    _train(config, run, objective, train, split.val, intended, head_start=head_start)
    return run


def _starts_from_probe(config: FinetuneConfig, train: Corpus, val: Corpus | None) -> bool:
    """Return whether the head of the whole network starts from the linear probe."""
    has_probe = config.probe or config.head_start == "probe"
    if config.head != "trained" or not has_probe:
        return False
    return starts_from_probe(
        config.head_start, config.recipe, config.training, config.init, train, val
    )


def _train(
    config: FinetuneConfig,
    run: Run,
    objective: Objective,
    train: Corpus,
    val: Corpus | None,
    intended: Plan,
    *,
    head_start: bool,
) -> None:
    """Fit the linear probe, train the whole network, and tell what came of both on validation."""
    tracker = make_tracker(config.track, config.out)
    probe = None
    if config.probe or head_start:
        probe = probe_first(
            run, objective, config.init, train, val, intended, head_start=head_start
        )
    discard_calibration(run.folder)
    progress = train_classifier(objective, run, train, val, tracker=tracker, keep_start=head_start)
    calibrate(run.folder, train, val, config.thresholds)
    tell_kept_weights(run, progress, val, probe)


def _tell_choice(
    config: FinetuneConfig,
    training: RunConfig,
    train: Corpus,
    val: Corpus | None,
    *,
    head_start: bool,
) -> None:
    """Tell what chooses the kept weights, and whether there are enough labels for fine-tuning."""
    sentences = []
    if val is not None:
        sentences.append(describe_selection(training, val))
    if config.init != SCRATCH and not head_start:
        sentences.append(describe_few_labels(train))
    for sentence in filter(None, sentences):
        notice(sentence)
