"""What a protocol is: a stated way from a network and a labelled corpus to scores, with a name and a version.

A protocol file holds one class. A probe (:class:`Probe`) learns from what a frozen encoder says and sees nothing else;
the others bring their own :meth:`Protocol.trial`. Whatever a number hangs on (which clips choose, how, how often) is a
field or a constant of the class, and is written beside every score. A change that can change scores raises ``version``.
"""

import json
import time
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from melpatch.atomic import written_aside
from melpatch.config import to_dict
from melpatch.data.clip import Clip
from melpatch.data.corpus import Corpus, label_matrix
from melpatch.data.splits import take_per_class
from melpatch.distributed import on_rank_zero
from melpatch.errors import CheckpointError
from melpatch.evaluation.features import Tokens, Vectors
from melpatch.evaluation.frozen import Frozen, listing
from melpatch.evaluation.metrics import primary_metric
from melpatch.evaluation.rounds import HELD_OUT, Choice, Round, labelled, rounds, rule
from melpatch.evaluation.summary import Trial
from melpatch.inference.corpus import require_readable
from melpatch.inference.model import Model
from melpatch.progress import track
from melpatch.registry import name_of


@dataclass(frozen=True)
class EvaluationJob:
    """What is to be scored, and where.

    Attributes:
        run: the run folder.
        model: its network, or the same at random weights.
        corpus: labelled clips with splits or folds.
        scored: splits or folds to score; none stands for ``test``, or else every fold.
        seeds: one repetition each.
        labels_per_class: training clips per class, chosen by the seed; None takes all.
        frozen: what keeps the network's answers.
        out: folder for trials and for runs that a protocol trains.
        name: a word for what is scored: corpus, splits, few labels, random weights.
        untrained: whether the network has random weights.
        batch_size: windows at a time.
        workers: decoding processes.
    """

    run: Path
    model: Model
    corpus: Corpus
    scored: tuple[str, ...]
    seeds: tuple[int, ...]
    labels_per_class: int | None
    frozen: Frozen
    out: Path
    name: str = ""
    untrained: bool = False
    batch_size: int = 32
    workers: int = 0

    @cached_property
    def labelled(self) -> Corpus:
        """The clips that have labels."""
        return labelled(self.corpus)


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC):
    """A way to score a network; its fields are its settings."""

    version: ClassVar[int] = 1
    choice: ClassVar[Choice] = "none"
    """Which clips choose."""
    held_out: ClassVar[float] = HELD_OUT
    """Which share of the training clips does, where there are no others for it."""
    selection: ClassVar[str]
    """What is chosen by them and how, in words; or that nothing is."""
    repetitions: ClassVar[int] = 1
    """How many seeds by default."""

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that are not those which the protocol's name stands for."""
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if getattr(self, one.name) != one.default
        }

    def metric(self, multi_label: bool) -> str:
        """Return the metric that counts."""
        return primary_metric(multi_label)

    def split_rule(self) -> str:
        """Return in words which clips are learnt from, and which choose."""
        return rule(self.choice, self.held_out)

    def multi_label(self, job: EvaluationJob) -> bool:
        """Return whether a clip may have several labels."""
        return job.corpus.multi_label

    def labels_per_class(self, job: EvaluationJob) -> int | None:
        """Return how many training clips of each class are learnt from; None for all."""
        return job.labels_per_class

    def labels(self, job: EvaluationJob) -> tuple[str, ...]:
        """Return the classes that are told apart."""
        return job.corpus.labels

    def rounds(self, job: EvaluationJob) -> list[Round]:
        """Return which clips are learnt from, choose and are scored, once for each split or fold to score."""
        return rounds(job.corpus, job.scored, self.choice, self.held_out)

    @abstractmethod
    def trial(self, job: EvaluationJob, one: Round, seed: int) -> Trial:
        """Learn from a round's training clips, and score its test clips; all processes call it, and get the same."""

    def clear(self, job: EvaluationJob, one: Round, seed: int) -> None:  # noqa: B027 - most protocols leave nothing
        """Remove what a trial leaves beside its file, and nobody needs once that is written; nothing by default."""

    def following(self, first: Trial) -> "Protocol":
        """Return the protocol for a seed's other rounds, given the trial of its first; the same, unless that chose."""
        return self

    def conclude(
        self, job: EvaluationJob, trials: list[Trial]
    ) -> tuple[list[Trial], dict[str, Any]]:
        """Return the trials as they are scored in the end, and what else is to be told of them together."""
        return trials, {}

    def run(self, job: EvaluationJob) -> tuple[list[Trial], dict[str, Any]]:
        """Return all trials, and what else is to be told; those that were done before are taken from ``job.out``.

        All processes must call it, and get the same; the first one reads and writes.
        """
        parts = self.rounds(job)
        asked = [(one, seed) for seed in job.seeds for one in parts]
        done: list[Trial] = []
        protocol: Protocol = self
        for one, seed in track(asked, len(asked), name_of(type(self))):
            if one is parts[0]:
                done.append(self._once(job, one, seed))
                protocol = self.following(done[-1])
            else:
                done.append(protocol._once(job, one, seed))
        counts = [
            {"scored": one.name, "train": len(one.train.clips), "val": len(one.val.clips) if one.val else 0,
             "test": len(one.test.clips)} for one in parts
        ]  # fmt: skip
        trials, told = self.conclude(job, done)
        return trials, {"rounds": counts, **told}

    def asked(self, job: EvaluationJob, one: Round) -> str:
        """Return as text all that a trial hangs on but its seed: where that differs, it is done anew."""
        about = [
            to_dict(self),
            self.version,
            job.frozen.identity,
            self.labels_per_class(job),
            self.multi_label(job),
            _hashed(one),
        ]
        return json.dumps(about, sort_keys=True)

    def _once(self, job: EvaluationJob, one: Round, seed: int) -> Trial:
        path, asked = job.out / "trials" / f"{one.name}-{seed}.npz", self.asked(job, one)
        trial = on_rank_zero(lambda: _kept(path, asked, one, seed))
        if trial is None:
            made = self._timed(job, one, seed)
            on_rank_zero(lambda: _keep(made, path, asked))
            trial = made
        on_rank_zero(lambda: self.clear(job, one, seed))
        return trial

    def _timed(self, job: EvaluationJob, one: Round, seed: int) -> Trial:
        """Return a trial that tells what it cost, unless it knows better."""
        per_class = self.labels_per_class(job)
        begun, train = time.monotonic(), one.train
        if per_class is not None:
            train = take_per_class(train, per_class, seed)
        trial = self.trial(job, replace(one, train=train), seed)
        cost = {"train": len(train.clips), "seconds": round(time.monotonic() - begun, 2)}
        return replace(trial, details=cost | trial.details)


