"""Pretrain, fine-tune with few labels and compare with random weights, within minutes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table as Grid

from melpatch.counted import counted
from melpatch.data.manifest import Corpus, is_own_corpus, load_corpus, write_corpus
from melpatch.data.segments import crop
from melpatch.data.splits import hold_out
from melpatch.datasets.scenes import generate
from melpatch.errors import AudioError
from melpatch.evaluation.evaluate import evaluate
from melpatch.evaluation.floors import RANDOM_WEIGHTS, describe_highest
from melpatch.evaluation.majority import score_in_words
from melpatch.evaluation.metrics import primary_metric
from melpatch.inference.model import load
from melpatch.only_writer import only_writer
from melpatch.outputs import check_output
from melpatch.plots.confusion import MOST_CLASSES, confusion
from melpatch.plots.curve import curve
from melpatch.progress import console, notice
from melpatch.training.config import read_settings
from melpatch.workflows.finetune import finetune, finetune_defaults
from melpatch.workflows.pictures import draw_pictures, run_title
from melpatch.workflows.pretrain import pretrain, pretrain_defaults


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to show, and for how long."""

    out: Path = Path("demo")
    """Folder to write: corpus, runs and pictures. An earlier demo there is continued."""
    data: str | None = None
    """Folder of audio (one sub-folder per class, if there are classes) or CSV file; by default
    synthetic scenes are generated."""
    split_column: str = "split"
    """Column of the CSV that holds the split."""
    labels_per_class: int = 10
    """Labels per class for fine-tuning."""
    size: str = "mini"
    """Encoder: nano, mini, tiny, small, base or large."""
    pretrain_steps: int = 250
    """Optimiser steps of pretraining; 250 take about three minutes of one core."""
    finetune_steps: int = 80
    """Optimiser steps of each fine-tuning."""
    seed: int = 0
    """Seed of everything random."""


def run(config: Config) -> None:
    """Pretrain, fine-tune and evaluate; print a table of scores and draw pictures."""
    if config.data is not None:  # each corpus gets runs of its own
        config = replace(config, out=config.out / Path(config.data).resolve().stem)
    with only_writer(config.out, config.out / ".lock"):
        _show(config)


def _show(config: Config) -> None:
    corpus_file = _prepared(config)
    corpus = load_corpus([corpus_file])
    first = config.out / "pretrained"
    _pretrain(config, corpus_file, corpus, first)
    pictures = config.out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    title = run_title(first, read_settings(first))
    curve(pictures / "pretraining.png", first / "metrics.jsonl", title=title)
    _draw_clip(pictures, first, corpus)
    if len(corpus.labels) < 2:
        notice(
            f"{corpus.shown_name} has no classes, so there is nothing to fine-tune; pictures are in {pictures}"
        )
        return
    metric = primary_metric(corpus.multi_label)
    grid = Grid(
        title=f"{corpus.shown_name}: {metric} with {counted(config.labels_per_class, 'label')} per "
        "class, test split"
    )
    for column in ("", "no network", "random weights", "pretrained"):
        grid.add_column(column)
    scores, linear = _compare(config, corpus_file, corpus, first, pictures)
    for name, values in scores.items():
        grid.add_row(name, "", *values)
    for floor in linear["floors"]:
        if floor["name"] != RANDOM_WEIGHTS:
            grid.add_row(floor["name"], _shown(floor)[0])
    console().print(grid)
    sentence = describe_highest(linear)
    if sentence:
        notice(sentence)
    console().print(f"pictures: {pictures}")


def _prepared(config: Config) -> Path:
    """Return the manifest of the corpus, with a train and a test split if it has labels."""
    if config.data is None:
        return generate(
            config.out / "scenes", clips=800, seconds=2.0, seed=config.seed, unlabelled=1200
        )
    path = config.out / "corpus.csv"
    corpus = load_corpus([config.data], split_column=config.split_column)
    splits = set(corpus.splits)
    if len(corpus.labels) > 1 and "test" not in splits:
        notice(
            f"{corpus.shown_name} has no test split; a quarter of each class is held out at random"
        )
        corpus = hold_out(corpus, 0.25, config.seed)
    check_output(
        path,
        inputs=[config.data],
        is_own=lambda file: is_own_corpus(file, corpus),
        overwrite=False,
    )
    config.out.mkdir(parents=True, exist_ok=True)
    write_corpus(corpus, path)
    return path


