"""A classifier as it is: its own predictions on the scored clips; nothing is trained."""

from dataclasses import dataclass, replace
from typing import ClassVar

from melpatch.errors import ConfigError
from melpatch.evaluation.rounds import Round, to_score
from melpatch.evaluation.summary import Trial
from melpatch.inference.corpus import infer_clips
from melpatch.objectives.classify import Classify
from melpatch.protocols.base import EvaluationJob, Protocol


@dataclass(frozen=True, kw_only=True)
class AsTrained(Protocol):
    """What a fine-tuned run says."""

    selection: ClassVar[str] = "whatever the run was trained with"

    def split_rule(self) -> str:
        """See :meth:`melpatch.protocols.base.Protocol.split_rule`."""
        return "nothing is learnt; the scored clips alone are heard"

    def multi_label(self, job: EvaluationJob) -> bool:
        """Return whether the classifier was trained on clips of several labels."""
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
                f"{job.corpus.name}: label {unknown[0]!r} is not one of {job.run}'s: {', '.join(known)}; give "
                "a corpus that has these, or --protocol knn linear, which learn the labels of the corpus"
            )
        return known

    def rounds(self, job: EvaluationJob) -> list[Round]:
        """Return the scored splits, ``test`` by default, in one round each; nothing is learnt from the others."""
        nothing = replace(job.corpus, clips=())
        return [
            Round(name, nothing, None, to_score(job.labelled, name))
            for name in job.scored or ("test",)
        ]

    def trial(self, job: EvaluationJob, one: Round, seed: int) -> Trial:
        """See :meth:`melpatch.protocols.base.Protocol.trial`."""
        table = infer_clips(
            job.model.predict_batch,
            one.test.clips,
            sample_rate=job.model.sample_rate,
            seconds=job.model.seconds,
            batch_size=job.batch_size,
            workers=job.workers,
            description="predicting",
        )
        return Trial(
            one.name,
            seed,
            table.clips,
            table.rows,
            {"rejected": [each.path for each in table.rejected]},
        )


def _classifier(job: EvaluationJob) -> Classify:
    if not isinstance(job.model.objective, Classify):
        raise ConfigError(
            f"{job.run}: a {type(job.model.objective).__name__} run has no labels of its own to score; fine-tune it "
            "first (melpatch finetune --init RUN), or give a protocol that learns, such as --protocol knn linear"
        )
    return job.model.objective
