"""Score frozen encoders of several budgets beside random weights and floors, as in lab/budget-curve.md.

    python benchmarks/budget_curve.py RUN ... --data FOLDER [--random-weights] [--floors] [--bf16]

FOLDER holds the corpora of the lab (lab/README.md). Prints a line of JSON per run and corpus: accuracy
on validation clips of the linear probe and of 1, 5 and 10 clips per class, for rows+mean+std+delta, the
default until 2026-12-01, and for means of rows alone; and one line of token statistics per run. Test
clips are never read.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from melpatch.data.corpus import Corpus, label_matrix
from melpatch.data.manifest import load_corpus
from melpatch.data.splits import take_per_class
from melpatch.evaluation.features import ClipVectors
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.evaluation.linear import fit_linear
from melpatch.evaluation.spectrogram_statistics import POOLING, SpectrogramStatistics
from melpatch.inference.model import Model, load
from melpatch.inference.network import Precision
from melpatch.nn.pooling import TOKEN_POOLING
from melpatch.training.config import build
from melpatch.training.rank import effective_rank

DRAWS = 3
"""Of few clips per class, whose mean is printed."""


class Task(NamedTuple):
    """A corpus, and what trains and validates."""

    folder: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    labels_per_class: int


TASKS = (
    Task("esc50", ("2", "3", "4"), ("5",), 10),
    Task("speech_commands_9", ("train",), ("val",), 40),
    Task("fsdd", ("train",), ("val",), 40),
    Task("emodb_2s", ("2", "3", "4"), ("5",), 40),
    Task("speechocean762_40spk", ("train",), ("val",), 40),
)


def read_task(data: Path, task: Task) -> tuple[Corpus, Corpus]:
    """Return the training clips, at most this many per class, and the validation clips."""
    corpus = load_corpus([str(data / task.folder / "manifest.csv")], split_column="split_or_fold")
    train = take_per_class(corpus.select(task.train), task.labels_per_class, seed=0)
    return train, corpus.select(task.val)


def probe_scores(
    vectors: ClipVectors, train: Corpus, val: Corpus, columns: slice
) -> dict[str, float]:
    """Return the accuracy of each probe on the validation clips, by these columns of the vectors."""
    val_vectors = vectors.select(val.clips)
    truth = label_matrix(val_vectors.clips, train.labels).argmax(axis=1)

    def accuracy(part: Corpus) -> float:
        learnt = vectors.select(part.clips)
        targets = label_matrix(learnt.clips, train.labels)
        head = fit_linear(learnt.vectors[:, columns], targets, multi_label=False)
        answers = head.probabilities(val_vectors.vectors[:, columns]).argmax(axis=1)
        return float(np.mean(answers == truth))

    scores = {"linear": accuracy(train)}
    for few in (1, 5, 10):
        draws = [accuracy(take_per_class(train, few, seed)) for seed in range(DRAWS)]
        scores[f"{few} per class"] = float(np.mean(draws))
    return {name: round(score, 4) for name, score in scores.items()}


def token_statistics(tokens: Float[np.ndarray, "clip row column dim"]) -> dict[str, float]:
    """Return what the tokens of clips of one length vary with.

    ``position``: the share of their variance that the place in the grid explains, the same in all
    clips. ``time``: the share within the rows of a clip, once that is removed. ``effective_rank``:
    of the clips' mean tokens.
    """
    tokens = tokens.astype(np.float64)
    total = tokens.var(axis=(0, 1, 2)).sum()
    position = tokens.mean(axis=0)
    rest = tokens - position
    over_time = rest.var(axis=2).mean(axis=(0, 1)).sum()
    means = torch.from_numpy(tokens.mean(axis=(1, 2)))
    return {
        "position": float(position.var(axis=(0, 1)).sum() / total),
        "time": float(over_time / total),
        "effective_rank": effective_rank(means),
    }


def describe_tokens(features: FrozenFeatures, rows: int, val: Corpus) -> dict[str, float]:
    """Return the statistics of the first windows of validation clips, which are all of one length."""
    clips = features.tokens(replace(val, clips=val.clips[::4]))
    first = [clips.values[spans[0][0] : spans[0][1]] for spans in clips.spans]
    longest = max(len(tokens) for tokens in first)
    equal = np.stack([tokens for tokens in first if len(tokens) == longest])
    # Tokens are in the order of columns within a row.
    return token_statistics(equal.reshape(len(equal), rows, longest // rows, -1))


def lines_of(
    features: FrozenFeatures, pooling: str, tasks: Mapping[str, tuple[Corpus, Corpus]]
) -> Iterator[dict[str, object]]:
    """Yield the scores of each corpus by a pooling and, of the default one, by its first third."""
    for name, (train, val) in tasks.items():
        vectors = features.vectors(replace(train, clips=(*train.clips, *val.clips)), pooling)
        width = vectors.values.shape[1]
        yield {
            "corpus": name,
            "pooling": pooling,
            **probe_scores(vectors, train, val, slice(width)),
        }
        if pooling == TOKEN_POOLING:
            # Its mean comes first, then deviation and difference.
            means = probe_scores(vectors, train, val, slice(width // 3))
            yield {"corpus": name, "pooling": "rows+mean", **means}


def main(arguments: list[str] | None = None) -> None:
    """Print the scores of every run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--floors", action="store_true")
    # Half the time where a processor multiplies bf16; scores of both kinds are not to be mixed.
    parser.add_argument("--bf16", action="store_true")
    words = parser.parse_args(arguments)
    tasks = {task.folder: read_task(words.data, task) for task in TASKS}
    for run in words.runs:
        precision: Precision = "bf16-mixed" if words.bf16 else "32-true"
        model = load(run, precision=precision)
        name = str(run)
        if words.random_weights:
            model = Model(model.config, build(model.config), precision=precision)
            name += ", random weights"
        with tempfile.TemporaryDirectory() as folder:
            features = FrozenFeatures.of_model(model, Path(folder))
            pooling = TOKEN_POOLING
            if words.floors:
                statistics = SpectrogramStatistics(
                    "log-mel", model.config.front_end, torch.device("cpu")
                )
                features = FrozenFeatures(
                    statistics,
                    Path(folder),
                    fingerprint=statistics.fingerprint,
                    seconds=model.seconds,
                )
                name = "log-mel statistics"
                pooling = POOLING
            else:
                rows = model.objective.encoder.grid.rows
                tokens = describe_tokens(features, rows, tasks["esc50"][1])
                print(json.dumps({"run": name, "tokens": tokens}), flush=True)
            for line in lines_of(features, pooling, tasks):
                print(json.dumps({"run": name, **line}), flush=True)


if __name__ == "__main__":
    main()
