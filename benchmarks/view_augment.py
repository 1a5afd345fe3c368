"""Cost of each augmentation of a view, beside the front end.

    OMP_NUM_THREADS=1 python benchmarks/view_augment.py [--clips 8 --seconds 10]

Prints one JSON line per augmentation: the least CPU milliseconds per clip of some rounds, in which all take turns.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro

from melpatch.audio.logmel import LogMel
from melpatch.audio.view_augment import ViewAugment

ON_WAVES = {
    "roll": {"roll": 0.5},
    "gain_beta": {"gain_beta": 10},
    "polarity": {"polarity": 1.0},
    "stretch": {"stretch": 1.0},
    "pitch": {"pitch": 1.0},
    "stretch and pitch": {"stretch": 1.0, "pitch": 1.0},
    "noise": {"noise": 1.0},
    "gain": {"gain": 1.0},
    "high_pass": {"high_pass": 1.0},
    "band_stop": {"band_stop": 1.0},
    "fade": {"fade": 1.0},
    "burst": {"burst": 1.0},
}
ON_SPECTROGRAMS = {
    "mix": {"mix": 0.4},
    "crop": {"crop_mels": (0.6, 1.5), "crop_frames": (0.6, 1.5)},
    "crop, mels only": {"crop_mels": (0.6, 1.5)},
    "fader": {"fader": 1.0},
    "pixel_noise": {"pixel_noise": 0.1},
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to time."""

    clips: int = 8
    """Clips in a batch."""
    seconds: float = 10.0
    """Length of a clip."""
    rounds: int = 5
    """Of which the fastest counts, after one that is not timed."""


def tasks(config: Config) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    front_end = LogMel()
    samples = round(config.seconds * front_end.sample_rate)
    wave = 0.1 * torch.randn(config.clips, samples, generator=torch.Generator().manual_seed(0))
    lengths = torch.full((config.clips,), samples)
    keys = torch.arange(config.clips)
    partners = keys.roll(1)
    draw = {"seed": 0, "step": 0, "view": 0}
    spectrogram, frames = front_end(wave, lengths)
    timed: dict[str, Callable[[], object]] = {"front end": lambda: front_end(wave, lengths)}
    for name, settings in ON_WAVES.items():
        augment = ViewAugment(ViewAugment.Config(**settings), front_end)
        timed[name] = lambda augment=augment: augment.wave(wave, lengths, keys, **draw)
    for name, settings in ON_SPECTROGRAMS.items():
        augment = ViewAugment(ViewAugment.Config(**settings), front_end)
        timed[name] = lambda augment=augment: augment.spectrogram(
            spectrogram, frames, partners, keys, **draw
        )
    return timed


def main(config: Config) -> None:
    timed = tasks(config)
    best = dict.fromkeys(timed, float("inf"))
    for number in range(config.rounds + 1):
        for name, work in timed.items():
            start = time.process_time()
            work()
            if number:
                best[name] = min(best[name], time.process_time() - start)
    for name, seconds in best.items():
        record = {
            "augmentation": name,
            "ms_per_clip": round(1000 * seconds / config.clips, 3),
            "of_front_end": round(seconds / best["front end"], 2),
        }
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
