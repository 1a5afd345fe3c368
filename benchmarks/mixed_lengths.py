"""Rate of training on clips of unequal length, beside equal lengths and beside padded batches.

    python benchmarks/mixed_lengths.py [--tasks ssast maskspec ...] [--sizes nano tiny]

Clips of 0.5 to 10 s, drawn evenly and batched as the loader batches them (four steps sorted by length
together); clips that all have their mean length; and the mixed clips once more with padding computed.
All three hold the same seconds of made-up sound and take their steps in turns. Prints a line of JSON per
task and size: seconds of sound trained on per CPU second, and the ratios. On a processor only.
"""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any
from unittest import mock

import torch
import tyro
from speed import Setting, Training

from melpatch.data.clip import Batch
from melpatch.data.loader import LoaderConfig
from melpatch.nn import transformer

SHORTEST = 0.5
LONGEST = 10.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to time: every combination."""

    tasks: tuple[str, ...] = ("ssast", "asit_short", "mae_ast", "eat_short")
    """Recipes, of which those that repeat short clips have no padding to leave out."""
    sizes: tuple[str, ...] = ("nano", "tiny")
    """Encoders."""
    batch_size: int = 8
    """Clips per step."""
    rounds: int = 3
    """Timed rounds, whose median counts, after one to warm up."""


def main(config: Config) -> None:
    """Print the rates of each task and size."""
    steps = LoaderConfig().bucket_steps
    drawn = random.Random(0)
    lengths = sorted(drawn.uniform(SHORTEST, LONGEST) for _ in range(steps * config.batch_size))
    mixed = [
        lengths[first : first + config.batch_size]
        for first in range(0, len(lengths), config.batch_size)
    ]
    total = sum(lengths)
    equal = [[total / len(lengths)] * config.batch_size] * steps
    padded = sum(len(batch) * max(batch) for batch in mixed)
    for size in config.sizes:
        for task in config.tasks:
            rates = measure(task, size, mixed, equal, config)
            record = {"task": task, "size": size, "padding": round(1 - total / padded, 3)}
            record |= {name: round(total / seconds, 2) for name, seconds in rates.items()}
            record["of equal"] = round(rates["equal"] / rates["mixed"], 3)
            record["padded of equal"] = round(rates["equal"] / rates["padded"], 3)
            print(json.dumps(record), flush=True)


def measure(
    task: str,
    size: str,
    mixed: Sequence[Sequence[float]],
    equal: Sequence[Sequence[float]],
    config: Config,
) -> dict[str, float]:
    """Return the CPU seconds of the steps of each kind, medians over rounds."""
    training = Training(Setting(size, "32-true", 1, LONGEST, config.batch_size, task, "eager"))
    spent: dict[str, list[float]] = {"mixed": [], "equal": [], "padded": []}
    for round_number in range(config.rounds + 1):
        for kind, times in spent.items():
            batches = [
                made_up(training, lengths) for lengths in (equal if kind == "equal" else mixed)
            ]
            began = time.process_time()
            for batch in batches:
                if kind == "padded":
                    with mock.patch.object(transformer, "unpadding_of", keep_padding):
                        training.step(batch)
                else:
                    training.step(batch)
            if round_number:
                times.append(time.process_time() - began)
    return {kind: median(times) for kind, times in spent.items()}


def made_up(training: Training, lengths: Sequence[float]) -> Batch:
    """Return a batch of noise, padded to its longest clip."""
    rate = training.config.front_end.sample_rate
    samples = torch.tensor([round(length * rate) for length in lengths])
    waves = torch.randn(len(samples), int(samples.max())) * 0.1
    waves[torch.arange(waves.shape[1]) >= samples[:, None]] = 0.0
    return Batch(waves, samples, torch.arange(len(samples)), None).to(training.device)


def keep_padding(*_: Any) -> None:
    """Stand in for :func:`melpatch.nn.unpadding.unpadding_of` and never leave padding out."""


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
