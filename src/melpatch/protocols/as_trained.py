"""Score the classifier's own predictions, without any training."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from melpatch.data.split_roles import role_of
from melpatch.errors import ConfigError
from melpatch.evaluation.frozen_features import fingerprint_of_network
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.protocol import Protocol
from melpatch.evaluation.splits import EVERYTHING, EvaluationSplit, select_split
from melpatch.evaluation.trials import TrialResult
from melpatch.inference.corpus import CorpusPass, clip_table
from melpatch.inference.label_rule import LabelRule, label_rule
from melpatch.inference.tasks import ranked_predictions, recording_predictions
from melpatch.objectives.classify import Classify
from melpatch.registry import name_of


@dataclass(frozen=True, kw_only=True)
class AsTrained(Protocol):
    """The predictions of a fine-tuned run."""

    # Version 1 scored probabilities without the temperature of a calibrated classifier.
    version: ClassVar[int] = 2
    selection_rule: ClassVar[str] = "as the run was trained"

    def split_rule(self) -> str:
        """See :meth:`melpatch.evaluation.protocol.Protocol.split_rule`."""
        return "no training; only the scored clips are used"

    def multi_label(self, job: EvaluationJob) -> bool:
        """Return whether the classifier was trained on clips with several labels."""
        return _classifier(job).config.multi_label

    def labels(self, job: EvaluationJob) -> tuple[str, ...]:
        """Return the classifier's classes.

        Raises:
            ConfigError: the corpus has others.
        """
        known = _classifier(job).labels
        unknown = sorted(set(job.corpus.labels) - set(known))
        if unknown:
            raise ConfigError(
                f"{job.corpus.shown_name}: label {unknown[0]!r} is not one of {job.run}'s: {', '.join(known)}; give "
                "a corpus that has these, or --protocol knn linear, which learn the labels of the corpus"
            )
        return known

    def splits(self, job: EvaluationJob) -> list[EvaluationSplit]:
        """Return the test clips of each split to score; no clips train or validate.

        By default the split ``test`` is scored or, of a corpus without splits, everything.
        """
        no_clips = replace(job.corpus, clips=())
        corpus = job.labelled_corpus
        if not job.scored_splits and not any(corpus.splits):
            return [EvaluationSplit(EVERYTHING, no_clips, None, corpus)]
        tests = [name for name in corpus.splits if role_of(name) == "test"] or ["test"]
        names = map(corpus.split_called, job.scored_splits or tests)
        return [EvaluationSplit(name, no_clips, None, select_split(corpus, name)) for name in names]

    def fingerprint(self, job: EvaluationJob, split: EvaluationSplit) -> str:
        """Return what a trial depends on, see :meth:`Protocol.fingerprint`, and that is the head too."""
        model = job.model
        network = fingerprint_of_network(model.config, model.objective.state_dict())
        fingerprint = f"{super().fingerprint(job, split)} {network}"
        calibration = model.calibration
        if calibration is not None:
            fingerprint += f" temperature {calibration.temperature!r}"
            if calibration.novelty is not None:
                fingerprint += f" novelty {calibration.novelty.digest()}"
        return fingerprint

    def label_rule(self, job: EvaluationJob) -> LabelRule | None:
        """Return when ``predict`` gives a label; None where that says no more than the most probable ones.

        So it is for a run that was not calibrated, without a threshold of the job.
        """
        if job.model.calibration is None and job.threshold is None:
            return None
        return label_rule(job.model, job.threshold, job.false_alarms)

    def run_trial(self, job: EvaluationJob, split: EvaluationSplit, seed: int) -> TrialResult:
        """See :meth:`melpatch.evaluation.protocol.Protocol.run_trial`."""
        model = job.model
        calibration = model.calibration
        if calibration is None or calibration.novelty is None:
            function, new_total = recording_predictions(model.network)
        else:
            function, new_total = ranked_predictions(model.network, calibration.novelty)
        how = CorpusPass(
            model.sample_rate, model.seconds, job.batch_size, job.workers, "predicting"
        )
        predictions = clip_table(function, split.test.clips, how, new_total)
        details: dict[str, Any] = {"rejected": [clip.path for clip in predictions.rejected]}
        labels = len(model.labels)
        probabilities = np.ascontiguousarray(predictions.rows[:, :labels])
        novelty = None
        if calibration is not None:
            probabilities = calibration.probabilities(probabilities)
            details["temperature"] = calibration.temperature
            if calibration.novelty is not None:
                novelty = predictions.rows[:, labels]
        return TrialResult(split.name, seed, predictions.clips, probabilities, details, novelty)


def _classifier(job: EvaluationJob) -> Classify:
    objective = job.model.objective
    if not isinstance(objective, Classify):
        raise ConfigError(
            f"{job.run}: a run of {name_of(type(objective))} has no labels of its own to score; fine-tune it first "
            "(melpatch finetune --init RUN), or give a protocol that learns, such as --protocol knn linear"
        )
    return objective
