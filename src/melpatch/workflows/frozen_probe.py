"""Probes of the encoder that a classifier starts from: kept as a run, or set beside fine-tuning."""

import os
import time
from collections import Counter
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from melpatch.config import check
from melpatch.counted import counted
from melpatch.data.corpus import Corpus
from melpatch.distributed import on_rank_zero
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.evaluation.kept_probe import FittedProbe, calibrate_probe, fit_probe, keep_probe
from melpatch.evaluation.probe import KeptProbe, LinearProbe, ProbeInputs, TokenProbe, probe_inputs
from melpatch.evaluation.select import linear_probe
from melpatch.inference.calibration import Calibration
from melpatch.inference.corpus import ClipTable
from melpatch.inference.model import Model
from melpatch.objectives.base import Objective, Plan
from melpatch.objectives.classify import Classify
from melpatch.opening import read_json, reading
from melpatch.progress import notice
from melpatch.training.config import RunConfig
from melpatch.training.run import Run
from melpatch.workflows.initialize import SCRATCH, is_run
from melpatch.workflows.kept_weights import (
    score_of,
    tell_record,
    validation_record,
    write_record,
)
from melpatch.workflows.label_settings import class_weights_of_probe, selection_metric

FILE = "linear_probe.json"
# Windows that are embedded in any case; of more, embedding takes up to a tenth of the training.
_SECONDS_OF_WORK = 5_000
# Above these the regression takes too long or too much memory to be done unasked.
_MOST_CLIPS = 20_000
_MOST_CLASSES = 500
_LARGEST_BIAS = 20.0


@dataclass(frozen=True)
class FrozenProbe:
    """A probe of a frozen encoder.

    Attributes:
        fitted: what it has learnt.
        train: the training clips that could be read.
        val: the validation clips that could be read, if there are any.
    """

    fitted: FittedProbe
    train: ProbeInputs
    val: ProbeInputs | None

    def record(
        self, training: RunConfig, val: Corpus | None, calibration: Calibration | None = None
    ) -> dict[str, Any] | None:
        """Return the scores on validation clips; None without any.

        Args:
            training: settings of the classifier.
            val: the validation clips, also those that could not be read.
            calibration: what was learnt from them, if anything.
        """
        if val is None or self.val is None:
            return None
        table = ClipTable(self.val.features.clips, self.fitted.probabilities(self.val), ())
        metric = selection_metric(training.objective, val)
        return validation_record(table, training, metric, calibration=calibration)


def probe_encoder(
    probe: KeptProbe,
    training: RunConfig,
    objective: Objective,
    init: str,
    out: Path,
    train: Corpus,
    val: Corpus | None,
) -> FrozenProbe:
    """Return a probe of a classifier's encoder, which moves to the GPU if there is one.

    All processes must call it.

    Args:
        probe: which one.
        training: settings of the classifier.
        objective: the classifier, whose encoder has the weights of ``init``.
        init: what it starts from; a run keeps the features.
        out: run folder that keeps them otherwise.
        train: the training clips.
        val: the validation clips, if any; a probe of tokens must have some.

    Raises:
        MelpatchError: no clip can be read, or a feature is not finite.
    """
    features = FrozenFeatures.of_model(
        Model(training, objective),
        on_rank_zero(lambda: _features_folder(init, out)),
        batch_size=training.loader.batch_size,
        workers=training.loader.workers,
    )
    multi_label = training.objective.multi_label

    def inputs(part: Corpus) -> ProbeInputs:
        if isinstance(probe, TokenProbe):
            return probe_inputs(features.tokens(part), part, training.labels)
        return probe_inputs(features.vectors(part, probe.pooling), part, training.labels)

    learnt = inputs(train)
    held_out = None if val is None else inputs(val)
    class_weights: tuple[float, ...] = ()  # only the softmax of a linear probe has some
    if isinstance(probe, LinearProbe) and not multi_label:
        class_weights = class_weights_of_probe(training, learnt.features.clips)
    fitted = on_rank_zero(
        lambda: fit_probe(
            probe,
            learnt,
            held_out,
            multi_label=multi_label,
            seed=training.seed,
            class_weights=class_weights,
        )
    )
    return FrozenProbe(fitted, learnt, held_out)


