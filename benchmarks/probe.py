"""Frozen quality of runs: linear probe and kNN, beside the same network at random weights.

    python benchmarks/probe.py RUN... --data labels.csv [--split-column split] [--split test] [--few 10]

Prints one JSON line per run, pooling and probe. Probes see frozen embeddings; nothing is tuned on the scored split.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from melpatch.data.clip import Clip
from melpatch.data.manifest import Corpus, label_matrix, load_corpus
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
    corpus = load_corpus(config.data, split_column=config.split_column)
    split = divide(corpus, config.split)
    if split.test is None:
        raise SystemExit(f"no labelled clip is in split {config.split}")
    for run in config.runs:
        model = load(run)
        weights = {"random": Model(model.config, build(model.config))} if config.random else {}
        for name, one in (weights | {"trained": model}).items():
            train, test = (embedded(one, part.clips) for part in (split.train, split.test))
            rows = one.objective.encoder.grid.rows
            for pooling in ("mean", "frequency"):
                record = {"run": str(run), "seed": one.config.seed, "weights": name, "pooling": pooling}
                features = (pooled(table.rows, rows, pooling) for table in (train, test))
                print(json.dumps(record | probes(*features, train, test, corpus, split, config)), flush=True)


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
    known: np.ndarray, asked: np.ndarray, train: Table, test: Table, corpus: Corpus, split: Split, config: Config
) -> dict[str, float]:
    labels, wanted = (label_matrix(table.clips, corpus.labels) for table in (train, test))
    found = {
        "knn": accuracy(knn.predict(known, labels, asked), wanted),
        "linear": accuracy(linear.predict(known, labels, asked, multi_label=False), wanted),
    }
    place = {clip.key: number for number, clip in enumerate(train.clips)}
    for few in config.few:
        scores = []
        for seed in range(config.draws):
            chosen = [place[clip.key] for clip in few_labels(split.train, few, seed).clips]
            rows = linear.predict(known[chosen], labels[chosen], asked, multi_label=False)
            scores.append(accuracy(rows, wanted))
        found[f"linear_{few}_per_class"] = float(np.mean(scores))
    return {name: round(value, 4) for name, value in found.items()}


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
