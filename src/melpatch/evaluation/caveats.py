"""Warnings about whatever may make scores too high or too low."""

import dataclasses
from collections.abc import Iterator, Sequence

from melpatch.counted import counted
from melpatch.data.leaks import warn_of_shared_groups
from melpatch.data.splits import describe_scarce_classes, split_corpus
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.protocol import Protocol
from melpatch.evaluation.provenance import trained_on
from melpatch.evaluation.splits import EVERYTHING, EvaluationSplit
from melpatch.objectives.classify import Classify
from melpatch.progress import notice
from melpatch.training.clip_record import untrained_labels
from melpatch.training.completion import describe_unfinished


def warn_about_scores(protocols: Sequence[Protocol], jobs: Sequence[EvaluationJob]) -> None:
    """Warn, once each, of whatever may make the scores of jobs on one corpus too high or too low.

    Too high: scored clips that the run was trained on, or a run that it started from; recordings,
    speakers or patients that both train and are scored. Too low: labels without a training clip;
    classes with fewer training clips than were asked for; a run whose training is unfinished.

    Raises:
        MelpatchError: a job cannot be done: a protocol does not go with its run, its labels or its
            splits.
    """
    sentences: dict[str, None] = {}
    splits_that_train: list[EvaluationSplit] = []
    for protocol, job in zip(protocols, jobs, strict=True):
        protocol.labels(job)
        splits = protocol.splits(job)
        training = [split for split in splits if split.train.clips]
        sentences |= dict.fromkeys(_unfinished_training(job))
        sentences |= dict.fromkeys(_training_leaks(job, splits))
        sentences |= dict.fromkeys(_about_classifier(job, splits))
        sentences |= dict.fromkeys(_missing_labels(protocol.labels_per_class(job), training))
        sentences |= dict.fromkeys(_unused_splits(job, training))
        splits_that_train = splits_that_train or training
    for sentence in sentences:
        notice(sentence)
    if splits_that_train:
        _warn_of_groups(splits_that_train)


def _unfinished_training(job: EvaluationJob) -> Iterator[str]:
    if not job.random_weights:
        sentence = describe_unfinished(job.run, job.model.config)
        if sentence is not None:
            yield sentence


def _training_leaks(job: EvaluationJob, splits: Sequence[EvaluationSplit]) -> Iterator[str]:
    trained = trained_on(job, [clip for split in splits for clip in split.test.clips])
    for run, keys in trained.keys.items():
        if run == str(job.run):
            labels = "with" if isinstance(job.model.objective, Classify) else "without"
            how = f"{run} was trained on {len(keys)} of the scored clips, {labels} their labels"
        else:
            how = (
                f"{run}, from which {job.run} started, was trained on "
                f"{len(keys)} of the scored clips"
            )
        yield f"{how}; scores may be too high"
    for run in trained.unknown:
        yield (
            f"{run} has no note of the clips it was trained on; scored clips may be among them, and scores too high"
        )


def _about_classifier(job: EvaluationJob, splits: Sequence[EvaluationSplit]) -> Iterator[str]:
    """Yield sentences on what a classifier is scored on, and on classes that it never saw."""
    if [split.name for split in splits] == [EVERYTHING]:
        clips = len(splits[0].test.clips)
        yield f"{job.corpus.shown_name}: has no splits; {counted(clips, 'clip')} scored, all of it"
    untrained = untrained_labels(job.run)
    if untrained and isinstance(job.model.objective, Classify):
        listed = ", ".join([*untrained[:5], *["..."] * (len(untrained) > 5)])
        yield f"{job.run} was trained on no clip of {len(untrained)} of its classes: {listed}"


def _missing_labels(
    labels_per_class: int | None, splits: Sequence[EvaluationSplit]
) -> Iterator[str]:
    sentences = [split.describe_unseen_labels() for split in splits]
    if labels_per_class is not None and splits:
        sentences.append(describe_scarce_classes(splits[0].train, labels_per_class))
    yield from filter(None, sentences)


def _unused_splits(job: EvaluationJob, splits: Sequence[EvaluationSplit]) -> Iterator[str]:
    """Yield a sentence on labelled clips that neither train, nor validate, nor are scored."""
    if splits:
        name = splits[0].name
        sentence = split_corpus(job.corpus, None if name == "test" else name).describe_unused()
        if sentence is not None:
            yield sentence


def _warn_of_groups(splits: Sequence[EvaluationSplit]) -> None:
    """Warn of groups that both train and are scored, in whichever split."""
    scored = {clip.key for split in splits for clip in split.test.clips}
    trains = {
        clip.key: clip for split in splits for clip in split.train.clips if clip.key not in scored
    }
    train_only = dataclasses.replace(splits[0].train, clips=tuple(trains.values()))
    warn_of_shared_groups(train_only, *(split.test for split in splits))
