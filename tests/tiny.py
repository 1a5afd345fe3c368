"""Sound, corpora and runs small enough for a test: three classes that a glance at the spectrum tells apart."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.objectives.classify import Classify
from melpatch.objectives.ssast import SSAST
from melpatch.training.config import RunConfig, build
from melpatch.training.run import Run

LABELS = ("high", "low", "noise")
FORMATS = (("wav", 16000), ("flac", 8000), ("ogg", 22050))
SPLITS = ("train", "train", "train", "train", "train", "val", "test", "test")


def wave(label="low", seconds=1.0, rate=16000, seed=0):
    """Return a tone of about 220 or 1760 Hz, or noise."""
    rng = np.random.default_rng(seed)
    count = round(seconds * rate)
    background = rng.standard_normal(count)
    if label == "noise":
        return 0.1 * background
    pitch = {"low": 220, "high": 1760}[label] * rng.uniform(0.9, 1.1)
    return 0.3 * np.sin(2 * np.pi * pitch * np.arange(count) / rate) + 0.01 * background


def sound(path: Path, label="low", seconds=1.0, rate=16000, seed=0) -> Path:
    """Write a recording of one class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave(label, seconds, rate, seed), rate)
    return path


def folder(root: Path, per_class=8) -> Path:
    """Write a folder of sound with one sub-folder per class: three formats and rates, 0.6 to 1.4 s long."""
    rng = np.random.default_rng(0)
    for label in LABELS:
        for number in range(per_class):
            ending, rate = FORMATS[number % len(FORMATS)]
            sound(root / label / f"{number}.{ending}", label, rng.uniform(0.6, 1.4), rate, number)
    return root


def corpus(root: Path, per_class=8) -> Path:
    """Write such a folder, and a CSV with a path, a label, a split and a fold for each file; return the CSV."""
    folder(root, per_class)
    rows = [
        (file.relative_to(root).as_posix(), label, SPLITS[number % len(SPLITS)], number % 4)
        for label in LABELS
        for number, file in enumerate(sorted((root / label).iterdir()))
    ]
    return table(root / "corpus.csv", ("path", "label", "split", "fold"), rows)


def table(path: Path, header, rows) -> Path:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def settings(labels=(), *, seconds=1.0, multi_label=False, pooling="frequency", **encoder) -> RunConfig:
    """Return the settings of a classifier, or without labels of an SSAST run, with two small blocks."""
    objective = Classify.Config(pooling=pooling, multi_label=multi_label) if labels else SSAST.Config()
    return RunConfig(
        labels=tuple(labels),
        front_end=LogMel.Config(n_mels=32, scale=1.0),
        encoder=replace(ViT.Config(embed_dim=16, depth=2, num_heads=2), **encoder),
        objective=objective,
        loader=LoaderConfig(seconds=seconds, workers=0),
    )


def run(path: Path, config: RunConfig) -> Path:
    """Write a run folder with random weights, as if it had been trained."""
    made = Run.create(path, config)
    made.publish(build(config).state_dict())
    made.log({"step": 1, "loss": 1.0})
    return path
