"""Peak memory and rate of ``melpatch embed`` against the number of files and the length of one.

    OMP_NUM_THREADS=1 python benchmarks/memory.py [--files 100 1000 10000] [--hours 0.02 1 24] [--plot memory.png]

Prints one JSON line per measurement, each of a process of its own; ``--plot`` draws them, and memory should be flat.
The files are one recording of two seconds under many names, the long one is a FLAC of faint noise, written as a stream;
the network has random weights. The peak is the resident memory of the process that computes; ``worker_mib`` is that of
the largest decoding process, most of which it shares with the other.
"""

import json
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import tyro

RATE = 16000
SHORT = 2.0  # seconds
NAMES = 10_000  # of a file; file systems allow some tens of thousands


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure."""

    files: tuple[int, ...] = (100, 1000, 10000)
    """Numbers of short files."""
    hours: tuple[float, ...] = (1 / 60, 1.0, 24.0)
    """Lengths of one long file."""
    size: str = "nano"
    """Encoder."""
    seconds: float = 10.0
    """Longest window that the network is given."""
    hop: float = 0.96
    """Seconds of a frame of the long file."""
    workers: int = 1
    """Decoding processes."""
    plot: Path | None = None
    """Picture to draw."""


def main(config: Config) -> None:
    records = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        alone(write_run, folder / "run", config.size, config.seconds)
        for count in config.files:
            source = many_files(folder / f"{count}-files", count)
            about = {"files": count, "hours": round(count * SHORT / 3600, 3)}
            records.append(about | alone(embed, folder / "run", source, config.workers, None))
            print(json.dumps(records[-1]), flush=True)
        for hours in config.hours:
            source = long_file(folder / f"{hours}-hours.flac", hours)
            about = {"files": 1, "hours": round(hours, 3)}
            records.append(about | alone(embed, folder / "run", source, config.workers, config.hop))
            print(json.dumps(records[-1]), flush=True)
            source.unlink()
    if config.plot is not None:
        draw(config.plot, records)


def alone(function: Any, *arguments: Any) -> Any:
    """Return what a function returns in a process of its own, in which alone torch is loaded."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def write_run(path: Path, size: str, seconds: float) -> None:
    from dataclasses import replace

    from melpatch.recipes.base import recipe
    from melpatch.training.config import build
    from melpatch.training.run import Run

    config = recipe("ssast")(size)
    config = replace(config, loader=replace(config.loader, seconds=seconds))
    Run.create(path, config).publish(build(config).state_dict())


def many_files(folder: Path, count: int) -> Path:
    """Write a recording, and give it many names."""
    folder.mkdir()
    for number in range(count):
        path = folder / f"{number:06}.wav"
        if number % NAMES == 0:
            first = path
            soundfile.write(
                first, 0.1 * np.random.default_rng(0).standard_normal(round(SHORT * RATE)), RATE
            )
        else:
            os.link(first, path)
    return folder


def long_file(path: Path, hours: float) -> Path:
    """Write a minute of faint noise again and again."""
    minute = 3e-5 * np.random.default_rng(0).standard_normal(60 * RATE)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(round(hours * 60)):
            file.write(minute)
    return path


def embed(run: Path, source: Path, workers: int, hop: float | None) -> dict[str, float]:
    """Embed all of a folder or one file, and return what it took."""
    from melpatch.cli import main

    words = ["embed", str(run), str(source), "--out", f"{source}.npz", "--workers", str(workers)]
    began = time.perf_counter(), cpu_seconds()
    if main([*words, "--hop", str(hop)] if hop else words):
        raise RuntimeError("melpatch embed failed")
    wall, cpu = time.perf_counter() - began[0], cpu_seconds() - began[1]
    with np.load(f"{source}.npz") as features:
        rows = len(features["path"])
    return {
        "rows": rows,
        "peak_mib": round(peak_mib(resource.RUSAGE_SELF)),
        "worker_mib": round(peak_mib(resource.RUSAGE_CHILDREN)),
        "seconds": round(wall, 6),
        "cpu_seconds": round(cpu, 6),
    }


def cpu_seconds() -> float:
    return sum(
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def peak_mib(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def draw(path: Path, records: list[dict[str, Any]]) -> None:
    """Draw the peaks over the number of files, and over the length of one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sides = (
        ("files", "files of 2 s", lambda record: record["files"] > 1),
        ("hours", "hours", lambda record: record["files"] == 1),
    )
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
    for axis, (name, label, belongs) in zip(axes, sides, strict=True):
        chosen = [record for record in records if belongs(record)]
        axis.plot(
            [record[name] for record in chosen], [record["peak_mib"] for record in chosen], "o-"
        )
        axis.set(xscale="log", xlabel=label, ylim=(0, None))
        for record in chosen:
            speed = 3600 * record["hours"] / record["seconds"]
            axis.annotate(
                f"{speed:,.0f} x",
                (record[name], record["peak_mib"]),
                (0, 6),
                textcoords="offset points",
                ha="center",
            )
    axes[0].set_ylabel("peak memory, MiB")
    figure.suptitle("melpatch embed (times real time beside each point)")
    figure.savefig(path)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
