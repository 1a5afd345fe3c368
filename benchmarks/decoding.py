"""Decoding of sound files beside libsndfile by itself, which is the limit: whole clips, and a second out of each.

    OMP_NUM_THREADS=1 python benchmarks/decoding.py [--clips 40 --seconds 5] [--data recordings/*.ogg]

Prints one JSON line per format and length: CPU milliseconds per clip of ``soundfile.read`` and of melpatch at the rate
of the file, median of the ratios of some rounds, in which both take turns, with the least and the largest.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import tyro

from melpatch.audio.files import read

FORMATS = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "vorbis": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III"},
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to time."""

    clips: int = 40
    """Made-up clips of each format."""
    seconds: float = 5.0
    """Their length."""
    sample_rate: int = 48_000
    """Their rate, in Hz; Opus takes 8,000 to 48,000."""
    data: tuple[Path, ...] = ()
    """Sound files to take instead, grouped by their extension."""
    rounds: int = 7
    """After one that is not timed."""


def main(config: Config) -> None:
    with TemporaryDirectory() as folder:
        for name, files in groups(config, Path(folder)).items():
            for part, ours, limit in (
                ("whole", read, whole_by_soundfile),
                ("1 s", second, second_by_soundfile),
            ):
                figures = compare(files, ours, limit, config.rounds)
                about = {"format": name, "part": part, "clips": len(files)}
                print(json.dumps(about | figures), flush=True)


def groups(config: Config, folder: Path) -> dict[str, list[Path]]:
    """Return the files to decode, by their format."""
    files: dict[str, list[Path]] = {}
    for path in config.data:
        files.setdefault(path.suffix.lower().lstrip("."), []).append(path)
    if files:
        return files
    generator = np.random.default_rng(0)
    for number in range(config.clips):
        wave = made_up(generator, round(config.seconds * config.sample_rate))
        for name, kind in FORMATS.items():
            path = folder / f"{number}.{name}"
            soundfile.write(path, wave, config.sample_rate, **kind)
            files.setdefault(name, []).append(path)
    return files


def made_up(generator: np.random.Generator, samples: int) -> np.ndarray:
    """Return noise that is louder at low frequencies, as most sound is."""
    steps = generator.standard_normal(samples).cumsum()
    wave = steps - np.convolve(steps, np.full(64, 1 / 64), "same")
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def second(path: Path) -> object:
    """Decode a second from the middle by melpatch."""
    return read(path, start=1.0, duration=1.0)


def whole_by_soundfile(path: Path) -> object:
    return soundfile.read(path, dtype="float32")


def second_by_soundfile(path: Path) -> object:
    with soundfile.SoundFile(path) as sound:
        sound.seek(sound.samplerate)
        return sound.read(sound.samplerate, dtype="float32")


def compare(
    files: Sequence[Path],
    ours: Callable[[Path], object],
    limit: Callable[[Path], object],
    rounds: int,
) -> dict[str, float]:
    """Return CPU milliseconds per file of both ways, and their ratio."""
    ways = {"melpatch": partial(cpu_ms, files, ours), "soundfile": partial(cpu_ms, files, limit)}
    taken = [{name: way() for name, way in ways.items()} for _ in range(rounds + 1)][1:]
    ratios = [each["melpatch"] / each["soundfile"] for each in taken]
    medians = {
        f"{name}_cpu_ms": round(statistics.median(each[name] for each in taken), 3) for name in ways
    }
    spread = statistics.median(ratios), min(ratios), max(ratios)
    named = zip(("ratio", "least", "largest"), spread, strict=True)
    return medians | {name: round(value, 3) for name, value in named}


def cpu_ms(files: Sequence[Path], way: Callable[[Path], object]) -> float:
    began = time.process_time()
    for path in files:
        way(path)
    return 1000 * (time.process_time() - began) / len(files)


if __name__ == "__main__":
    main(tyro.cli(Config))
