"""Probes: protocols that learn from frozen features only."""

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from melpatch.data.corpus import Corpus, label_matrix
from melpatch.distributed import on_rank_zero
from melpatch.evaluation.features import ClipTokens, ClipVectors
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.linear import LinearHead
from melpatch.evaluation.protocol import Protocol
from melpatch.evaluation.splits import EvaluationSplit
from melpatch.evaluation.trials import TrialResult
from melpatch.inference.corpus import require_readable
from melpatch.inference.fitted import require_spelling
from melpatch.nn.pooling import DEFAULT_POOLING


class ProbeInputs(NamedTuple):
    """The clips of one part (train, val or test) as a probe sees them."""

    features: Any
    """ClipVectors or ClipTokens."""
    targets: Float[np.ndarray, "clip label"]
    """1 where the clip has the label, else 0."""


def probe_inputs(
    features: ClipVectors | ClipTokens, part: Corpus, labels: Sequence[str]
) -> ProbeInputs:
    """Return the features and targets of those clips of a part that could be read.

    Raises:
        DataError: that is none of them.
    """
    selected = features.select(part.clips)
    require_readable(selected.clips, part.clips, features.rejected)
    return ProbeInputs(selected, label_matrix(selected.clips, labels))


@dataclass(frozen=True, kw_only=True)
class Probe(Protocol):
    """A protocol that learns from frozen features only."""

    @abstractmethod
    def features(self, job: EvaluationJob) -> ClipVectors | ClipTokens:
        """Return the features of the job's labelled clips that the probe learns from."""

    @abstractmethod
    def fit_predict(
        self,
        train: ProbeInputs,
        val: ProbeInputs | None,
        test: ProbeInputs,
        *,
        multi_label: bool,
        seed: int,
    ) -> tuple[Float[np.ndarray, "clip label"], dict[str, Any]]:
        """Return the probability of each label for each test clip, and the details of the trial."""

    def run_trial(self, job: EvaluationJob, split: EvaluationSplit, seed: int) -> TrialResult:
        """See :meth:`Protocol.run_trial`; all processes embed, and rank 0 learns.

        ``seconds`` is the time of the learning, ``embedding_seconds`` that of the embedding, short
        where features were kept.
        """
        start = time.monotonic()
        features = self.features(job)
        embedding_seconds = round(time.monotonic() - start, 2)
        trial = on_rank_zero(lambda: self._learn(job, split, seed, features))
        return replace(trial, details=trial.details | {"embedding_seconds": embedding_seconds})

    def _learn(
        self,
        job: EvaluationJob,
        split: EvaluationSplit,
        seed: int,
        features: ClipVectors | ClipTokens,
    ) -> TrialResult:
        start = time.monotonic()
        labels = job.corpus.labels
        test = probe_inputs(features, split.test, labels)
        train = probe_inputs(features, split.train, labels)
        val = probe_inputs(features, split.val, labels) if split.val else None
        probabilities, details = self.fit_predict(
            train, val, test, multi_label=job.corpus.multi_label, seed=seed
        )
        cost = {
            "seconds": round(time.monotonic() - start, 2),
            "rejected": [rejected.path for rejected in features.rejected],
        }
        return TrialResult(split.name, seed, test.features.clips, probabilities, details | cost)


@dataclass(frozen=True, kw_only=True)
class VectorProbe(Probe):
    """A probe that learns from one vector per clip."""

    pooling: str = DEFAULT_POOLING
    """How tokens become one vector, such as rows+mean+std (see melpatch.nn.pooling), or fitted after
    melpatch fit-embedding."""

    def __post_init__(self) -> None:
        """Check the spelling."""
        require_spelling(self.pooling)

    def features(self, job: EvaluationJob) -> ClipVectors:
        """See :meth:`Probe.features`."""
        return job.features.vectors(job.labelled_corpus, self.pooling)


@dataclass(frozen=True, kw_only=True)
class LinearProbe(VectorProbe):
    """A probe of vectors that is a linear head, which can be kept as a classifier."""

    @abstractmethod
    def fit(self, train: ProbeInputs, *, multi_label: bool) -> LinearHead:
        """Return the head that training clips give."""


@dataclass(frozen=True, kw_only=True)
class TokenProbe(Probe):
    """A probe that learns from all tokens of each clip."""

    def features(self, job: EvaluationJob) -> ClipTokens:
        """See :meth:`Probe.features`."""
        return job.features.tokens(job.labelled_corpus)
