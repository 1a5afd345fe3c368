"""Training on a cluster by simulation: a global order without a list, an index that streams, lost nodes, lost shards.

    OMP_NUM_THREADS=1 python benchmarks/cluster.py                       # all four, at 10**8 clips and 1,000 GPUs
    OMP_NUM_THREADS=1 python benchmarks/cluster.py --what order --clips 10000000 --shards 100000

Prints one JSON line per case. Nothing is trained and no sound is read.

``order``: shards are permuted by the seed, and the clips of some shards at a time among each other, so that only the
numbers of clips per shard are held. ``index``: an index like that of ``melpatch pack`` is written and drawn from in
that order; one pass notes where the lines of each shard begin, and lines are read when their shards are.
``interruptions``: a run of some weeks is cut off at random times; what has not been saved is repeated. ``shards``:
shards are lost at random, and a run stops where too many of its clips are.
"""

import csv
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
import tyro

from melpatch.data.row import COLUMNS, PACKED_COLUMNS
from melpatch.data.shards import INDEX, shard_name
from melpatch.rng import permutation
from melpatch.training.launching import memory_gib

_PER_SHARD = 100  # lines of the index
_BLOCK = 1 << 23


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to simulate."""

    what: tuple[Literal["order", "index", "interruptions", "shards"], ...] = (
        "order",
        "index",
        "interruptions",
        "shards",
    )
    """Simulations."""
    clips: int = 100_000_000
    """Clips of the corpus."""
    shards: int = 1_000_000
    """Shards that hold them."""
    shards_at_once: int = 16
    """Shards whose clips are mixed."""
    lines: int = 10_000_000
    """Lines of the index, a hundred per shard."""
    seed: int = 0
    """Seed of everything."""
    gpus: tuple[int, ...] = (8, 64, 1_000)
    """GPUs of a run."""
    hours: float = 336.0
    """Length of the run without interruptions."""
    hours_per_fault: float = 50_700.0
    """Hours of one GPU between faults: 419 in 54 days on 16,384 GPUs (Llama Team 2024, arXiv 2407.21783, 3.3.4)."""
    restart_minutes: float = 10.0
    """From a fault to the first step after it."""
    save_seconds: float = 5.0
    """For which training waits at a save."""
    save_minutes: tuple[float, ...] = (2.0, 10.0, 30.0, 120.0)
    """Between two saves."""
    lost: tuple[float, ...] = (1e-5, 1e-3, 0.009, 0.02)
    """Chance of each shard to be lost."""
    max_bad_share: float = 0.01
    """Share of lost clips at which a run stops."""
    trials: int = 100
    """Runs that are simulated."""


def main(config: Config) -> None:
    for what in config.what:
        for record in SIMULATIONS[what](config):
            print(json.dumps({"what": what} | record), flush=True)


def shard_order(
    counts: np.ndarray, at_once: int, seed: int, epoch: int, first: int = 0
) -> Iterator[tuple[int, int]]:
    """Yield shard and number within it of each clip of an epoch, from draw number ``first``.

    Memory holds a few numbers per shard, and the clips of ``at_once`` shards.
    """
    shards = permutation(seed, "shards", epoch, len(counts)).numpy()
    ends = counts[shards].cumsum()
    # The group of shards in which the draw lies.
    group = int(np.searchsorted(ends, first, side="right")) // at_once
    for begin in range(group * at_once, len(shards), at_once):
        some = shards[begin : begin + at_once]
        before = int(ends[begin] - counts[shards[begin]])
        of_shard = np.repeat(some, counts[some])
        within = np.concatenate([np.arange(counts[shard]) for shard in some])
        order = permutation(seed, f"group {begin}", epoch, len(within)).numpy()
        order = order[max(0, first - before) :]
        yield from zip(of_shard[order].tolist(), within[order].tolist(), strict=True)


def order(config: Config) -> Iterator[dict[str, Any]]:
    """Measure the start at the beginning and in the middle of an epoch, and the rate after it."""
    state = np.random.default_rng(config.seed)
    counts = state.multinomial(config.clips, np.full(config.shards, 1 / config.shards))
    before = memory_gib()
    for first in (0, config.clips // 2):
        start = time.process_time()
        draws = shard_order(counts, config.shards_at_once, config.seed, 0, first)
        next(draws)
        begun = time.process_time()
        drawn = sum(1 for _ in islice(draws, 100_000))
        yield {
            "clips": config.clips,
            "shards": config.shards,
            "first_draw": first,
            "start_cpu_seconds": round(begun - start, 4),
            "draws_per_cpu_second": round(drawn / max(1e-9, time.process_time() - begun)),
            "memory_mib": round(1024 * (memory_gib() - before)),
        }


def index(config: Config) -> Iterator[dict[str, Any]]:
    """Measure what an index costs of which only the places of shards are held."""
    counts = np.full(config.lines // _PER_SHARD, _PER_SHARD)
    with TemporaryDirectory() as folder:
        path = Path(folder, INDEX)
        write_index(path, config.lines)
        before = memory_gib()
        start = time.process_time()
        places = shard_places(path, counts)
        noted = time.process_time() - start
        for first in (0, config.lines // 2):
            start = time.process_time()
            draws = streamed(path, places, counts, config, first)
            next(draws)
            begun = time.process_time()
            drawn = sum(1 for _ in islice(draws, 100_000))
            yield {
                "lines": config.lines,
                "bytes": path.stat().st_size,
                "first_draw": first,
                "places_cpu_seconds": round(noted, 3),
                "start_cpu_seconds": round(begun - start, 4),
                "draws_per_cpu_second": round(drawn / max(1e-9, time.process_time() - begun)),
                "memory_mib": round(1024 * (memory_gib() - before)),
            }


def write_index(path: Path, lines: int) -> None:
    """Write an index of made-up clips, shard by shard."""
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.write(",".join((*COLUMNS, *PACKED_COLUMNS)) + "\n")
        for number in range(lines):
            shard, place = divmod(number, _PER_SHARD)
            file.write(
                f"{shard_name(shard)},a{number % 527};b{number % 521},train,0.0,{1 + number % 9}.5,{number},"
                f"g{number % 999},{place * 65536},64000,{number}\n"
            )


def shard_places(path: Path, counts: np.ndarray) -> np.ndarray:
    """Return the byte at which the lines of each shard begin, and the end of the last one's."""
    # The header is a line, too.
    wanted = 1 + np.append(0, counts.cumsum())
    places = np.zeros(len(wanted), np.int64)
    lines = begin = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
            low, high = np.searchsorted(wanted, [lines, lines + len(ends)], side="right")
            places[low:high] = begin + ends[wanted[low:high] - lines - 1] + 1
            lines += len(ends)
            begin += len(block)
    return places


