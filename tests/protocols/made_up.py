"""Labelled clips without sound, features of them that tell the labels apart, and jobs on these for probes."""

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from journeys.three_sounds import settings

from melpatch.data.clip import Clip, clip_key
from melpatch.data.corpus import Corpus
from melpatch.evaluation.features import ClipTokens, ClipVectors
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.evaluation.job import EvaluationJob
from melpatch.inference.model import Model
from melpatch.training.config import build

LABELS = ("bell", "dog", "rain")
DIM = 8


def corpus(
    clips=120, splits=("train", "train", "val", "test"), labels_of=lambda n: (LABELS[n % 3],)
) -> Corpus:
    """Return clips that have splits and labels in turn."""
    made = tuple(
        Clip(
            Path(f"{number}.wav"), clip_key("made up", f"{number}", 0.0), 0.0, 1.0, labels_of(number),
            splits[number // 3 % len(splits)],
        )
        for number in range(clips)
    )  # fmt: skip
    return Corpus("made up", made, LABELS, any(len(clip.labels) > 1 for clip in made))


def relabelled(whole: Corpus, labels_of) -> Corpus:
    """Return the same clips with the labels that ``labels_of(clip)`` gives them; the known labels stay."""
    return replace(
        whole, clips=tuple(replace(clip, labels=labels_of(clip)) for clip in whole.clips)
    )


class Features(FrozenFeatures):
    """Features that say which labels a clip has, under noise that is the clip's own; the first layer says nothing.

    A clip has one to six tokens. The last of them says its labels, the others do so half as loud.
    """

    def __init__(self, told: Corpus) -> None:
        self.fingerprint = "made up"
        self.num_layers = model().objective.encoder.num_layers
        self.told = {
            clip.key: [float(label in clip.labels) for label in LABELS] for clip in told.clips
        }

    def of(self, clip: Clip):
        """Return a clip's tokens, and noise for its first layer."""
        noise = np.random.default_rng(clip.key % 2**32)
        loudness = np.full((1 + clip.key % 6, 1), 0.5)
        loudness[-1] = 1.0
        tokens = noise.normal(scale=0.3, size=(len(loudness), DIM))
        tokens[:, : len(LABELS)] += 3 * loudness * self.told[clip.key]
        return tokens, noise.normal(size=DIM)

    def vectors(self, corpus: Corpus, pooling: str) -> ClipVectors:
        """Return means of tokens, whatever the pooling, or those of as many layers as the model has."""
        found = [self.of(clip) for clip in corpus.clips]
        mean = np.stack([tokens.mean(axis=0) for tokens, _ in found]).astype(np.float32)
        if pooling != "layers=all":
            return ClipVectors(corpus.clips, mean)
        noise = np.stack([noise for _, noise in found])
        silent = [noise] * (self.num_layers - 1)
        return ClipVectors(corpus.clips, np.concatenate([*silent, mean], axis=1, dtype=np.float32))

    def tokens(self, corpus: Corpus) -> ClipTokens:
        """Return the tokens."""
        found = [self.of(clip)[0].astype(np.float16) for clip in corpus.clips]
        ends = np.cumsum([len(tokens) for tokens in found]).tolist()
        return ClipTokens(
            corpus.clips, np.concatenate(found), [[span] for span in pairwise([0, *ends])]
        )


@cache
def model() -> Model:
    """Return a network, of which probes of made-up features make no use."""
    return Model(settings(), build(settings()), "cpu")


def job(
    folder: Path, whole: Corpus, *, told: Corpus | None = None, seeds=(0,), labels_per_class=None
) -> EvaluationJob:
    """Return a job on made-up clips.

    Args:
        folder: for the trials.
        whole: the clips with the labels that a protocol is shown.
        told: the same clips with the labels that the features tell; by default those.
        seeds: one repetition each.
        labels_per_class: training clips per class.
    """
    return EvaluationJob(
        folder / "run",
        model(),
        whole,
        (),
        seeds,
        labels_per_class,
        Features(told or whole),
        folder / "out",
    )


def accuracy(trials) -> float:
    """Return the share of clips whose most probable label is theirs."""
    return np.mean(
        [
            LABELS[row.argmax()] in clip.labels
            for trial in trials
            for clip, row in zip(trial.clips, trial.probabilities, strict=True)
        ]
    )
