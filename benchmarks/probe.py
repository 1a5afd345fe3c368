"""Frozen quality of runs: linear probe and kNN, beside the same network at random weights.

    python benchmarks/probe.py RUN... --data labels.csv [--split-column split] [--split test] [--few 10]

Prints one JSON line per run, pooling and probe. Probes see frozen embeddings; nothing is tuned on the scored split.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from melpatch.data.manifest import label_matrix, load_corpus
from melpatch.data.splits import divide, few_labels
from melpatch.evaluation import knn, linear
from melpatch.evaluation.inference import Table, over_clips
from melpatch.evaluation.metrics import accuracy
from melpatch.model import Model, load
from melpatch.nn.pooling import Pooling
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


def main(config: Config) -> None:
    corpus = load_corpus(config.data, split_column=config.split_column)
    split = divide(corpus, config.split)
    assert split.test is not None, config.split
    for run in config.runs:
        model = load(run)
        for name, one in (("random", Model(model.config, build(model.config))), ("trained", model)):
            for pooling in ("mean", "frequency"):
                train, test = (table(one, part.clips, pooling) for part in (split.train, split.test))
                wanted = label_matrix(test.clips, corpus.labels)
                known = label_matrix(train.clips, corpus.labels)
                record = {"run": str(run), "seed": one.config.seed, "weights": name, "pooling": pooling}
                record["knn"] = accuracy(knn.predict(train.rows, known, test.rows), wanted)
                record["linear"] = accuracy(linear.predict(train.rows, known, test.rows, multi_label=False), wanted)
                place = {clip.key: number for number, clip in enumerate(train.clips)}
                for few in config.few:
                    found = []
                    for seed in range(config.draws):
                        chosen = [place[clip.key] for clip in few_labels(split.train, few, seed).clips]
                        rows = linear.predict(train.rows[chosen], known[chosen], test.rows, multi_label=False)
                        found.append(accuracy(rows, wanted))
                    record[f"linear_{few}_per_class"] = round(float(np.mean(found)), 4)
                print(json.dumps(record), flush=True)


def table(model: Model, clips: tuple, pooling: Pooling) -> Table:
    return over_clips(
        lambda batch: model.embed_batch(batch, pooling), clips, sample_rate=model.sample_rate, seconds=model.seconds
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
