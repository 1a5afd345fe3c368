"""Frozen quality of runs: linear probe and kNN, beside the same network at random weights.

    python benchmarks/probe.py RUN... --data labels.csv [--split-column split] [--split test] [--few 10]

Prints one JSON line per run, pooling and probe. Probes see frozen embeddings; nothing is tuned on the scored split.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from melpatch.data.clip import Clip
from melpatch.data.manifest import label_matrix, load_corpus
from melpatch.data.splits import Split, divide, few_labels
from melpatch.evaluation import knn, linear
from melpatch.evaluation.inference import Table, over_clips
from melpatch.evaluation.metrics import accuracy
from melpatch.model import Model, load
from melpatch.training.config import build


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to probe."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    data: tuple[str, ...]
    """Labelled corpus."""
    split: str = "test"
    """Split or fold to score."""
    split_column: str = "split"
    """Column of the split."""
    few: tuple[int, ...] = (10,)
    """Labels per class, besides all."""
    draws: int = 3
    """Draws of the few labels."""
    random: bool = True
    """Score the same network at random weights too."""


def main(config: Config) -> None:
    split = parted(config.data, config.split_column, config.split)
    for run in config.runs:
        model = load(run)
        weights = {"random": untrained(model)} if config.random else {}
        for name, one in (weights | {"trained": model}).items():
            for pooling, found in scores(one, split, config.few, config.draws):
                record = {"run": str(run), "seed": one.config.seed, "weights": name, "pooling": pooling}
                print(json.dumps(record | found), flush=True)


def parted(data: Sequence[str], split_column: str, scored: str) -> Split:
    """Return a labelled corpus in parts, of which the split or fold that is to be scored is the test."""
    split = divide(load_corpus(data, split_column=split_column), scored)
    if split.test is None:
        raise SystemExit(f"no labelled clip is in split {scored}")
    return split


def untrained(model: Model) -> Model:
    """Return the same network at random weights."""
    return Model(model.config, build(model.config))


def scores(
    model: Model, split: Split, few: Sequence[int] = (), draws: int = 1
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the scores of each pooling; every clip is embedded once for all."""
    train, test = (embedded(model, part.clips) for part in (split.train, split.test))
    for pooling in ("mean", "frequency"):
        known, asked = (pooled(table.rows, model.objective.encoder.grid.rows, pooling) for table in (train, test))
        yield pooling, probes(known, asked, train, test, split, few, draws)


def embedded(model: Model, clips: Sequence[Clip]) -> Table:
    return over_clips(
        lambda batch: model.embed_batch(batch, "frequency"),
        clips,
        sample_rate=model.sample_rate,
        seconds=model.seconds,
    )


def pooled(features: np.ndarray, rows: int, pooling: str) -> np.ndarray:
    """The mean over all tokens is the mean over rows of what is kept per row."""
    return features if pooling == "frequency" else features.reshape(len(features), rows, -1).mean(axis=1)


def probes(
    known: np.ndarray, asked: np.ndarray, train: Table, test: Table, split: Split, few: Sequence[int], draws: int
) -> dict[str, float]:
    labels, wanted = (label_matrix(table.clips, split.train.labels) for table in (train, test))
    found = {
        "knn": accuracy(knn.predict(known, labels, asked), wanted),
        "linear": accuracy(linear.predict(known, labels, asked, multi_label=False), wanted),
    }
    place = {clip.key: number for number, clip in enumerate(train.clips)}
    for count in few:
        drawn = []
        for seed in range(draws):
            chosen = [place[clip.key] for clip in few_labels(split.train, count, seed).clips]
            rows = linear.predict(known[chosen], labels[chosen], asked, multi_label=False)
            drawn.append(accuracy(rows, wanted))
        found[f"linear_{count}_per_class"] = float(np.mean(drawn))
    return {name: round(value, 4) for name, value in found.items()}


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
