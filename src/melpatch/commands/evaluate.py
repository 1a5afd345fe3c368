"""Score a run on labelled sound: a classifier by its predictions, an encoder by kNN and a linear probe."""

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jaxtyping import Float
from rich.table import Table as Grid
from torch import Tensor

from melpatch.checkpoint import written_aside
from melpatch.commands.base import few_clips
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.data.manifest import Corpus, label_matrix, load_corpus
from melpatch.data.splits import divide
from melpatch.errors import ConfigError, DataError, MelpatchError
from melpatch.evaluation import knn, linear
from melpatch.evaluation.inference import Table, over_clips
from melpatch.evaluation.metrics import primary_metric, scores
from melpatch.model import Model, load
from melpatch.nn.pooling import Pooling
from melpatch.objectives.classify import Classify
from melpatch.plots.confusion import confusion
from melpatch.progress import console, notice
from melpatch.training.run import environment


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to score, and on what."""

    run: tyro.conf.Positional[Path]
    """Run folder of a classifier or of a pretrained encoder."""
    data: tuple[str, ...]
    """Labelled folders or CSV files."""
    split: str = "test"
    """Split or fold to score; all but val and test (or the split train) are what a probe learns from."""
    split_column: str = "split"
    """Column of the CSV that holds the split or fold."""
    label_column: str = "label"
    """Column of the CSV that holds the labels."""
    few: int | None = None
    """Probes learn from so many clips per class only, chosen by the seed."""
    pooling: Pooling | None = None
    """Tokens to vector for the probes; by default with the frequency rows kept."""
    k: int = 10
    """Neighbours of the kNN probe."""
    C: float = 0.1
    """Inverse penalty of the linear probe."""
    seed: int = 0
    """Chooses the few labels, and the resamples of the confidence interval."""
    batch_size: int = 32
    """Windows at a time."""
    workers: int = 0
    """Decoding processes."""
    out: Path | None = None
    """Folder for scores.json, predictions.csv and confusion.png; by default RUN/evaluation-SPLIT."""
    json: bool = False
    """Print JSON for scripts instead of a table."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.few is None or self.few >= 1, "few", self.few, "1 or more")
        check(self.k >= 1, "k", self.k, "1 or more")
        check(self.C > 0, "C", self.C, "above 0")
        check(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        check(self.workers >= 0, "workers", self.workers, "0 or more")


def run(config: Config) -> None:
    """Score, write scores.json, predictions.csv and confusion.png, and print the scores."""
    model = load(config.run)
    corpus = load_corpus(config.data, split_column=config.split_column, label_column=config.label_column)
    if corpus.rejected:
        notice(f"{len(corpus.rejected)} files of {corpus.name} cannot be read and are not scored; see scores.json")
    if isinstance(model.objective, Classify):
        results = {"classifier": classified(model, corpus, config)}
    else:
        results = probes(model, corpus, config)
    out = config.out or config.run / f"evaluation-{config.split}"
    out.mkdir(parents=True, exist_ok=True)
    record = _record(model, corpus, config, results)
    with written_aside(out / "scores.json") as aside:
        aside.write_text(json.dumps(record, indent=1), encoding="utf-8")
    for name, result in results.items():
        _write_predictions(out / ("predictions.csv" if len(results) == 1 else f"predictions-{name}.csv"), result)
        _draw(out, name if len(results) > 1 else "", result)
    if config.json:
        console().print_json(json.dumps(record))
    else:
        console().print(_grid(config, results))
        notice(f"written to {out}")


@dataclass(frozen=True)
class Result:
    """Scores of one way to predict, and the predictions behind them."""

    scores: dict[str, Any]
    table: Table
    labels: tuple[str, ...]


def classified(model: Model, corpus: Corpus, config: Config) -> Result:
    """Return the scores of a classifier on the split."""
    unknown = sorted(set(corpus.labels) - set(model.labels))
    if unknown:
        raise ConfigError(
            f"{corpus.name}: label {unknown[0]!r} is not one of {config.run}'s: {', '.join(model.labels)}"
        )
    chosen = _labelled(corpus.select([config.split]))
    table = _over(model, chosen, config, model.predict_batch)
    targets = label_matrix(table.clips, model.labels)
    multi = model.objective.config.multi_label
    return Result(scores(table.rows, targets, model.labels, multi, seed=config.seed), table, model.labels)


def probes(model: Model, corpus: Corpus, config: Config) -> dict[str, Result]:
    """Return the scores of kNN and of a linear probe on frozen embeddings, which learn from the training clips."""
    split = divide(_labelled(corpus), config.split)
    if split.test is None:
        raise DataError(f"{corpus.name}: no labelled clip is in split {config.split!r}")
    train = few_clips(split.train, config.few, config.seed)
    pooling = config.pooling or model.default_pooling
    embedded = [
        _over(model, part, config, lambda batch: model.embed_batch(batch, pooling)) for part in (train, split.test)
    ]
    learn, test = embedded
    known, wanted = (label_matrix(table.clips, corpus.labels) for table in embedded)
    found = {
        "knn": knn.predict(learn.rows, known, test.rows, k=config.k),
        "linear": linear.predict(learn.rows, known, test.rows, multi_label=corpus.multi_label, C=config.C),
    }
    return {
        name: Result(
            scores(rows, wanted, corpus.labels, corpus.multi_label, seed=config.seed),
            Table(test.clips, rows, test.rejected),
            corpus.labels,
        )
        for name, rows in found.items()
    }


def _labelled(corpus: Corpus) -> Corpus:
    clips = tuple(clip for clip in corpus.clips if clip.labels)
    if not clips:
        raise DataError(f"{corpus.name}: none of the {len(corpus.clips)} clips to score has a label")
    return Corpus(corpus.name, clips, corpus.labels, corpus.multi_label, corpus.rejected)


def _over(
    model: Model, corpus: Corpus, config: Config, function: Callable[[Batch], Float[Tensor, "clip column"]]
) -> Table:
    return over_clips(
        function,
        corpus.clips,
        sample_rate=model.sample_rate,
        seconds=model.seconds,
        batch_size=config.batch_size,
        workers=config.workers,
        description="evaluating",
    )


def _record(model: Model, corpus: Corpus, config: Config, results: dict[str, Result]) -> dict[str, Any]:
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(config).items()}
    return {
        "method": type(model.objective).__name__,
        "corpus": corpus.name,
        "asked": asked,
        "scores": {name: result.scores for name, result in results.items()},
        "rejected": sorted(
            {one.path for one in corpus.rejected}
            | {one.path for result in results.values() for one in result.table.rejected}
        ),
        "environment": environment(),
    }


