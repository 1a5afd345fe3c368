"""Recordings of three classes that a glance at the spectrum tells apart, corpora of them, and runs with random
weights."""

import csv
from pathlib import Path

import numpy as np
import soundfile

from melpatch.audio.logmel import LogMel
from melpatch.cli import main
from melpatch.data.loader import LoaderConfig
from melpatch.encoders.vit import ViT
from melpatch.objectives.classify import Classify
from melpatch.objectives.ssast import SSAST
from melpatch.training.config import RunConfig, build
from melpatch.training.run import Run

LABELS = ("high", "low", "noise")
FORMATS = (("wav", 16000), ("flac", 8000), ("ogg", 22050))
SPLITS = ("train", "train", "train", "val", "test", "test")
PITCHES = {"low": 220, "high": 1760}


def wave(label="low", seconds=1.0, rate=16000, seed=0) -> np.ndarray:
    """Return a tone of about 220 or 1760 Hz, or noise."""
    rng = np.random.default_rng(seed)
    background = rng.standard_normal(round(seconds * rate))
    if label == "noise":
        return 0.1 * background
    pitch = PITCHES[label] * rng.uniform(0.9, 1.1)
    return 0.3 * np.sin(2 * np.pi * pitch * np.arange(len(background)) / rate) + 0.01 * background


def write_sound(path: Path, label="low", seconds=1.0, rate=16000, seed=0) -> Path:
    """Write a recording of one class, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave(label, seconds, rate, seed), rate)
    return path


def write_folder(root: Path, per_class=6) -> Path:
    """Write a sub-folder of recordings per class, in three formats and rates, 0.6 to 1.4 s long; return the folder."""
    rng = np.random.default_rng(0)
    for label in LABELS:
        for number in range(per_class):
            ending, rate = FORMATS[number % len(FORMATS)]
            write_sound(
                root / label / f"{number}.{ending}", label, rng.uniform(0.6, 1.4), rate, number
            )
    return root


def write_corpus(root: Path, per_class=6) -> Path:
    """Write such a folder with a CSV that gives each recording a label, a split and one of three folds; return the
    CSV."""
    rows = [
        (
            path.relative_to(root).as_posix(),
            path.parent.name,
            SPLITS[number % len(SPLITS)],
            number % 3,
        )
        for label in LABELS
        for number, path in enumerate(sorted((write_folder(root, per_class) / label).iterdir()))
    ]
    return write_table(root / "corpus.csv", ("path", "label", "split", "fold"), rows)


def write_table(path: Path, header, rows) -> Path:
    """Write a CSV file, and return its path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def settings(
    labels=(), *, seconds=1.0, multi_label=False, pooling="frequency", **encoder
) -> RunConfig:
    """Return the settings of a classifier, or without labels of an SSAST run: 32 mels, two small blocks."""
    return RunConfig(
        labels=tuple(labels),
        front_end=LogMel.Config(n_mels=32, scale=1.0),
        encoder=ViT.Config(**{"embed_dim": 16, "depth": 2, "num_heads": 2} | encoder),
        objective=Classify.Config(pooling=pooling, multi_label=multi_label)
        if labels
        else SSAST.Config(),
        loader=LoaderConfig(seconds=seconds, workers=0),
    )


def write_run(path: Path, config: RunConfig) -> Path:
    """Write a run folder with random weights, as if it had been trained for a step; return it."""
    run = Run.create(path, config)
    with run.checkpoints:
        run.publish(build(config).state_dict())
    run.log({"step": 1, "loss": 1.0})
    return path


SHORT = ("--seconds", "1", "--batch-size", "6", "--workers", "0", "--precision", "32-true")
"""Flags of a training that is over soon."""
SMALL = (
    "--front-end.n-mels",
    "32",
    "--encoder.embed-dim",
    "16",
    "--encoder.depth",
    "1",
    "--encoder.num-heads",
    "2",
)
"""Flags of ears and an encoder that are small."""


def melpatch(*words) -> None:
    """Run a command in this process, errors with their traceback."""
    assert main([str(word) for word in words] + ["--debug"]) == 0
