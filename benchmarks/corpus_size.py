"""Start-up time and memory of a run against the number of clips of its corpus.

    OMP_NUM_THREADS=1 python benchmarks/corpus_size.py [--clips 100 1000 10000 100000 1000000] [--out corpus_size.png]

Writes a manifest of made-up clips (none is opened), reads it as a run does, notes the corpus as a run does, and
draws the first and a late step of its order. Prints one JSON line per size, each from a process of its own.
"""

import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro

from melpatch.data.loader import LoaderConfig, step_draws
from melpatch.data.manifest import load_corpus
from melpatch.plots.base import save, sheet
from melpatch.training.config import RunConfig
from melpatch.training.launching import memory_gib
from melpatch.training.run import Run


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure."""

    clips: tuple[int, ...] = (100, 1_000, 10_000, 100_000, 1_000_000)
    """Sizes of the corpus."""
    batch_size: int = 64
    """Clips per step."""
    labels: int = 527
    """Classes, of which every clip has two."""
    out: Path | None = None
    """Picture to draw; without, none."""


def main(config: Config) -> None:
    records = []
    for clips in config.clips:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            records.append(process.submit(measure, clips, config).result())
        print(json.dumps(records[-1]), flush=True)
    if config.out is not None:
        draw(records, config.out)


def measure(clips: int, config: Config) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        manifest = Path(folder) / "corpus.csv"
        write(manifest, clips, config.labels)
        empty, start, clock = memory_gib(), time.process_time(), time.monotonic()
        corpus = load_corpus([manifest])
        read = time.process_time()
        Run.create(Path(folder) / "run", RunConfig()).remember(corpus)
        noted = time.process_time()
        for step in (0, 1_000_000):
            next(step_draws(corpus, LoaderConfig(), 0, min(config.batch_size, clips), step))
        drawn = time.process_time()
        return {
            "clips": clips,
            "manifest_mib": round(manifest.stat().st_size / 2**20, 2),
            "read_cpu_seconds": round(read - start, 6),
            "note_cpu_seconds": round(noted - read, 6),
            "two_draws_cpu_seconds": round(drawn - noted, 6),
            "seconds": round(time.monotonic() - clock, 6),
            "memory_mib_before": round(1024 * empty),
            "memory_mib": round(1024 * memory_gib()),
        }


def write(path: Path, clips: int, labels: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("path,label,split,start,duration\n")
        for number in range(clips):
            names = f"class {number % labels};class {number * 7 % labels}"
            file.write(
                f"{number // 1000:05d}/{number:09d}.flac,{names},train,0.0,{5 + number % 6}.0\n"
            )


def draw(records: list[dict[str, Any]], path: Path) -> None:
    drawn = sheet(9, 4)
    left, right = drawn.subplots(1, 2)
    sizes = [record["clips"] for record in records]
    for name in ("read_cpu_seconds", "note_cpu_seconds", "two_draws_cpu_seconds"):
        left.plot(
            sizes,
            [max(record[name], 1e-3) for record in records],
            marker="o",
            label=name.replace("_", " "),
        )
    right.plot(
        sizes,
        [record["memory_mib"] - record["memory_mib_before"] for record in records],
        marker="o",
    )
    left.set(xscale="log", yscale="log", xlabel="clips", ylabel="CPU seconds")
    right.set(
        xscale="log", yscale="log", xlabel="clips", ylabel="memory above an empty process, MiB"
    )
    left.legend()
    save(drawn, path)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
