"""From an encoder to a classifier: the settings to start from, the training, and the score that chooses the weights to
keep."""

from dataclasses import dataclass, replace
from pathlib import Path

from melpatch.config import from_toml
from melpatch.data.corpus import Corpus, label_matrix
from melpatch.errors import DataError
from melpatch.evaluation.metrics import primary_metric, scores
from melpatch.inference.corpus import Table, over_clips
from melpatch.interop.base import Channels, is_run, start
from melpatch.nn.positions import Resize
from melpatch.objectives.base import Objective
from melpatch.objectives.classify import Classify
from melpatch.recipes.base import onto, recipe_settings
from melpatch.training.config import RunConfig, build
from melpatch.training.loop import Evaluate, fit
from melpatch.training.run import Run
from melpatch.training.start import fitted, measured, plan
from melpatch.training.states import Progress
from melpatch.training.tracking import Tracker

SCRATCH = "scratch"
"""The ``init`` that stands for random weights."""


def run_of(init: str, like: Path | None = None) -> Path | None:
    """Return the run whose front end and encoder a classifier takes: that of ``init``, or else ``like``, if any.

    Raises:
        ConfigError: ``init`` is neither a run, nor a weight file, nor ``scratch``.
    """
    return Path(init) if init != SCRATCH and is_run(init) else like


def starting_settings(
    name: str,
    init: str,
    *,
    size: str = "tiny",
    encoder: str | None = None,
    like: Path | None = None,
) -> RunConfig:
    """Return a recipe's settings for a classifier that starts from a run, other people's weights, or nothing.

    Args:
        name: recipe, or objective, that learns from labels.
        init: run folder, weight file, Hub repository or ``scratch``.
        size: size of the encoder, where no run settles it.
        encoder: kind of encoder, where no run settles it.
        like: where ``init`` is no run, the run whose front end and encoder to take.

    Raises:
        ConfigError: the recipe, or a run's settings, cannot be used.
    """
    base = recipe_settings(name, size, encoder, with_labels=True)
    if (
        init == SCRATCH and name == "finetune"
    ):  # blocks that know nothing yet all learn at the full rate
        base = replace(base, train=replace(base.train, layer_decay=1.0))
    theirs = run_of(init, like)
    if theirs is None:
        return base
    return onto(base, from_toml(RunConfig, theirs / "config.toml"))


def resolved(settings: RunConfig, corpus: Corpus, train: Corpus, measure: int) -> RunConfig:
    """Return settings with what the data decide: labels, whether there are several to a clip, and statistics.

    Args:
        settings: of a classifier.
        corpus: all clips, whose labels are the classes.
        train: those that train, on so many of which mean and std are measured; with ``measure`` 0 on none.
        measure: number of clips.
    """
    objective = replace(settings.objective, multi_label=corpus.multi_label)
    settings = replace(settings, labels=corpus.labels, objective=objective)
    return fitted(measured(settings, train, measure) if measure else settings)


def classifier(
    settings: RunConfig,
    init: str,
    *,
    resize: Resize | None = None,
    channels: Channels = "sum",
    opened: Run | None = None,
) -> Objective:
    """Return a classifier with the encoder that it starts from.

    Args:
        settings: what :func:`resolved` returned.
        init: run folder, weight file, Hub repository or ``scratch``.
        resize: the way of fitting positions, see :func:`melpatch.interop.base.start`.
        channels: what is done with the three colours of an image model.
        opened: the run that is gone on with, if one is; where it has a state of its own, nothing is read of ``init``.

    Raises:
        MelpatchError: the weights cannot be read, or do not fit the settings.
    """
    objective = build(settings)
    if init != SCRATCH and not (opened and opened.newest):
        start(objective, init, resize, channels)
    return objective


def train_classifier(
    objective: Objective,
    run: Run,
    train: Corpus,
    val: Corpus | None = None,
    *,
    evaluate: Evaluate | None = None,
    tracker: Tracker | None = None,
) -> Progress:
    """Train a classifier from wherever its run stands to its last step; the folder then holds the weights to use.

    They are those of the best score on ``val`` or, without, the last ones; or the mean of the last ones, where the
    settings say so.

    Args:
        objective: what :func:`classifier` returned.
        run: an open run folder.
        train: clips to learn from.
        val: clips that choose.
        evaluate: without ``val``, what is measured in its place; it chooses nothing.
        tracker: see :func:`melpatch.training.loop.fit`.

    Raises:
        CheckpointError: the run was started on other clips.
        MelpatchError: it cannot be trained so.
    """
    run.remember(train)
    select = None
    if val is not None:
        metric = primary_metric(run.config.objective.multi_label)
        evaluate, select = Validation(val, run.config, metric), f"val_{metric}"
    return fit(objective, train, run, evaluate=evaluate, select=select, tracker=tracker)


@dataclass(frozen=True)
class Validation:
    """The score of a classifier in training on clips that it does not learn from.

    Attributes:
        corpus: clips of that split.
        config: the run's settings.
        metric: of :func:`melpatch.evaluation.metrics.scores`.
        name: under which it is reported.
    """

    corpus: Corpus
    config: RunConfig
    metric: str
    name: str = "val"

    def __call__(self, objective: Objective, step: int) -> dict[str, float]:
        """Return the metric under its name with :attr:`name` in front, as in ``val_accuracy``.

        Raises:
            DataError: the metric is not defined on these clips.
        """
        return {f"{self.name}_{self.metric}": self.score(self.table(objective))}

    def score(self, table: Table) -> float:
        """Return the metric of what :meth:`table` returned.

        Raises:
            DataError: it is not defined on these clips.
        """
        targets = label_matrix(table.clips, self.config.labels)
        multi_label = self.config.objective.multi_label
        found = scores(table.rows, targets, self.config.labels, multi_label, seed=None)[self.metric]
        if found is None:
            raise DataError(
                f"{self.corpus.name}: no class has validation clips both with and without it, so that {self.metric} "
                "is not defined; validate on more clips, or on another --val-fold"
            )
        return float(found)

    def table(self, objective: Objective) -> Table:
        """Return the probability of each label for each clip that can be read."""
        if not isinstance(objective, Classify):
            raise TypeError("validation takes a classifier")
        device = next(objective.parameters()).device
        return over_clips(
            lambda batch: objective.probabilities(batch.to(device)),
            self.corpus.clips,
            sample_rate=objective.front_end.sample_rate,
            seconds=self.config.loader.seconds,
            batch_size=plan(self.config, self.corpus).micro_batch_size,
        )
