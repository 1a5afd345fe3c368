"""Learn on validation clips how far to trust a classifier, and keep it in its run."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from melpatch.counted import agreeing, counted
from melpatch.data.clip import Clip
from melpatch.data.corpus import Corpus, label_matrix
from melpatch.distributed import barrier, on_rank_zero
from melpatch.evaluation.novelty import MOST_TRAINING_CLIPS, fit_novelty
from melpatch.evaluation.temperature import fit_temperature, reliability
from melpatch.evaluation.thresholds import NEVER, ThresholdRule, choose_thresholds
from melpatch.inference.calibration import CALIBRATION, Calibration
from melpatch.inference.corpus import ClipTable, CorpusPass, clip_table
from melpatch.inference.model import Model, load
from melpatch.inference.tasks import recording_predictions
from melpatch.progress import notice


class Answers(NamedTuple):
    """What a classifier makes of clips, uncalibrated."""

    clips: Sequence[Clip]
    probabilities: Float[np.ndarray, "clip label"]
    vectors: Float[np.ndarray, "clip dim"] | None
    """The vectors that its head takes; None if it takes tokens."""


def discard_calibration(folder: Path) -> None:
    """Remove the calibration of a run whose weights are about to change."""
    on_rank_zero(lambda: (folder / CALIBRATION).unlink(missing_ok=True))


def calibrate(folder: Path, train: Corpus, val: Corpus | None, thresholds: str) -> None:
    """Calibrate a classifier that was just trained on validation clips, if any; keep that in its run.

    All processes must call it.

    Args:
        folder: the run folder.
        train: the clips that it was trained on.
        val: the validation clips.
        thresholds: how thresholds are chosen, see
            :meth:`melpatch.evaluation.thresholds.ThresholdRule.parse`.
    """
    clips = () if val is None else of_known_classes(val.clips, labels_of(train.clips))
    if not clips:
        return
    # Wait for the weights, which rank 0 writes. The training has run whatever code the run names.
    barrier()
    model = load(folder, trust_code=True)
    how = CorpusPass(model.sample_rate, model.seconds, model.default_batch_size, 0, "calibrating")
    calibration = learn_calibration(model, clips, train.clips, thresholds, how)
    on_rank_zero(lambda: calibration.save(folder))


def learn_calibration(
    model: Model, val: Sequence[Clip], train: Sequence[Clip], thresholds: str, how: CorpusPass
) -> Calibration:
    """Return what a classifier's answers to validation clips say about it.

    Args:
        model: a classifier; a calibration that it has is not used.
        val: validation clips of its classes.
        train: clips that it was trained on, for the novelty; it is not learnt without any, nor for
            a head that takes tokens.
        thresholds: see :func:`calibrate`.
        how: how the clips are read.
    """
    train_vectors = None
    if train and not model.network.classifier().takes_tokens:
        # Evenly spaced, so that all classes are there also where clips are sorted by class.
        step = ceil(len(train) / MOST_TRAINING_CLIPS)
        train_vectors = _answers(model, train[::step], how).vectors
    return fit_calibration(
        _answers(model, val, how),
        train_vectors,
        model.labels,
        thresholds,
        multi_label=model.network.classifier().config.multi_label,
    )


def labels_of(clips: Sequence[Clip]) -> set[str]:
    """Return the labels that clips have."""
    return {label for clip in clips for label in clip.labels}


def of_known_classes(clips: Sequence[Clip], known: AbstractSet[str]) -> tuple[Clip, ...]:
    """Return the labelled clips whose labels are all known: a classifier cannot be right on others."""
    return tuple(clip for clip in clips if clip.labels and known >= set(clip.labels))


def fit_calibration(
    val: Answers,
    train_vectors: Float[np.ndarray, "train dim"] | None,
    labels: Sequence[str],
    thresholds: str,
    *,
    multi_label: bool,
) -> Calibration:
    """Return what validation clips say about a classifier, and tell it in a line.

    Args:
        val: its answers to validation clips.
        train_vectors: of clips that it was trained on; None for a head that takes tokens.
        labels: its classes.
        thresholds: how thresholds are chosen, see
            :meth:`melpatch.evaluation.thresholds.ThresholdRule.parse`.
        multi_label: whether a clip may have several labels.
    """
    rule = ThresholdRule.parse(thresholds, multi_label)
    targets = label_matrix(val.clips, labels)
    temperature = fit_temperature(val.probabilities, targets, multi_label)
    calibration = Calibration(multi_label, temperature, len(val.clips))
    probabilities = calibration.probabilities(val.probabilities)
    before = reliability(val.probabilities, targets, multi_label).error
    after = reliability(probabilities, targets, multi_label).error
    chosen = choose_thresholds(probabilities, targets, rule, multi_label)
    parts = [
        f"calibrated on {counted(len(val.clips), 'validation clip')}: temperature "
        f"{temperature:.3g}, expected calibration error {before:.3f} before, {after:.3f} after"
    ]
    if chosen is not None:
        parts.append(f"thresholds by {rule}")
        never = int((chosen >= NEVER).sum())
        if never:
            given = agreeing(never, "is", "are")
            parts.append(
                f"{never} of {counted(len(labels), 'class')} cannot reach it and {given} never given"
            )
    notice("; ".join(parts))
    novelty = None
    if train_vectors is not None and val.vectors is not None:
        novelty = fit_novelty(train_vectors, val.vectors)
    return replace(calibration, thresholds=chosen, threshold_rule=str(rule), novelty=novelty)


def _answers(model: Model, clips: Sequence[Clip], how: CorpusPass) -> Answers:
    with_vectors = not model.network.classifier().takes_tokens
    function, new_total = recording_predictions(model.network, with_vectors=with_vectors)
    table: ClipTable = clip_table(function, clips, how, new_total)
    if not with_vectors:
        return Answers(table.clips, table.rows, None)
    labels = len(model.labels)
    return Answers(table.clips, table.rows[:, :labels], table.rows[:, labels:])
