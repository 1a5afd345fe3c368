"""Score probes of frozen vectors with 1 to 20 clips per class, as in lab/few-labels.md.

    python benchmarks/few_label_ways.py RUN --data FOLDER [--random-weights]

FOLDER holds the corpora of the lab (lab/README.md). Labels are drawn from the training clips; the rest
of them count as unlabelled. Prints a line of JSON per corpus, number of labels and way: accuracy on
validation clips, mean over draws, and the mean gain over the linear probe of the same draws with its
standard error. Test clips are never read.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from budget_curve import TASKS, Task
from jaxtyping import Float, Int
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from melpatch.data.corpus import Corpus, label_matrix
from melpatch.data.manifest import load_corpus
from melpatch.data.splits import take_per_class
from melpatch.evaluation.features import ClipVectors
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.evaluation.linear import fit_linear
from melpatch.inference.model import Model, load
from melpatch.nn.pooling import DEFAULT_POOLING
from melpatch.training.config import build

DRAWS = 5
LABELS_PER_CLASS = (1, 5, 10, 20)
PENALTY = 0.1  # C of the linear probe
WHITENED = 64  # numbers of a whitened vector
ROUNDS = 3  # of pseudo-labels, each with twice as many as the one before

Vectors = Float[np.ndarray, "clip feature"]
Classes = Int[np.ndarray, " clip"]


@dataclass(frozen=True)
class Given:
    """What a way learns from, and what it is asked."""

    vectors: Vectors
    classes: Classes
    unlabelled: Vectors
    asked: Vectors

    def mapped(self, change: Callable[[Vectors], Vectors]) -> "Given":
        """Return the same with all vectors changed."""
        vectors, unlabelled, asked = map(change, (self.vectors, self.unlabelled, self.asked))
        return replace(self, vectors=vectors, unlabelled=unlabelled, asked=asked)

    def standardised(self) -> "Given":
        """Standardise by the mean and deviation of all training clips, labelled or not."""
        every = np.concatenate([self.vectors, self.unlabelled])
        mean = every.mean(axis=0)
        scale = every.std(axis=0) + 1e-9
        return self.mapped(lambda vectors: (vectors - mean) / scale)

    def whitened(self) -> "Given":
        """Whiten by the first principal axes of all training clips."""
        shared = self.standardised()
        every = np.concatenate([shared.vectors, shared.unlabelled])
        axes = PCA(WHITENED, whiten=True, random_state=0).fit(every)
        return shared.mapped(axes.transform)


def linear(given: Given) -> Classes:
    """Answer by the linear probe as the protocols fit it."""
    targets = np.eye(int(given.classes.max()) + 1)[given.classes]
    head = fit_linear(given.vectors, targets, multi_label=False, C=PENALTY)
    answers: Classes = head.probabilities(given.asked).argmax(axis=1)
    return answers


def regression(given: Given) -> Classes:
    """Answer by logistic regression on the vectors as they are."""
    answers: Classes = fit(given.vectors, given.classes).predict(given.asked)
    return answers


def fit(vectors: Vectors, classes: Classes) -> Pipeline:
    """Return logistic regression with the penalty of the linear probe."""
    # All principal axes: the same minimum, in as many numbers as there are clips.
    pipeline = make_pipeline(PCA(), LogisticRegression(C=PENALTY, max_iter=1000))
    return pipeline.fit(vectors, classes)


def prototypes(given: Given) -> Classes:
    """Answer by the nearest mean of a class (Snell et al. 2017, arXiv 1703.05175)."""
    labels = np.unique(given.classes)
    means = np.stack([given.vectors[given.classes == label].mean(axis=0) for label in labels])
    # |a - m|^2 without the term of a, which is the same for every mean.
    distances = (means**2).sum(axis=1) - 2 * given.asked @ means.T
    answers: Classes = labels[distances.argmin(axis=1)]
    return answers


def pseudo_labels(given: Given) -> Classes:
    """Answer after rounds in which the surest answers to unlabelled clips count as labels.

    Source: Lee 2013; as many clips of each class, so that no class takes over.
    """
    labels, counts = np.unique(given.classes, return_counts=True)
    model = fit(given.vectors, given.classes)
    for round_number in range(ROUNDS):
        probabilities = model.predict_proba(given.unlabelled)
        guessed = probabilities.argmax(axis=1)
        wanted = int(counts.max()) * 2**round_number
        taken = []
        for number in range(len(labels)):
            of_class = np.flatnonzero(guessed == number)
            surest = np.argsort(-probabilities[of_class, number], kind="stable")
            taken.append(of_class[surest[:wanted]])
        chosen = np.concatenate(taken)
        vectors = np.concatenate([given.vectors, given.unlabelled[chosen]])
        model = fit(vectors, np.concatenate([given.classes, labels[guessed[chosen]]]))
    answers: Classes = model.predict(given.asked)
    return answers


WAYS: dict[str, Callable[[Given], Classes]] = {
    "linear": linear,
    "linear, standardised by all clips": lambda given: regression(given.standardised()),
    "linear, whitened": lambda given: regression(given.whitened()),
    "prototypes, standardised by all clips": lambda given: prototypes(given.standardised()),
    "prototypes, whitened": lambda given: prototypes(given.whitened()),
    "pseudo-labels": lambda given: pseudo_labels(given.standardised()),
}


def given_of(vectors: ClipVectors, train: Corpus, val: Corpus, few: int, seed: int) -> Given:
    """Return the labelled clips of a draw, the unlabelled ones and the validation clips."""
    labelled = take_per_class(train, few, seed)
    keys = {clip.key for clip in labelled.clips}
    rest = tuple(clip for clip in train.clips if clip.key not in keys)
    learnt = vectors.select(labelled.clips)
    classes = label_matrix(learnt.clips, train.labels).argmax(axis=1)
    return Given(
        learnt.vectors, classes, vectors.select(rest).vectors, vectors.select(val.clips).vectors
    )


def compare(features: FrozenFeatures, data: Path, task: Task, name: str) -> None:
    """Print the scores of every way on a corpus."""
    corpus = load_corpus([str(data / task.folder / "manifest.csv")], split_column="split_or_fold")
    train = corpus.select(task.train)
    val = corpus.select(task.val)
    vectors = features.vectors(replace(train, clips=(*train.clips, *val.clips)), DEFAULT_POOLING)
    truth = label_matrix(vectors.select(val.clips).clips, train.labels).argmax(axis=1)
    for few in LABELS_PER_CLASS:
        draws = [given_of(vectors, train, val, few, seed) for seed in range(DRAWS)]
        if not all(len(given.unlabelled) for given in draws):
            # All training clips have a label then, and the draws are the same.
            continue
        scores = {
            way: np.array([np.mean(answer(given) == truth) for given in draws])
            for way, answer in WAYS.items()
        }
        for way, accuracies in scores.items():
            gains = accuracies - scores["linear"]
            record = {"run": name, "corpus": task.folder, "labels per class": few, "way": way}
            record |= {"accuracy": round(float(accuracies.mean()), 4)}
            record |= {"gain": round(float(gains.mean()), 4)}
            record |= {"standard error": round(float(gains.std(ddof=1) / DRAWS**0.5), 4)}
            print(json.dumps(record), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Compare the ways on every corpus."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--random-weights", action="store_true")
    options = parser.parse_args(arguments)
    model = load(options.run)
    name = str(options.run)
    if options.random_weights:
        model = Model(model.config, build(model.config))
        name += ", random weights"
    with tempfile.TemporaryDirectory() as folder:
        features = FrozenFeatures.of_model(model, Path(folder))
        for task in TASKS:
            compare(features, options.data, task, name)


if __name__ == "__main__":
    main()