def fit_and_keep(
    probe: KeptProbe,
    training: RunConfig,
    objective: Objective,
    init: str,
    out: Path,
    train: Corpus,
    val: Corpus | None,
    thresholds: str,
    command: Any,
) -> Run:
    """Fit a probe, calibrate it on validation clips, tell its score, and keep it as a run.

    Args:
        probe: see :func:`probe_encoder`, as the rest.
        training: settings of the classifier.
        objective: the classifier.
        init: what it starts from.
        out: run folder to write.
        train: the training clips.
        val: the validation clips, if any.
        thresholds: how thresholds are chosen, see
            :meth:`melpatch.evaluation.thresholds.ThresholdRule.parse`.
        command: the settings of the command that keeps it.
    """
    objective_config = training.objective
    fits = isinstance(probe, LinearProbe) and not objective_config.multi_label
    given = objective_config.loss_weights in ("sqrt", "balanced")
    name = "loss_weights" if given else "class_weights"
    allowed = "left out, but for --head linear or few_shot where a clip has one label"
    value = getattr(objective_config, name)
    check(fits or not objective_config.class_weights, f"objective.{name}", value, allowed)
    frozen = probe_encoder(probe, training, objective, init, out, train, val)
    labels = training.labels
    calibration = None
    if frozen.val is not None:
        calibration = calibrate_probe(frozen.fitted, frozen.train, frozen.val, labels, thresholds)
    features = frozen.train.features
    learnt = replace(train, clips=features.clips, labels=labels)
    encoder = objective.export_encoder()
    run = keep_probe(training, encoder, frozen.fitted, learnt, out, command, calibration)
    run.reject(features.rejected)
    tell_record(run, f", {frozen.fitted.describe()}", frozen.record(training, val, calibration))
    return run


def probe_first(
    run: Run,
    objective: Objective,
    init: str,
    train: Corpus,
    val: Corpus | None,
    plan: Plan,
    *,
    head_start: bool = False,
) -> dict[str, Any] | None:
    """Tell what the linear probe of a classifier's encoder scores on validation clips, and return it.

    It is written into the run, from which a resumed run reads it. None, with a notice, where there
    is none. All processes must call it.

    Args:
        run: the run that is about to be trained.
        objective: the classifier, whose encoder has the weights of ``init``.
        init: what it starts from.
        train: the training clips.
        val: the validation clips, if any.
        plan: length of the run.
        head_start: whether the classifier's head gets the weights of the probe.
    """
    path = run.folder / FILE
    record: dict[str, Any] | None = on_rank_zero(lambda: _read(path))
    # A resumed run has other weights than those it started from.
    if run.newest is not None or (record is not None and not head_start):
        return record
    reason = _reason_against(run.config, init, train, val, plan)
    if reason is not None and not head_start:
        notice(f"no linear probe beside the fine-tuning: {reason}")
        return None
    start = time.monotonic()
    probe = probe_encoder(linear_probe(), run.config, objective, init, run.folder, train, val)
    purpose = "for comparison"
    if head_start:
        assert isinstance(objective, Classify)
        objective.head.load_state_dict(probe.fitted.state)
        # A class without a training clip has a logit that no training could raise again.
        objective.get_parameter("head.1.bias").data.clamp_(-_LARGEST_BIAS, _LARGEST_BIAS)
        purpose = "from which the head starts"
    scores = None
    score = ""
    validated = probe.record(run.config, val)
    if validated is not None:
        scores = validated | {"pooling": probe.fitted.pooling}
        written = scores
        on_rank_zero(lambda: write_record(path, written))
        score = f": {score_of(scores)}"
    notice(
        f"linear probe on the frozen encoder ({probe.fitted.pooling}), {purpose}{score}; "
        f"{time.monotonic() - start:.0f} s"
    )
    return scores


def too_much_for_a_probe(
    training: RunConfig, train: Corpus, val: Corpus | None, plan: Plan
) -> str | None:
    """Return why a linear probe takes too long to be fitted unasked, or None.

    Args:
        training: settings of the classifier.
        train: the training clips.
        val: the validation clips, if any.
        plan: length of the training.
    """
    unasked = "--head linear fits one"
    counts = Counter(label for clip in train.clips for label in clip.labels)
    if len(train.clips) > _MOST_CLIPS or len(counts) > _MOST_CLASSES:
        classes = counted(len(counts), "class")
        size = f"{counted(len(train.clips), 'clip')} of {classes}"
        return f"{size} take more than seconds ({unasked})"
    seconds = training.loader.seconds
    clips = train.clips if val is None else (*train.clips, *val.clips)
    windows = sum(max(1, ceil(clip.duration / seconds)) for clip in clips)
    # A training step costs about three times as much as the embedding of its clips.
    tenth = 0.3 * plan.steps * plan.batch_size
    if windows > max(_SECONDS_OF_WORK, tenth):
        return f"embedding {counted(windows, 'window')} takes more than seconds ({unasked})"
    return None


def _reason_against(
    training: RunConfig, init: str, train: Corpus, val: Corpus | None, plan: Plan
) -> str | None:
    """Return why no probe is set beside a fine-tuning, or None."""
    if init == SCRATCH:
        return "the encoder starts from random weights"
    if val is None:
        return "there are no validation clips to compare on"
    return too_much_for_a_probe(training, train, val, plan)


def _features_folder(init: str, out: Path) -> Path:
    """Return where features are kept: in the run that the encoder comes from, if that is writable."""
    if init != SCRATCH and is_run(init):
        kept = Path(init, "features")
        if os.access(kept if kept.exists() else kept.parent, os.W_OK | os.X_OK):
            return kept
    return out / "features"


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    with reading(path, "restore it from a backup, or delete it"):
        return {**read_json(path)}