class Examples(NamedTuple):
    """Clips as a probe sees them."""

    features: Any
    """Vectors or Tokens."""
    targets: Float[np.ndarray, "clip label"]


@dataclass(frozen=True, kw_only=True)
class Probe(Protocol):
    """A protocol that learns from frozen features alone."""

    tokens: ClassVar[bool] = False
    """Whether it wants all tokens of each clip, in the place of vectors."""

    @abstractmethod
    def predict(
        self, train: Examples, val: Examples | None, test: Examples, *, multi_label: bool, seed: int
    ) -> tuple[Float[np.ndarray, "clip label"], dict[str, Any]]:
        """Return the probability of each label for each test clip, and what was chosen on the way."""

    def trial(self, job: EvaluationJob, one: Round, seed: int) -> Trial:
        """See :meth:`Protocol.trial`; all processes embed, and the first one learns.

        ``seconds`` are those of the learning, ``embedding_seconds`` those before, few where features were kept.
        """
        begun, every = time.monotonic(), job.labelled
        features: Vectors | Tokens = (
            job.frozen.tokens(every) if self.tokens else job.frozen.vectors(every)
        )
        spent = round(time.monotonic() - begun, 2)
        trial = on_rank_zero(lambda: self._learnt(job, one, seed, features))
        return replace(trial, details=trial.details | {"embedding_seconds": spent})

    def _learnt(
        self, job: EvaluationJob, one: Round, seed: int, features: Vectors | Tokens
    ) -> Trial:
        def seen(part: Corpus) -> Examples:
            chosen = features.select(part.clips)
            require_readable(chosen.clips, part.clips, features.rejected)
            return Examples(chosen, label_matrix(chosen.clips, job.corpus.labels))

        begun, test = time.monotonic(), seen(one.test)
        found, details = self.predict(
            seen(one.train),
            seen(one.val) if one.val else None,
            test,
            multi_label=job.corpus.multi_label,
            seed=seed,
        )
        cost = {"seconds": round(time.monotonic() - begun, 2)}
        rejected = {"rejected": [each.path for each in features.rejected]}
        return Trial(one.name, seed, test.features.clips, found, details | cost | rejected)


def _hashed(one: Round) -> list[str]:
    """Return a hash of each part: its clips, in whatever order, their files, and their labels."""

    def hashed(clips: Sequence[Clip]) -> str:
        ordered = sorted(clips, key=lambda clip: clip.key)
        return listing(ordered, repr([one.test.labels, *(clip.labels for clip in ordered)]))

    return [hashed(part.clips) if part else "" for part in (one.train, one.val, one.test)]


def _keep(trial: Trial, path: Path, asked: str) -> None:
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(
            file,
            asked=asked,
            keys=np.array([clip.key for clip in trial.clips]),
            probabilities=trial.probabilities,
            details=json.dumps(trial.details),
        )


def _kept(path: Path, asked: str, one: Round, seed: int) -> Trial | None:
    """Return a trial that was done before under the same settings, on the same clips; remove one that was not.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with np.load(path) as kept:
            if str(kept["asked"]) != asked:
                path.unlink()  # what else a trial keeps is about to be that of the new one
                return None
            place = {clip.key: clip for clip in one.test.clips}
            clips = tuple(place[key] for key in kept["keys"].tolist())
            return Trial(
                one.name, seed, clips, kept["probabilities"], json.loads(str(kept["details"]))
            )
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise CheckpointError(
            f"{path}: a finished trial that cannot be read ({error}); delete the file"
        ) from error
