"""Compare ways to tell that a clip is of no class, as in lab/novelty.md.

    python benchmarks/novelty.py RUN --data DATA/speech_commands_9/manifest.csv --train train \
        --val val --held-out test --others DATA/esc50/manifest.csv DATA/fsdd/manifest.csv

Prints a line of JSON per way: the share of clips of each other kind of sound that it finds where 5 %
of the validation clips are false alarms, and under "held out" the false alarms on clips of the same
kind that chose nothing. The first second of each clip is taken.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from scipy.special import logsumexp

from melpatch.data.corpus import Corpus, label_matrix
from melpatch.data.manifest import load_corpus
from melpatch.evaluation.features import ClipVectors
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.evaluation.linear import fit_linear
from melpatch.evaluation.novelty import fit_novelty
from melpatch.inference.model import load

FALSE_ALARMS = 0.05
RATE = 16000

Score = Callable[[np.ndarray], np.ndarray]


def write_odd_sounds(folder: Path, count: int) -> None:
    """Write a second each of silence, hiss, hum, and white and pink noise at many levels."""
    random = np.random.default_rng(0)
    times = np.arange(RATE) / RATE
    for number in range(count):
        level = 10 ** random.uniform(-4, -0.3)
        spectrum = np.fft.rfft(random.normal(size=RATE))
        pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), RATE)
        hiss = 1e-4 * random.normal(size=RATE)
        waves = {
            "silence": np.zeros(RATE),
            "hiss": hiss,
            "hum": level * np.sin(2 * np.pi * 50 * times) + hiss,
            "white noise": level * random.uniform(-1, 1, RATE),
            "pink noise": level * pink / np.abs(pink).max(),
        }
        for kind, wave in waves.items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / kind / f"{number}.wav", wave, RATE)


def some(corpus: Corpus, splits: list[str], count: int) -> Corpus:
    """Return the first second of at most this many clips of some splits; no splits are all."""
    clips = [clip for clip in corpus.clips if not splits or clip.split in splits]
    chosen = sorted(np.random.default_rng(0).permutation(len(clips))[:count])
    first = [replace(clips[n], duration=min(clips[n].duration, 1.0)) for n in chosen]
    return replace(corpus, clips=tuple(first))


def ways(train: ClipVectors, val: ClipVectors, labels: tuple[str, ...]) -> dict[str, Score]:
    """Return the ways by name: each gives more to what is less like the training clips."""
    vectors = train.vectors.astype(np.float64)
    targets = label_matrix(train.clips, labels)
    head = fit_linear(vectors, targets, multi_label=False)
    novelty = fit_novelty(train.vectors, val.vectors)
    assert novelty is not None
    mean = vectors.mean(axis=0)
    scale = novelty.scale
    known = (vectors - mean) / scale

    def neighbour(new: np.ndarray) -> np.ndarray:
        standardised = (new - mean) / scale
        squares = (standardised**2).sum(axis=1)[:, None] + (known**2).sum(axis=1)
        return (squares - 2 * standardised @ known.T).min(axis=1)

    def energy(new: np.ndarray) -> np.ndarray:
        standardised = (new - head.mean) / head.scale
        return -logsumexp(standardised @ head.weight.T + head.bias, axis=1)

    return {
        "greatest probability": lambda new: -head.probabilities(new).max(axis=1),
        "energy": energy,
        "nearest training clip": neighbour,
        "Mahalanobis, 64 directions": lambda new: novelty.log_lengths(new)[:, 0],
        "across these": lambda new: novelty.log_lengths(new)[:, 1],
        "both, as predict has it": novelty.distances,
    }


def main(arguments: list[str] | None = None) -> None:
    """Print what every way finds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split-column", default="split")
    parser.add_argument("--train", nargs="+", required=True)
    parser.add_argument("--val", nargs="+", required=True)
    parser.add_argument("--held-out", nargs="*", default=[])
    parser.add_argument("--others", nargs="*", default=[])
    parser.add_argument("--pooling", default="rows+mean+std+delta")
    parser.add_argument("--clips", type=int, default=600)
    options = parser.parse_args(arguments)
    model = load(options.run)
    with tempfile.TemporaryDirectory() as scratch:
        features = FrozenFeatures.of_model(model, Path(scratch, "features"), seconds=1.0)

        def vectors(corpus: Corpus) -> ClipVectors:
            return features.vectors(corpus, options.pooling)

        corpus = load_corpus([options.data], split_column=options.split_column)
        train = vectors(some(corpus, options.train, options.clips))
        val = vectors(some(corpus, options.val, options.clips // 3))
        others = {}
        if options.held_out:
            held_out = vectors(some(corpus, options.held_out, options.clips // 3))
            others["held out"] = held_out.vectors
        for path in options.others:
            other = load_corpus([path], split_column=options.split_column)
            others[other.name] = vectors(some(other, [], options.clips // 4)).vectors
        write_odd_sounds(Path(scratch, "odd"), options.clips // 30)
        odd = vectors(load_corpus([Path(scratch, "odd")]))
        for kind in dict.fromkeys(clip.labels[0] for clip in odd.clips):
            clips = [clip for clip in odd.clips if clip.labels[0] == kind]
            others[kind] = odd.select(clips).vectors
        for name, score in ways(train, val, corpus.labels).items():
            limit = np.quantile(score(val.vectors), 1 - FALSE_ALARMS)
            shares = {kind: float((score(new) > limit).mean()) for kind, new in others.items()}
            print(json.dumps({"way": name, **{k: round(v, 3) for k, v in shares.items()}}))


if __name__ == "__main__":
    main()
