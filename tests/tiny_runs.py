"""A tiny corpus of noise and a tiny model of it, for tests that load and train."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from melpatch.audio.logmel import LogMel
from melpatch.data.loader import LoaderConfig
from melpatch.data.manifest import Corpus, load_corpus
from melpatch.encoders.vit import ViT
from melpatch.objectives.ssast import SSAST
from melpatch.training.config import RunConfig, TrainConfig

RATE = 8000
RAGGED = (0.4, 0.15, 0.33, 0.4, 0.22, 0.9, 0.4, 0.18, 0.29, 0.6, 0.4, 0.25)
"""Lengths in seconds of clips that are padded, cropped, or neither at segments of 0.4 s."""


def write_noise(path: Path, seconds: float, seed: int = 0) -> Path:
    """Write coloured noise, other for every seed, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(size=round(seconds * RATE))
    wave = np.convolve(noise, np.ones(1 + seed % 7) / (1 + seed % 7), mode="same")
    soundfile.write(path, 0.1 * wave, RATE, subtype="FLOAT")
    return path


def noises(
    folder: Path, seconds: tuple[float, ...] = RAGGED, labels: tuple[str, ...] = ("",)
) -> Corpus:
    """Return a corpus of one noise per length, the labels in turn as sub-folders."""
    for number, length in enumerate(seconds):
        write_noise(folder / labels[number % len(labels)] / f"{number:03}.wav", length, seed=number)
    return load_corpus([folder])


def settings(folder: Path | str = "nowhere", **train: object) -> RunConfig:
    """Return a run of SSAST on that folder: 12 steps of 4 clips of up to 0.4 s, unless told otherwise."""
    chosen = {
        "steps": 12,
        "log_every": 1,
        "save_every": 4,
        "evaluations": 3,
        "precision": "32-true",
    } | train
    return RunConfig(
        data=(str(folder),),
        front_end=LogMel.Config(sample_rate=RATE, n_mels=32, mean=-9.0, std=3.0),
        encoder=ViT.Config(embed_dim=16, depth=2, num_heads=2, patch=(8, 8)),
        objective=SSAST.Config(),
        loader=LoaderConfig(batch_size=4, seconds=0.4, workers=0),
        train=TrainConfig(**chosen),
    )


def with_loader(config: RunConfig, **changes: object) -> RunConfig:
    """Return the run with other settings of the loader."""
    return replace(config, loader=replace(config.loader, **changes))