def _write_predictions(path: Path, result: Result) -> None:
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "start", "label", "predicted", *result.labels])
        for clip, row in zip(result.table.clips, result.table.rows, strict=True):
            best = result.labels[int(np.argmax(row))]
            numbers = [f"{value:.6g}" for value in row]
            writer.writerow([clip.path, f"{clip.start:g}", ";".join(clip.labels), best, *numbers])


def _draw(out: Path, name: str, result: Result) -> None:
    if "confusion" in result.scores:
        path = out / (f"confusion-{name}.png" if name else "confusion.png")
        title = f"accuracy {result.scores['accuracy']:.3f}"
        try:
            confusion(path, np.array(result.scores["confusion"]), result.labels, title)
        except MelpatchError as error:  # matplotlib is an extra; scores must not be lost for want of it
            notice(str(error))


def _grid(config: Config, results: dict[str, Result]) -> Grid:
    first = next(iter(results.values())).scores
    primary = primary_metric("accuracy" not in first)
    grid = Grid(title=f"{config.run} on split {config.split} ({first['clips']} clips)")
    for column in ("", primary, "95 %", "balanced accuracy", "macro F1", "mAP", "mAUC"):
        grid.add_column(column)
    for name, result in results.items():
        found = result.scores
        bounds = found.get(f"{primary}_95")
        interval = f"{bounds[0]:.3f} to {bounds[1]:.3f}" if bounds else "-"
        numbers = (found.get(key) for key in ("balanced_accuracy", "macro_f1", "mAP", "mAUC"))
        cells = ["-" if value is None else f"{value:.3f}" for value in (found.get(primary), *numbers)]
        grid.add_row(name, cells[0], interval, *cells[1:])
    for kind in ("classes_without_positives", "classes_without_negatives"):
        if first.get(kind):
            notice(f"{kind.replace('_', ' ')}: {', '.join(first[kind])}; they are left out of mAP and mAUC")
    return grid
