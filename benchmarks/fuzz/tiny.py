"""Tiny sounds and runs that fuzzers damage; a run is as ``melpatch pretrain`` and ``finetune`` leave it."""

import contextlib
import io
from pathlib import Path

import numpy as np
import soundfile
import torch

RATE = 8000
_FLAGS = (
    "--size nano --encoder.embed-dim 24 --encoder.depth 2 --encoder.num-heads 3 --front-end.sample-rate 8000 "
    "--front-end.n-mels 32 --seconds 0.4 --steps 2 --batch-size 2 --workers 0 --evaluations 1 --log-every 1 "
    "--save-every 1 --precision 32-true"
)
TRAIN = _FLAGS.split()
"""Flags of a run that takes a fraction of a second."""


def sounds(folder: Path, count: int = 4) -> Path:
    """Write noises of half a second in two classes, and return their folder."""
    for number in range(count):
        wave = 0.1 * np.random.default_rng(number).normal(size=RATE // 2)
        path = folder / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, RATE)
    return folder


def melpatch(*words: object) -> None:
    """Run a command quietly; it must succeed."""
    from melpatch.cli import main

    torch.set_num_threads(1)
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(printed):
        code = main([str(word) for word in words])
    if code:
        raise RuntimeError(f"{words}: {printed.getvalue()}")


def pretrained(folder: Path, recipe: str, data: Path) -> Path:
    """Pretrain a tiny encoder, and return the run."""
    melpatch("pretrain", recipe, "--data", data, "--out", folder, *TRAIN)
    return folder


def classifier(folder: Path, data: Path) -> Path:
    """Train a tiny classifier, and return the run."""
    melpatch("finetune", "--init", "scratch", "--data", data, "--out", folder, *TRAIN)
    return folder
