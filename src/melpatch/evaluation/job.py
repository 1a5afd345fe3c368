"""What is scored and where: one job per protocol, all on the same network, corpus and features."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from melpatch.data.corpus import Corpus
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.evaluation.splits import labelled_clips
from melpatch.inference.model import Model
from melpatch.inference.novelty import FALSE_ALARMS


@dataclass(frozen=True)
class EvaluationJob:
    """What is to be scored, and where the results go.

    Attributes:
        run: the run folder.
        model: its network, or the same network at random weights.
        corpus: labelled clips with splits or folds.
        scored_splits: splits or folds to score; empty for ``test``, or else every fold.
        seeds: one repetition each.
        labels_per_class: training clips per class, drawn by the seed; None for all.
        features: the network's features of the corpus, computed once and kept.
        out: folder for trials, and for runs that a protocol trains.
        name: what is scored, in one word: corpus, splits, labels per class, random weights.
        data: the sources of the corpus, as absolute paths or URLs.
        random_weights: whether the network has random weights.
        batch_size: windows per batch.
        workers: decoding processes.
        pictures: whether pictures are drawn beside the scores.
        threshold: lowest probability of a label of a classifier; None for its own.
        false_alarms: share of clips like the training ones that may be called none of the classes.
    """

    run: Path
    model: Model
    corpus: Corpus
    scored_splits: tuple[str, ...]
    seeds: tuple[int, ...]
    labels_per_class: int | None
    features: FrozenFeatures
    out: Path
    name: str = ""
    data: tuple[str, ...] = ()
    random_weights: bool = False
    batch_size: int = 32
    workers: int = 0
    pictures: bool = True
    threshold: float | None = None
    false_alarms: float = FALSE_ALARMS

    @cached_property
    def labelled_corpus(self) -> Corpus:
        """The clips that have labels."""
        return labelled_clips(self.corpus)
