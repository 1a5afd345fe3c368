"""Score poolings of a frozen encoder on validation clips, as in lab/poolings.md.

    python benchmarks/pooling.py RUN --data DATA/esc50/manifest.csv --train 2 3 4 --val 5
    python benchmarks/pooling.py RUN --random-weights --data ...

Prints a line of JSON per pooling: accuracy of the linear probe at two penalties, of ten clips per
class, and of ten nearest neighbours. Test clips are never read.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from melpatch.data.corpus import Corpus, label_matrix
from melpatch.data.manifest import load_corpus
from melpatch.data.splits import take_per_class
from melpatch.evaluation.features import ClipVectors
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.evaluation.linear import fit_linear
from melpatch.inference.model import Model, load
from melpatch.protocols.knn import neighbour_shares
from melpatch.training.config import build

POOLINGS = (
    "mean",
    "mean+std",
    "mean+std+delta",
    "rows+mean",
    "rows+std",
    "rows+max",
    "rows+mean+std",
    "rows+mean+std+delta",
    "rows+mean+std+delta+input",
    "rows+mean+segments=2",
    "rows+mean+std+segments=2",
)


def scores(vectors: ClipVectors, train: Corpus, val: Corpus) -> dict[str, float]:
    """Return the accuracy of each probe on the validation clips."""
    learnt = vectors.select(train.clips)
    few = vectors.select(take_per_class(train, 10, seed=0).clips)
    heard = vectors.select(val.clips)
    truth = label_matrix(heard.clips, train.labels).argmax(axis=1)
    targets = label_matrix(learnt.clips, train.labels)
    tables = {}
    for penalty in (0.01, 0.1):
        head = fit_linear(learnt.vectors, targets, multi_label=False, C=penalty)
        tables[f"linear, C {penalty:g}"] = head.probabilities(heard.vectors)
    head = fit_linear(few.vectors, label_matrix(few.clips, train.labels), multi_label=False)
    tables["10 per class"] = head.probabilities(heard.vectors)
    tables["knn"] = neighbour_shares(learnt.vectors, targets, heard.vectors)
    return {name: float(np.mean(table.argmax(axis=1) == truth)) for name, table in tables.items()}


def main(arguments: list[str] | None = None) -> None:
    """Print the scores of every pooling."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split-column", default="split_or_fold")
    parser.add_argument("--train", nargs="+", required=True)
    parser.add_argument("--val", nargs="+", required=True)
    parser.add_argument("--poolings", nargs="+", default=POOLINGS)
    parser.add_argument("--random-weights", action="store_true")
    words = parser.parse_args(arguments)
    corpus = load_corpus([words.data], split_column=words.split_column)
    train = corpus.select(words.train)
    val = corpus.select(words.val)
    model = load(words.run)
    if words.random_weights:
        model = Model(model.config, build(model.config))
    both = replace(corpus, clips=(*train.clips, *val.clips))
    with tempfile.TemporaryDirectory() as folder:
        features = FrozenFeatures.of_model(model, Path(folder))
        for pooling in words.poolings:
            vectors = features.vectors(both, pooling)
            about = {"pooling": pooling, "dim": vectors.vectors.shape[1]}
            print(json.dumps(about | scores(vectors, train, val)), flush=True)


if __name__ == "__main__":
    main()