def streamed(
    path: Path, places: np.ndarray, counts: np.ndarray, config: Config, first: int = 0
) -> Iterator[list[str]]:
    """Yield the cells of the clips of an epoch, as :func:`shard_order`; lines of few shards are held."""
    held: dict[int, list[list[str]]] = {}
    with path.open("rb") as file:
        for shard, place in shard_order(counts, config.shards_at_once, config.seed, 0, first):
            if shard not in held:
                # A group has been drawn to its end before the next one begins.
                if len(held) == config.shards_at_once:
                    held.clear()
                file.seek(places[shard])
                text = file.read(places[shard + 1] - places[shard]).decode("ascii")
                held[shard] = [*csv.reader(text.splitlines())]
            yield held[shard][place]


def interruptions(config: Config) -> Iterator[dict[str, Any]]:
    """Simulate runs that are cut off, for each number of GPUs and each interval of saves."""
    state = np.random.default_rng(config.seed)
    for gpus in config.gpus:
        between = config.hours_per_fault / gpus
        best = math.sqrt(2 * config.save_seconds / 3600 * between)
        for minutes in config.save_minutes:
            spent = [one_run(config, between, minutes / 60, state) for _ in range(config.trials)]
            shares = [1 - config.hours / hours for hours, _ in spent]
            yield {
                "gpus": gpus,
                "hours_between_faults": round(between, 2),
                "save_minutes": minutes,
                "best_save_minutes": round(60 * best, 1),
                "faults": round(float(np.mean([faults for _, faults in spent])), 2),
                "share_lost": round(float(np.mean(shares)), 5),
                "share_lost_worst": round(max(shares), 5),
            }


def one_run(
    config: Config, between: float, interval: float, state: np.random.Generator
) -> tuple[float, int]:
    """Return the hours that a run takes and its faults; faults also strike while it restarts."""
    saved = clock = 0.0
    faults = 0
    fault = state.exponential(between)
    while saved < config.hours:
        stretch = min(interval, config.hours - saved)
        end = clock + stretch + config.save_seconds / 3600
        if end <= fault:
            saved, clock = saved + stretch, end
            continue
        faults += 1
        clock = fault + config.restart_minutes / 60
        while (fault := fault + state.exponential(between)) < clock:
            faults += 1
            clock = fault + config.restart_minutes / 60
    return clock, faults


def shards(config: Config) -> Iterator[dict[str, Any]]:
    """Simulate the loss of shards; a run goes on without the clips of few."""
    state = np.random.default_rng(config.seed)
    for chance in config.lost:
        shares = state.binomial(config.shards, chance, config.trials) / config.shards
        yield {
            "shards": config.shards,
            "chance": chance,
            "share_lost": round(float(shares.mean()), 6),
            "runs_that_stop": int((shares > config.max_bad_share).sum()),
            "runs": config.trials,
        }


SIMULATIONS = {"order": order, "index": index, "interruptions": interruptions, "shards": shards}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Config, description=__doc__))
