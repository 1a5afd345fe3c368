"""Write ten-second noises as FLAC, of which gpu.sh feeds a training: python benchmarks/gpu_noise.py FOLDER."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import tyro


@dataclass(frozen=True)
class Config:
    """What to write."""

    folder: tyro.conf.Positional[Path]
    """Where."""
    clips: int = 512
    """Recordings."""
    seconds: float = 10.0
    """Length of each."""


def main(config: Config) -> None:
    config.folder.mkdir(parents=True, exist_ok=True)
    for number in range(config.clips):
        path = config.folder / f"{number:04d}.flac"
        if path.exists():
            continue
        noise = np.random.default_rng(number).normal(0, 0.1, round(16_000 * config.seconds))
        aside = path.with_name(f".{path.name}")
        soundfile.write(aside, noise.clip(-1, 1), 16_000, format="FLAC")
        aside.replace(path)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
