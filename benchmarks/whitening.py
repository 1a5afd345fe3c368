"""Vote by neighbours on vectors as they are, standardised, and whitened by the training clips.

    python benchmarks/whitening.py RUN ... [--task NAME=CSV:SPLIT_COLUMN:TRAIN,TRAIN:VAL ...]
        [--pooling mean+std] [--dims 64 256] [--ridges 0 0.1] [--statistics]

Prints a line of JSON per run, task and way of scaling: accuracy on validation clips of the vote of ten
neighbours by cosine, with all training clips and with 10 per class (mean of three draws), and the
share of those ten of all that have the clip's class, as a search shows them. Test clips
are never read. Features are kept in the run's folder, as ``melpatch evaluate`` does.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from melpatch.data.corpus import Corpus, label_matrix
from melpatch.data.manifest import load_corpus
from melpatch.data.splits import take_per_class
from melpatch.evaluation.features import ClipVectors
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.evaluation.spectrogram_statistics import POOLING, SpectrogramStatistics
from melpatch.evaluation.standardise import Standardiser
from melpatch.inference.components import Components
from melpatch.inference.model import Model, load
from melpatch.nn.pooling import DEFAULT_POOLING
from melpatch.protocols.knn import neighbour_shares

DRAWS = 3
Vectors = Float[np.ndarray, "clip number"]
Scale = Callable[[Vectors], Vectors]

TASKS = [
    "ESC-50=esc50/manifest.csv:split_or_fold:3,4,5:2",
    "words=speech_commands_9/manifest.csv:split_or_fold:train:val",
    "digits=fsdd/manifest.csv:split_or_fold:train:val",
    "emotions=emodb_2s/manifest.csv:split_or_fold:3,4,5:2",
    "speakers=speechocean762_40spk/manifest.csv:split_or_fold:train:val",
    "machine faults=machine_faults.csv:split_or_fold:train:val",
]


def ways(train: Vectors, dims: list[int], ridges: list[float]) -> Iterator[tuple[str, Scale]]:
    """Yield each way to scale vectors, fitted to those of training clips.

    For a ridge see :meth:`melpatch.inference.components.Components.whitened`.
    """
    yield "as they are", lambda vectors: vectors
    standardise = Standardiser.of(train)
    yield "standardised", standardise
    components = Components.of(train, max(dims))
    for dim in dims:
        for ridge in ridges:
            axes = components.whitened(ridge)[:, :dim]
            yield (
                f"whitened to {dim}, ridge {ridge:g}",
                lambda vectors, axes=axes: (vectors - components.mean) @ axes,
            )


def lines_of(
    vectors: ClipVectors, train: Corpus, val: Corpus, dims: list[int], ridges: list[float]
) -> Iterator[dict[str, object]]:
    """Yield the scores of every way on one task."""
    scored = vectors.select(val.clips)
    truth = label_matrix(scored.clips, train.labels).argmax(axis=1)

    def scores(part: Corpus, scale: Scale) -> tuple[float, float]:
        learnt = vectors.select(part.clips)
        targets = label_matrix(learnt.clips, train.labels)
        shares = neighbour_shares(
            scale(np.asarray(learnt.vectors)), targets, scale(np.asarray(scored.vectors))
        )
        right = np.mean(shares.argmax(axis=1) == truth)
        return float(right), float(shares[np.arange(len(truth)), truth].mean())

    # Scaling needs no labels, so it is fitted to all training clips also where few have them.
    whole = np.asarray(vectors.select(train.clips).vectors)
    for way, scale in ways(whole, dims, ridges):
        few = [scores(take_per_class(train, 10, seed), scale)[0] for seed in range(DRAWS)]
        accuracy, share = scores(train, scale)
        yield {
            "way": way,
            "clips": len(whole),
            "all": round(accuracy, 4),
            "share": round(share, 4),
            "10 per class": round(float(np.mean(few)), 4),
        }


def read_task(text: str) -> tuple[str, Corpus, Corpus, Corpus]:
    """Return the name of a task, its labelled clips, and those that train and validate."""
    name, _, place = text.partition("=")
    data, column, train, val = place.split(":")
    corpus = load_corpus([data], split_column=column)
    return name, corpus, corpus.select(tuple(train.split(","))), corpus.select((val,))


def features_of(
    run: Path, model: Model, pooling: str, statistics: bool
) -> Iterator[tuple[str, FrozenFeatures]]:
    """Yield the features of a run and, if asked, of the statistics of its spectrograms."""
    yield pooling, FrozenFeatures.of_model(model, run / "features")
    if statistics:
        source = SpectrogramStatistics("log-mel", model.config.front_end, model.device)
        folder = Path(tempfile.mkdtemp())
        yield (
            POOLING,
            FrozenFeatures(source, folder, fingerprint=source.fingerprint, seconds=model.seconds),
        )


def main(arguments: list[str] | None = None) -> None:
    """Print the scores of every run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--task", nargs="+", default=TASKS)
    parser.add_argument("--pooling", default=DEFAULT_POOLING)
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--ridges", type=float, nargs="+", default=[0.0, 0.1])
    parser.add_argument("--statistics", action="store_true")
    asked = parser.parse_args(arguments)
    tasks = [read_task(text) for text in asked.task]
    for run in asked.runs:
        model = load(run)
        for number, (pooling, features) in enumerate(
            features_of(run, model, asked.pooling, asked.statistics)
        ):
            source = run.name if number == 0 else "log-mel statistics"
            for name, corpus, train, val in tasks:
                vectors = features.vectors(corpus, pooling)
                for line in lines_of(vectors, train, val, asked.dims, asked.ridges):
                    print(json.dumps({"run": source, "task": name, **line}), flush=True)


if __name__ == "__main__":
    main()
