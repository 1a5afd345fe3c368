"""A protocol: a stated way from a network and a labelled corpus to scores, with a name and a version.

Each protocol is a class in a file of its own (``melpatch.protocols``). A probe
(``melpatch.evaluation.probe.Probe``) learns from frozen features only; other protocols write their
own :meth:`Protocol.run_trial`. Everything a score depends on (which clips select the weights, how,
how often) is a field or a constant of the class and is written beside the score. A change that can
change scores raises ``version``.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from melpatch.config import to_dict
from melpatch.data.clip import Clip
from melpatch.data.splits import take_per_class
from melpatch.distributed import on_rank_zero
from melpatch.evaluation.features import fingerprint_of_clips
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.metrics import primary_metric
from melpatch.evaluation.splits import (
    HELD_OUT_SHARE,
    EvaluationSplit,
    ValidationSource,
    describe_split_rule,
    evaluation_splits,
)
from melpatch.evaluation.trials import TrialResult, load_trial, save_trial
from melpatch.inference.label_rule import LabelRule
from melpatch.outputs import as_file_name
from melpatch.progress import track
from melpatch.registry import name_of


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC):
    """A way to score a network; its fields are its settings."""

    version: ClassVar[int] = 1
    validation: ClassVar[ValidationSource] = "none"
    """Where the validation clips come from."""
    held_out_share: ClassVar[float] = HELD_OUT_SHARE
    """Share of the training clips that validates where nothing else can."""
    selection_rule: ClassVar[str]
    """In words, what is selected on the validation clips and how; or that nothing is."""
    num_seeds: ClassVar[int] = 1
    """How many seeds by default."""

    @property
    def changed_settings(self) -> dict[str, Any]:
        """The settings that differ from those the protocol's name stands for."""
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }

    def metric(self, multi_label: bool) -> str:
        """Return the name of the primary metric."""
        return primary_metric(multi_label)

    def split_rule(self) -> str:
        """Return in words which clips train and which validate."""
        return describe_split_rule(self.validation, self.held_out_share)

    def multi_label(self, job: EvaluationJob) -> bool:
        """Return whether a clip may have several labels."""
        return job.corpus.multi_label

    def label_rule(self, job: EvaluationJob) -> LabelRule | None:
        """Return when a scored clip is given a label; None where the run gives none by itself."""
        return None

    @property
    def most_labels_per_class(self) -> int | None:
        """Clips of each class that it trains on at most; None for all."""
        return None

    def labels_per_class(self, job: EvaluationJob) -> int | None:
        """Return how many clips of each class train; None for all."""
        limits = (self.most_labels_per_class, job.labels_per_class)
        return min((limit for limit in limits if limit is not None), default=None)

    def labels(self, job: EvaluationJob) -> tuple[str, ...]:
        """Return the classes."""
        return job.corpus.labels

    def splits(self, job: EvaluationJob) -> list[EvaluationSplit]:
        """Return the training, validation and test clips, once for each split or fold to score."""
        return evaluation_splits(
            job.corpus, job.scored_splits, self.validation, self.held_out_share
        )

    @abstractmethod
    def run_trial(self, job: EvaluationJob, split: EvaluationSplit, seed: int) -> TrialResult:
        """Learn from a split's training clips and score its test clips.

        All processes call it and get the same result.
        """

    def clean_up(self, job: EvaluationJob, split: EvaluationSplit, seed: int) -> None:  # noqa: B027 - most leave nothing
        """Remove what a trial left beside its file and nobody needs any longer; nothing by default."""

    def for_other_splits(self, first: TrialResult) -> "Protocol":
        """Return the protocol for a seed's other splits, given the trial of its first one.

        It is the same protocol, unless the first trial selected settings for the others.
        """
        return self

    def finalize(
        self, job: EvaluationJob, trials: list[TrialResult]
    ) -> tuple[list[TrialResult], dict[str, Any]]:
        """Return the trials as they are finally scored, and further entries of the record."""
        return trials, {}

    def run_trials(self, job: EvaluationJob) -> tuple[list[TrialResult], dict[str, Any]]:
        """Return all trials, and further entries of the record; finished trials are read from ``job.out``.

        All processes must call it and get the same result; only rank 0 reads and writes.
        """
        splits = self.splits(job)
        pairs = [(split, seed) for seed in job.seeds for split in splits]
        trials: list[TrialResult] = []
        protocol: Protocol = self
        for split, seed in track(pairs, len(pairs), name_of(type(self)), "trial"):
            if split is splits[0]:
                # The first split of a seed may settle the protocol for the seed's other splits.
                first = self._load_or_run(job, split, seed)
                trials.append(first)
                protocol = self.for_other_splits(first)
            else:
                trials.append(protocol._load_or_run(job, split, seed))
        trials, entries = self.finalize(job, trials)
        return trials, {"splits": [_count_clips(split) for split in splits], **entries}

    def fingerprint(self, job: EvaluationJob, split: EvaluationSplit) -> str:
        """Return as text everything a trial depends on but its seed; if that changes, the trial is run again."""
        depends_on = [
            to_dict(self),
            self.version,
            job.features.fingerprint,
            self.labels_per_class(job),
            self.multi_label(job),
            _fingerprints(split),
        ]
        return json.dumps(depends_on, sort_keys=True)

    def _load_or_run(self, job: EvaluationJob, split: EvaluationSplit, seed: int) -> TrialResult:
        path = job.out / "trials" / f"{as_file_name(split.name, any_case=False)}-{seed}.npz"
        fingerprint = self.fingerprint(job, split)
        trial = on_rank_zero(lambda: load_trial(path, fingerprint, split, seed))
        if trial is None:
            finished = self._run_timed(job, split, seed)
            on_rank_zero(lambda: save_trial(finished, path, fingerprint))
            trial = finished
        on_rank_zero(lambda: self.clean_up(job, split, seed))
        return trial

    def _run_timed(self, job: EvaluationJob, split: EvaluationSplit, seed: int) -> TrialResult:
        """Run a trial on the labels it may see; its details get its cost, unless it reports that itself."""
        start = time.monotonic()
        train = split.train
        per_class = self.labels_per_class(job)
        if per_class is not None:
            train = take_per_class(train, per_class, seed)
        trial = self.run_trial(job, replace(split, train=train), seed)
        cost = {
            "train_clips": len(train.clips),
            "seconds": round(time.monotonic() - start, 2),
        }
        return replace(trial, details=cost | trial.details)


def _count_clips(split: EvaluationSplit) -> dict[str, Any]:
    return {
        "split": split.name,
        "train_clips": len(split.train.clips),
        "val_clips": len(split.val.clips) if split.val else 0,
        "test_clips": len(split.test.clips),
    }


def _fingerprints(split: EvaluationSplit) -> list[str]:
    """Return a hash of each part: its clips in any order, their files, and their labels."""

    def fingerprint(clips: Sequence[Clip]) -> str:
        ordered = sorted(clips, key=lambda clip: clip.key)
        labels = repr([split.test.labels, *(clip.labels for clip in ordered)])
        return fingerprint_of_clips(ordered, labels)

    parts = (split.train, split.val, split.test)
    return [fingerprint(part.clips) if part else "" for part in parts]