def _pretrain(config: Config, corpus_file: Path, corpus: Corpus, out: Path) -> None:
    defaults = pretrain_defaults("masked_views", size=config.size)
    base = defaults.training
    longest = max(clip.duration for clip in corpus.clips)
    training = replace(
        base,
        data=(str(corpus_file),),
        seed=config.seed,
        loader=replace(base.loader, seconds=min(2.0, longest), workers=0),
        train=replace(base.train, steps=config.pretrain_steps, save_every=100, evaluations=5),
    )
    notice(f"pretraining on {corpus.shown_name}, labels unused")
    pretrain(replace(defaults, out=out, resume=True, training=training))


def _compare(
    config: Config, corpus_file: Path, corpus: Corpus, first: Path, pictures: Path
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Return each score at random weights and pretrained, with the same few labels.

    The record of the linear probe of the pretrained encoder follows, with its floors.
    """
    table: dict[str, list[str]] = {"fine-tuned": [], "frozen, kNN": [], "frozen, linear": []}
    for name, init in (("random", "scratch"), ("pretrained", str(first))):
        out = config.out / f"finetuned-{name}"
        _finetune(config, corpus_file, init, first, out)
        tuned = evaluate(out, corpus_file, seeds=[config.seed], floors=False)["as_trained"]
        table["fine-tuned"].append(" ".join(_shown(tuned)))
        if tuned.get("confusion_matrix") and len(corpus.labels) <= MOST_CLASSES:
            score = score_in_words(tuned["metric"], tuned["value"], tuned["metrics"])
            title = f"{name} weights, fine-tuned: {score}"
            confusion(
                pictures / f"confusion-{name}.png",
                np.array(tuned["confusion_matrix"], int),
                corpus.labels,
                title,
            )
        frozen = evaluate(
            first,
            corpus_file,
            ["knn", "linear"],
            labels_per_class=config.labels_per_class,
            seeds=[config.seed],
            random_weights=name == "random",
            floors=name == "pretrained",
        )
        table["frozen, kNN"].append(_shown(frozen["knn"])[0])
        table["frozen, linear"].append(_shown(frozen["linear"])[0])
    return table, frozen["linear"]


def _shown(record: dict[str, Any]) -> tuple[str, str]:
    """Return a score and its interval as text; both are missing if all clips are of one class.

    Where clips have one label, the balanced accuracy stands beside the accuracy.
    """
    if record["value"] is None or record["interval_95"] is None:
        return "-", ""
    text = f"{record['value']:.3f}"
    balanced = record.get("metrics", record).get("balanced_accuracy")
    if balanced is not None:
        text += f", balanced {balanced:.3f}"
    return text, "({:.3f} to {:.3f})".format(*record["interval_95"])


def _finetune(config: Config, corpus_file: Path, init: str, pretrained: Path, out: Path) -> None:
    defaults = finetune_defaults(init, encoder_from=pretrained)
    base = defaults.training
    training = replace(
        base,
        data=(str(corpus_file),),
        seed=config.seed,
        loader=replace(base.loader, seconds=load(pretrained).seconds, workers=0),
        train=replace(base.train, steps=config.finetune_steps),
    )
    notice(f"fine-tuning from {init} on {counted(config.labels_per_class, 'label')} per class")
    finetune(
        replace(
            defaults,
            out=out,
            head_start="probe",
            labels_per_class=config.labels_per_class,
            resume=True,
            training=training,
        )
    )


def _draw_clip(pictures: Path, run: Path, corpus: Corpus) -> None:
    """Draw the first test clip as the pretrained model masks and reconstructs it."""
    model = load(run)
    chosen = corpus.select(["test"]) if "test" in corpus.splits else corpus
    try:
        draw_pictures(
            pictures,
            model,
            crop(chosen.clips[0], model.config.loader.seconds, model.config.seed, 0),
        )
    except AudioError as error:
        notice(f"no picture of a clip: {error}")
