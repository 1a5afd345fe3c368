"""Start-up time and memory of a run against the number of clips of its corpus.

    OMP_NUM_THREADS=1 python benchmarks/corpus_size.py [--clips 100 1000 10000 100000 1000000] [--out corpus_size.png]
    OMP_NUM_THREADS=1 python benchmarks/corpus_size.py --kinds csv parquet shards folder

Writes a list of made-up clips, reads it as a run does, notes the corpus as a run does, and draws the first and a late
step of its order. Of a CSV file, a Parquet file and an index of shards no sound is opened; the files of a folder are
short, and are. Prints one JSON line per size and kind, each from a process of its own.
"""

import json
import time
import wave
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import tyro

from melpatch.data.loader import LoaderConfig, step_draws
from melpatch.data.manifest import load_corpus
from melpatch.data.row import COLUMNS, PACKED_COLUMNS
from melpatch.data.shards import ABOUT, INDEX, LAYOUT, Shard, ShardSet, digest, shard_name
from melpatch.plots.base import save, sheet
from melpatch.training.config import RunConfig
from melpatch.training.launching import memory_gib
from melpatch.training.run import Run


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure."""

    clips: tuple[int, ...] = (100, 1_000, 10_000, 100_000, 1_000_000)
    """Sizes of the corpus."""
    kinds: tuple[Literal["csv", "parquet", "shards", "folder"], ...] = ("csv",)
    """What lists the clips."""
    per_shard: int = 100
    """Clips in a shard."""
    note: bool = True
    """Note the corpus, too, as a new run does."""
    batch_size: int = 64
    """Clips per step."""
    labels: int = 527
    """Classes, of which every clip has two."""
    out: Path | None = None
    """Picture to draw; without, none."""


def main(config: Config) -> None:
    records = []
    for kind, clips in product(config.kinds, config.clips):
        with one_process() as process:
            records.append(process.submit(measure, kind, clips, config).result())
        print(json.dumps(records[-1]), flush=True)
    if config.out is not None:
        draw(records, config.out)


def one_process() -> Executor:
    return ProcessPoolExecutor(1, get_context("spawn"))


def measure(kind: str, clips: int, config: Config) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        # Written elsewhere, so that its memory does not count.
        with one_process() as process:
            source = process.submit(WRITERS[kind], Path(folder), clips, config).result()
        empty, start, clock = memory_gib(), time.process_time(), time.monotonic()
        corpus = load_corpus([source])
        read, peak = time.process_time(), memory_gib()
        if config.note:
            Run.create(Path(folder) / "run", RunConfig()).remember(corpus)
        noted = time.process_time()
        loader = LoaderConfig(shards_at_once=2 if kind == "shards" else None)
        for step in (0, 1_000_000):
            next(step_draws(corpus, loader, 0, min(config.batch_size, clips), step))
        drawn = time.process_time()
        return {
            "kind": kind,
            "clips": len(corpus.clips),
            "read_cpu_seconds": round(read - start, 6),
            "note_cpu_seconds": round(noted - read, 6),
            "two_draws_cpu_seconds": round(drawn - noted, 6),
            "seconds": round(time.monotonic() - clock, 6),
            "memory_mib_before": round(1024 * empty),
            "memory_mib_read": round(1024 * (peak - empty)),
            "memory_mib": round(1024 * memory_gib()),
        }


def labels_of(number: int, labels: int) -> str:
    return f"class {number % labels};class {number * 7 % labels}"


def write_csv(folder: Path, clips: int, config: Config) -> Path:
    path = folder / "corpus.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("path,label,split,start,duration\n")
        for number in range(clips):
            names = labels_of(number, config.labels)
            file.write(
                f"{number // 1000:05d}/{number:09d}.flac,{names},train,0.0,{5 + number % 6}.0\n"
            )
    return path


def write_parquet(folder: Path, clips: int, config: Config) -> Path:
    from pyarrow import csv, parquet

    parquet.write_table(csv.read_csv(write_csv(folder, clips, config)), folder / "corpus.parquet")
    return folder / "corpus.parquet"


def write_shards(folder: Path, clips: int, config: Config) -> Path:
    """Write an index of shards, which are empty files of the right size."""
    out = folder / "shards"
    out.mkdir()
    size = 1000
    with (out / INDEX).open("w", encoding="utf-8", newline="") as file:
        file.write(f"{','.join((*COLUMNS, *PACKED_COLUMNS))}\r\n")
        for number in range(clips):
            shard, place = divmod(number, config.per_shard)
            # Keys are sorted, as those of a packed corpus are.
            cells = shard_name(shard), labels_of(number, config.labels), "train", "0.0", "5.0"
            more = str(number << 32), "", str(512 + size * place), str(size), "7"
            file.write(f"{','.join((*cells, *more))}\r\n")
    shards = []
    for number, first in enumerate(range(0, clips, config.per_shard)):
        count = min(config.per_shard, clips - first)
        shards.append(Shard(shard_name(number), 512 + size * count, "", count))
        with (out / shards[-1].name).open("wb") as file:
            file.truncate(shards[-1].size)
    about = ShardSet(
        *(LAYOUT, "", "", "", 16_000, "flac", clips, 0, 0, 5.0 * clips, digest(out / INDEX)),
        tuple(shards),
    )
    (out / ABOUT).write_text(json.dumps(asdict(about)), encoding="utf-8")
    return out


def write_folder(folder: Path, clips: int, config: Config) -> Path:
    """Write files of a tenth of a second, in folders of classes."""
    out = folder / "sounds"
    for number in range(clips):
        path = out / f"class {number % config.labels}" / f"{number:09d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(bytes(1600))
    return out


WRITERS = {
    "csv": write_csv,
    "parquet": write_parquet,
    "shards": write_shards,
    "folder": write_folder,
}


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
