"""Pretrain, fine-tune with few labels and compare with random weights, within minutes."""

from collections.abc import Sequence
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
    metric = "mAP" if corpus.multi_label else "accuracy / balanced accuracy"
    grid = Grid(
        title=f"{corpus.shown_name}: {metric} with {counted(config.labels_per_class, 'label')} per "
        "class, test split",
        caption="gain: on the same clips, with its 95 % interval; beside the rows without a "
        "network that of the pretrained linear probe",
    )
    for column in ("", "no network", "random weights", "pretrained", "gain"):
        grid.add_column(column, no_wrap=column == "gain")
    grid.add_row("fine-tuned", "", *_fine_tuned(config, corpus_file, corpus, first, pictures))
    frozen = evaluate(
        first,
        corpus_file,
        ["knn", "linear"],
        labels_per_class=config.labels_per_class,
        seeds=[config.seed],
    )
    grid.add_row("frozen, kNN", "", *_beside_random(frozen["knn"]))
    grid.add_row("frozen, linear", "", *_beside_random(frozen["linear"]))
    linear = frozen["linear"]
    for floor in linear["floors"]:
        if floor["name"] != RANDOM_WEIGHTS:
            gain = _signed(floor["gain"], floor["gain_95"])
            grid.add_row(floor["name"], _shown(floor), "", "", gain)
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


def _fine_tuned(
    config: Config, corpus_file: Path, corpus: Corpus, first: Path, pictures: Path
) -> list[str]:
    """Return the scores of fine-tuning from random and from pretrained weights, and the gain."""
    tuned: dict[str, dict[str, Any]] = {}
    for name, init in (("random", "scratch"), ("pretrained", str(first))):
        out = config.out / f"finetuned-{name}"
        _finetune(config, corpus_file, init, first, out)
        against = None
        # Where all clips are of one class there is nothing to compare.
        if tuned and tuned["random"]["interval_95"] is not None:
            against = config.out / "finetuned-random"
        records = evaluate(out, corpus_file, seeds=[config.seed], floors=False, against=against)
        tuned[name] = record = records["as_trained"]
        if record.get("confusion_matrix") and len(corpus.labels) <= MOST_CLASSES:
            score = score_in_words(record["metric"], record["value"], record["metrics"])
            title = f"{name} weights, fine-tuned: {score}"
            counts = np.array(record["confusion_matrix"], int)
            confusion(pictures / f"confusion-{name}.png", counts, corpus.labels, title)
    pair = tuned["pretrained"]["against"] or {"difference": None, "difference_95": None}
    gain = _signed(pair["difference"], pair["difference_95"])
    return [*map(_shown, tuned.values()), gain]


def _beside_random(record: dict[str, Any]) -> list[str]:
    """Return the score of a probe at random weights and at pretrained ones, and the gain."""
    random = [floor for floor in record["floors"] if floor["name"] == RANDOM_WEIGHTS]
    if not random:
        return ["-", _shown(record), "-"]
    (floor,) = random
    return [_shown(floor), _shown(record), _signed(floor["gain"], floor["gain_95"])]


def _signed(gain: float | None, interval: Sequence[float] | None) -> str:
    """Return a paired difference on the same clips and its interval as text."""
    if gain is None or interval is None:
        return "-"
    return f"{gain:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}]"


def _shown(record: dict[str, Any]) -> str:
    """Return a score as text; it is missing if all clips are of one class.

    Where clips have one label, the balanced accuracy stands beside the accuracy.
    """
    if record["value"] is None or record["interval_95"] is None:
        return "-"
    balanced = record.get("metrics", record).get("balanced_accuracy")
    if balanced is None:
        return f"{record['value']:.3f}"
    return f"{record['value']:.3f} / {balanced:.3f}"


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
