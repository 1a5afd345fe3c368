"""A classifier on a pretrained encoder: its settings, its initial weights, and its training."""

from dataclasses import replace
from pathlib import Path

from melpatch.data.corpus import Corpus
from melpatch.interop.base import Reading
from melpatch.nn.positions import Resize
from melpatch.objectives.base import Objective
from melpatch.recipes.base import onto, recipe_settings
from melpatch.training.checkpoints import Progress
from melpatch.training.config import RunConfig, build, read_settings
from melpatch.training.foreign import open_foreign
from melpatch.training.loop import Evaluate, fit
from melpatch.training.run import Run
from melpatch.training.trackers import Tracker
from melpatch.weight_files import is_weights
from melpatch.workflows.initialize import SCRATCH, as_published, initialize_encoder, source_run
from melpatch.workflows.label_settings import selection_metric
from melpatch.workflows.validation import Validation


def starting_settings(
    recipe: str,
    init: str,
    *,
    size: str | None = None,
    encoder: str | None = None,
    encoder_from: Path | None = None,
    reading: Reading | None = None,
    trust_code: bool = False,
) -> RunConfig:
    """Return a recipe's settings for a classifier that starts from a run or from other weights.

    Args:
        recipe: a recipe, or objective, that learns from labels.
        init: run folder, weight file, Hub repository or ``scratch``.
        size: size of the encoder, unless a run or weights decide it; None is tiny.
        encoder: kind of encoder, unless a run or weights decide it.
        encoder_from: if ``init`` is not a run, the run whose front end and encoder to take.
        reading: how weights of other code are read.
        trust_code: whether the run may name code outside melpatch, which is then run.

    Raises:
        MelpatchError: the recipe, the run's settings or the weights cannot be used.
    """
    base = recipe_settings(recipe, size or "tiny", encoder, with_labels=True)
    if init == SCRATCH and recipe == "finetune":
        # Layer-wise decay protects pretrained blocks; random ones all learn at the full rate.
        base = replace(base, train=replace(base.train, layer_decay=1.0))
    source = source_run(init, encoder_from)
    if source is None:
        return as_published(base, init, reading or Reading(), size=size, encoder=encoder)
    if is_weights(str(source)):
        return onto(base, open_foreign(str(source)).config)
    return onto(base, read_settings(source, trust_code=trust_code))


def classifier(
    training: RunConfig,
    init: str,
    *,
    resize: Resize | None = None,
    reading: Reading | None = None,
    run: Run | None = None,
    trust_code: bool = False,
) -> Objective:
    """Return a classifier whose encoder is initialised from ``init``.

    Args:
        training: what :func:`melpatch.workflows.label_settings.resolved` returned.
        init: run folder, weight file, Hub repository or ``scratch``.
        resize: how learned positions are fitted to the encoder's grid, see
            :func:`melpatch.workflows.initialize.initialize_encoder`.
        reading: how weights of other code are read.
        run: the run to resume, if any; if it has saved a state, ``init`` is not read.
        trust_code: whether the run may name code outside melpatch, which is then run.

    Raises:
        MelpatchError: the weights cannot be read, or do not fit the settings.
    """
    objective = build(training)
    # A resumed run loads its own weights later.
    if init != SCRATCH and not (run and run.newest):
        initialize_encoder(objective, init, resize, reading, trust_code=trust_code)
    return objective


def train_classifier(
    objective: Objective,
    run: Run,
    train: Corpus,
    val: Corpus | None = None,
    *,
    evaluate: Evaluate | None = None,
    tracker: Tracker | None = None,
    keep_start: bool = False,
) -> Progress:
    """Train a classifier from the newest state of its run to the last step.

    The run then holds the weights with the best score on ``val``; the last weights without ``val``;
    or the mean of the last weights, if the settings ask for it.

    Args:
        objective: what :func:`classifier` returned.
        run: an open run folder.
        train: the training clips.
        val: the clips on which the best weights are chosen.
        evaluate: an evaluation without ``val``; it is logged, and chooses no weights.
        tracker: see :func:`melpatch.training.loop.fit`.
        keep_start: whether the weights at the start may be the best ones.

    Raises:
        CheckpointError: the run was started on other clips.
        MelpatchError: the classifier cannot be trained with these settings.
    """
    select = None
    if val is not None:
        metric = selection_metric(run.config.objective, val)
        evaluate = Validation(val, run.config, metric)
        select = f"val_{metric}"
    return fit(
        objective,
        train,
        run,
        evaluate=evaluate,
        select=select,
        tracker=tracker,
        keep_start=keep_start,
    )
