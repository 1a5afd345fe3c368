"""Probes: protocols that learn from frozen features only."""

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from melpatch.config import check
from melpatch.data.corpus import Corpus, label_matrix
from melpatch.distributed import on_rank_zero
from melpatch.evaluation.features import ClipTokens, ClipVectors
from melpatch.evaluation.heads import (
    HeadInputs,
    HeadMetric,
    predict_probabilities,
    train_by_epochs,
)
from melpatch.evaluation.job import EvaluationJob
from melpatch.evaluation.linear import LinearHead
from melpatch.evaluation.protocol import Protocol
from melpatch.evaluation.splits import EvaluationSplit, ValidationSource
from melpatch.evaluation.trials import TrialResult
from melpatch.inference.corpus import require_readable
from melpatch.inference.fitted import require_spelling
from melpatch.nn.pooling import DEFAULT_POOLING
from melpatch.nn.token_heads import TokenHead
from melpatch.registry import name_of
from melpatch.rng import seeded


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
    """How tokens become one vector, such as rows+mean+std (see melpatch.nn.pooling), or fitted
    after melpatch fit-embedding."""

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
    def fit(
        self, train: ProbeInputs, *, multi_label: bool, class_weights: Sequence[float] = ()
    ) -> LinearHead:
        """Return the head that training clips give.

        Args:
            train: the training clips.
            multi_label: whether a clip may have several labels.
            class_weights: weight of the loss of each label's clips, where a clip has one label;
                equal without any.
        """


@dataclass(frozen=True, kw_only=True)
class TokenProbe(Probe):
    """A probe that trains a head on all tokens of each clip, and can be kept as a classifier."""

    validation: ClassVar[ValidationSource] = "held out"
    selection_rule: ClassVar[str] = "the weights of the epoch with the best validation score"
    gradient_clip: ClassVar[float | None] = None
    """Largest norm of the gradient; None for none."""

    epochs: int
    """Passes over the training clips."""
    batch_size: int
    """Clips per step."""
    lr: float
    """Learning rate of AdamW at the start of the cosine schedule."""
    weight_decay: float
    """Weight decay."""
    select_by: HeadMetric = "standard"
    """What chooses the epoch on validation clips: accuracy, balanced_accuracy, macro_f1 or mAP;
    standard is accuracy, or mAP where clips have several labels."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("epochs", "batch_size"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        check(self.lr > 0, "lr", self.lr, "above 0")
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")

    @abstractmethod
    def classifier_settings(self) -> dict[str, Any]:
        """Return the settings of :class:`melpatch.objectives.classify.Classify` that give it this head."""

    @abstractmethod
    def new_head(self, dim: int, num_labels: int) -> TokenHead:
        """Return a head at random weights for tokens of a width."""

    def features(self, job: EvaluationJob) -> ClipTokens:
        """See :meth:`Probe.features`."""
        return job.features.tokens(job.labelled_corpus)

    def fit(
        self, train: ProbeInputs, val: ProbeInputs, *, multi_label: bool, seed: int
    ) -> tuple[TokenHead, dict[str, Any]]:
        """Return the head that training clips give, and how it was selected on validation clips."""
        dim = train.features.values.shape[1]
        with seeded(seed, name_of(type(self))):
            head = self.new_head(dim, train.targets.shape[1])
            details = train_by_epochs(
                head,
                HeadInputs.from_tokens(train.features, train.targets),
                HeadInputs.from_tokens(val.features, val.targets),
                epochs=self.epochs,
                batch_size=self.batch_size,
                lr=self.lr,
                weight_decay=self.weight_decay,
                gradient_clip=self.gradient_clip,
                select_by=self.select_by,
                multi_label=multi_label,
                seed=seed,
            )
        return head, details

    def probabilities(
        self, head: TokenHead, clips: ProbeInputs, *, multi_label: bool
    ) -> Float[np.ndarray, "clip label"]:
        """Return the probability of each label for each clip."""
        inputs = HeadInputs.from_tokens(clips.features, clips.targets)
        return predict_probabilities(head, inputs, self.batch_size, multi_label=multi_label)

    def fit_predict(
        self,
        train: ProbeInputs,
        val: ProbeInputs | None,
        test: ProbeInputs,
        *,
        multi_label: bool,
        seed: int,
    ) -> tuple[Float[np.ndarray, "clip label"], dict[str, Any]]:
        """See :meth:`Probe.fit_predict`."""
        assert val is not None  # clips are held out where there is no validation split
        head, details = self.fit(train, val, multi_label=multi_label, seed=seed)
        return self.probabilities(head, test, multi_label=multi_label), details


KeptProbe = LinearProbe | TokenProbe
"""A probe that can be kept as a classifier, see :mod:`melpatch.evaluation.kept_probe`."""
