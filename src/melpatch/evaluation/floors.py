"""Floors: what no training, or no network at all, scores on the same clips.

Beside every score stand the majority class, logistic regression on statistics of the log-mel
spectrogram and of its cepstrum, and the same probe on random weights of the same network. A run
that does not clear them has learnt nothing that helps here.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from melpatch.counted import counted
from melpatch.data.corpus import Corpus, label_matrix
from melpatch.data.split_roles import role_of
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.paired import paired_interval
from melpatch.evaluation.probe import VectorProbe
from melpatch.evaluation.protocol import Protocol
from melpatch.evaluation.provenance import run_trained_on
from melpatch.evaluation.spectrogram_statistics import POOLING, Kind, SpectrogramStatistics
from melpatch.evaluation.summary import summarize
from melpatch.evaluation.trials import TrialResult
from melpatch.inference.fitted import FittedPooling
from melpatch.inference.model import Model
from melpatch.progress import notice
from melpatch.training.config import build

MAJORITY = "majority class"
RANDOM_WEIGHTS = "random weights"
STATISTICS: Mapping[Kind, str] = {kind: f"{kind} statistics" for kind in get_args(Kind)}


@dataclass(frozen=True)
class Floor:
    """What something simple scores on the clips of an evaluation.

    Attributes:
        name: what it is.
        trials: its predictions, for the same splits and seeds.
    """

    name: str
    trials: list[TrialResult]


def measure_floors(
    protocol: Protocol, job: EvaluationJob, trials: Sequence[TrialResult], probe: VectorProbe
) -> Iterator[Floor]:
    """Yield the floors of a protocol on a job; there are none without training clips.

    All processes must call it and get the same result.

    They learn from the clips that the protocol learns from; beside a classifier, from those of its
    training clips that the corpus has, or, if it has none of them, from all that are not scored.

    Args:
        protocol: what is scored.
        job: on what.
        trials: its predictions.
        probe: the probe of statistics, where the protocol is none of vectors itself.
    """
    labels = protocol.labels(job)
    # A classifier's labels may come in another order than the corpus has them.
    same_task = replace(
        job,
        corpus=replace(job.corpus, labels=labels, multi_label=protocol.multi_label(job)),
        labels_per_class=protocol.labels_per_class(job),
    )
    own = protocol if isinstance(protocol, VectorProbe) else probe
    scored = {trial.split for trial in trials}
    if not _can_train(job, scored):
        return
    if not any(split.train.clips for split in protocol.splits(job)):
        same_task = replace(same_task, corpus=_with_clips_of_run(same_task, scored))
    splits = {split.name: split for split in own.splits(same_task)}
    shares = {
        name: label_matrix(split.train.clips, labels).mean(axis=0) for name, split in splits.items()
    }
    majority = [
        replace(
            trial, probabilities=np.tile(shares[trial.split], (len(trial.clips), 1)), details={}
        )
        for trial in trials
    ]
    yield Floor(MAJORITY, majority)
    for kind, name in STATISTICS.items():
        features = _statistics(kind, same_task)
        yield _floor(name, replace(own, pooling=POOLING), replace(same_task, features=features))
    if isinstance(protocol, VectorProbe) and not job.random_weights:
        pooling = job.features.source.resolve_pooling(protocol.pooling)
        if isinstance(pooling, FittedPooling):
            # What was fitted to the trained weights says nothing of others.
            pooling = pooling.pooled
        same = replace(protocol, pooling=str(pooling))
        yield _floor(RANDOM_WEIGHTS, same, _at_random_weights(job))


def describe_floor(
    floor: Floor,
    trials: Sequence[TrialResult],
    value: float | None,
    labels: Sequence[str],
    multi_label: bool,
    metric: str,
) -> dict[str, Any]:
    """Return the score of a floor, and the gain of a run over it, as plain values.

    Args:
        floor: the floor.
        trials: the predictions of the run.
        value: the score of the run.
        labels: the names of the columns.
        multi_label: whether a clip may have several labels or none.
        metric: the primary metric.

    Returns:
        ``name``, ``value``, ``balanced_accuracy`` (None for several labels) and ``interval_95`` of
        the floor; ``gain``, and ``gain_95``, the interval of the difference on the same clips, None
        where the metric has none.
    """
    scores = summarize(floor.trials, labels, multi_label, metric)
    gain = None
    if value is not None and scores["value"] is not None:
        gain = value - scores["value"]
    return {
        "name": floor.name,
        "value": scores["value"],
        "balanced_accuracy": scores["metrics"].get("balanced_accuracy"),
        "interval_95": scores["interval_95"],
        "gain": gain,
        "gain_95": paired_interval(trials, floor.trials, labels, metric),
    }


def describe_highest(record: Mapping[str, Any]) -> str | None:
    """Return a sentence if a score is below its highest floor, with what usually helps."""
    known = [floor for floor in record["floors"] if floor["gain"] is not None]
    if not known:
        return None
    # The smallest gain is that over the highest floor.
    highest = min(known, key=lambda floor: floor["gain"])
    if highest["gain"] >= 0:
        return None
    interval = highest["gain_95"]
    chance = ""
    if interval is not None and interval[1] >= 0:
        chance = ", which may be chance"
    return (
        f"{record['protocol']}: {record['value']:.3f} is below {highest['name']} with "
        f"{highest['value']:.3f}{chance}, so this run does not help here yet; what usually helps "
        "is longer pretraining on sound of this kind; for a frozen encoder fine-tuning, and for a "
        "classifier more steps, or a linear head (melpatch finetune --head linear) where labels "
        "are few"
    )


def _can_train(job: EvaluationJob, scored: Set[str]) -> bool:
    """Return whether there are clips to learn from: a classifier may be scored without any."""
    splits = job.labelled_corpus.splits
    others = [name for name in splits if name not in scored and role_of(name) in ("train", None)]
    return scored <= splits.keys() and bool(others)


def _with_clips_of_run(job: EvaluationJob, scored: Set[str]) -> Corpus:
    """Return the corpus with the training clips of a classifier alone, beside those that are scored.

    Other clips would teach the floors what the classifier was never given, as after
    ``finetune --labels-per-class``.
    """
    corpus = job.corpus
    others = [clip for clip in job.labelled_corpus.clips if clip.split not in scored]
    trained = run_trained_on(job.run, others).keys.get(str(job.run))
    if trained is None or len(trained) == len(others):
        return corpus
    notice(
        f"floors beside {job.run} learn from the {counted(len(trained), 'clip')} of "
        f"{corpus.shown_name} that it was trained on"
    )
    kept = (clip for clip in corpus.clips if clip.split in scored or clip.key in trained)
    return replace(corpus, clips=tuple(kept))


def _floor(name: str, protocol: Protocol, job: EvaluationJob) -> Floor:
    folder = job.out / "floors" / name.replace(" ", "-")
    trials, _ = protocol.run_trials(replace(job, out=folder))
    return Floor(name, trials)


def _statistics(kind: Kind, job: EvaluationJob) -> FrozenFeatures:
    source = SpectrogramStatistics(kind, job.model.config.front_end, job.model.device)
    return FrozenFeatures(
        source,
        job.features.folder,
        fingerprint=source.fingerprint,
        seconds=job.features.seconds,
        batch_size=job.batch_size,
        workers=job.workers,
    )


def _at_random_weights(job: EvaluationJob) -> EvaluationJob:
    own = job.model
    model = Model(own.config, build(own.config), own.device, own.precision)
    features = FrozenFeatures.of_model(
        model, job.features.folder, batch_size=job.batch_size, workers=job.workers
    )
    return replace(job, model=model, features=features, random_weights=True)
