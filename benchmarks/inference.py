"""WAV files to vectors on a processor: melpatch beside AST of transformers, same weights and files, in turns.

    OMP_NUM_THREADS=1 python benchmarks/inference.py [--sizes tiny base] [--precisions bf16-mixed 32-true]

Needs transformers (pip install transformers), whose AST of random weights is written to a folder that
both open. Sound is noise, in clips as long as AST's input (1,214 tokens). Each side decodes, computes
log-mels and runs the network as its documentation says: ``Model.embed_many`` here; soundfile,
``ASTFeatureExtractor`` and ``ASTModel`` in the same arithmetic there, batch by batch.

Prints one JSON line per size and precision. Each side has a process of its own, so that peak memory is
its own too, and the two take rounds in turns, so that what else the machine does hits both alike.
``ratio`` is that of the CPU seconds of a pair of rounds: the median, the least and the largest.
``cosine`` compares the vectors of the two sides, the least of all clips.
"""

import json
import resource
import tempfile
import time
import warnings
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Literal, Protocol

import numpy as np
import soundfile
import torch
import tyro
from memory import peak_mib

Precision = Literal["32-true", "bf16-mixed"]

RATE = 16000
SAMPLES = 1023 * 160 + 400  # of 1,024 frames, all of AST's input
SIZES = {"nano": (96, 3, 4), "tiny": (192, 3, 12), "base": (768, 12, 12)}
"""Width, heads and layers of AST's encoders."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to time."""

    sizes: tuple[str, ...] = ("tiny", "base")
    """Encoders."""
    precisions: tuple[Precision, ...] = ("bf16-mixed", "32-true")
    """Arithmetic."""
    clips: int = 8
    """WAV files."""
    batch_size: int = 4
    """Clips at a time, of both sides."""
    rounds: int = 5
    """Timed rounds of each side, after one to warm up."""
    threads: int = 1
    """Threads of each side."""


class Side(Protocol):
    """One way from files to vectors."""

    def vectors(self, files: list[Path], batch_size: int) -> np.ndarray: ...


class Ours:
    """The vectors of melpatch."""

    def __init__(self, folder: Path, precision: Precision) -> None:
        import melpatch  # here, since the other side's memory is measured too

        self.model = melpatch.load(folder, "cpu", precision)

    def vectors(self, files: list[Path], batch_size: int) -> np.ndarray:
        embedded = self.model.embed_many(files, pooling="mean", batch_size=batch_size)
        return np.stack([np.asarray(vector) for _, vector in embedded])


class Transformers:
    """The mean of the patch tokens of transformers."""

    def __init__(self, folder: Path, precision: Precision) -> None:
        from transformers import ASTFeatureExtractor, ASTModel

        self.dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
        self.extractor = ASTFeatureExtractor.from_pretrained(folder)
        self.model = ASTModel.from_pretrained(folder, dtype=self.dtype).eval()

    @torch.inference_mode()
    def vectors(self, files: list[Path], batch_size: int) -> np.ndarray:
        rows = []
        for first in range(0, len(files), batch_size):
            chosen = files[first : first + batch_size]
            waves = [soundfile.read(path, dtype="float32")[0] for path in chosen]
            inputs = self.extractor(waves, sampling_rate=RATE, return_tensors="pt").input_values
            tokens = self.model(inputs.to(self.dtype)).last_hidden_state[:, 2:]
            rows.append(tokens.float().mean(dim=1).numpy())
        return np.concatenate(rows)


SIDES: dict[str, type[Ours] | type[Transformers]] = {"ours": Ours, "transformers": Transformers}
opened: dict[str, Side] = {}
"""The side that a process times, between its turns."""


def main(config: Config) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        files = write_sounds(folder, config.clips)
        for size in config.sizes:
            # In a process of its own, lest this one's memory and warnings get in the way.
            with one_process() as process:
                process.submit(write_model, folder / size, size).result()
            for precision in config.precisions:
                record = in_turns(folder / size, files, precision, config)
                about = {"size": size, "precision": precision, "threads": config.threads}
                print(json.dumps(about | record), flush=True)


def in_turns(
    folder: Path, files: list[Path], precision: Precision, config: Config
) -> dict[str, Any]:
    """Return what each side took, and the ratio of the two."""
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    vectors: dict[str, np.ndarray] = {}
    peaks: dict[str, int] = {}
    with one_process() as ours, one_process() as theirs:
        processes = {"ours": ours, "transformers": theirs}
        for name, process in processes.items():
            process.submit(start, name, folder, precision, config.threads).result()
        for number in range(config.rounds + 1):
            for name, process in processes.items():
                taken = process.submit(take, name, files, config.batch_size).result()
                vectors[name], cpu, peaks[name] = taken
                if number:
                    seconds[name].append(cpu / len(files))
    ratios = [ours / theirs for ours, theirs in zip(*seconds.values(), strict=True)]
    record: dict[str, Any] = {
        "ratio": [round(value, 3) for value in (median(ratios), min(ratios), max(ratios))]
    }
    for name in SIDES:
        record[f"{name}_cpu_seconds_per_clip"] = round(median(seconds[name]), 9)
        record[f"{name}_least_cpu_seconds_per_clip"] = round(min(seconds[name]), 9)
        record[f"{name}_peak_mib"] = peaks[name]
    return record | {"cosine": round(least_cosine(*vectors.values()), 7)}


def one_process() -> Executor:
    return ProcessPoolExecutor(1, get_context("spawn"))  # a fork would inherit the threads of torch


def start(name: str, folder: Path, precision: Precision, threads: int) -> None:
    torch.set_num_threads(threads)
    opened[name] = SIDES[name](folder, precision)


def take(name: str, files: list[Path], batch_size: int) -> tuple[np.ndarray, float, int]:
    """Return the vectors, the CPU seconds that they took, and the peak memory so far in MiB."""
    with warnings.catch_warnings():
        # transformers says of AST's own mel filters that some are empty.
        warnings.filterwarnings("ignore", message="At least one mel filter")
        began = time.process_time()
        vectors = opened[name].vectors(files, batch_size)
    return vectors, time.process_time() - began, round(peak_mib(resource.RUSAGE_SELF))


def least_cosine(ours: np.ndarray, theirs: np.ndarray) -> float:
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(axis=1) / lengths).min())


def write_sounds(folder: Path, clips: int) -> list[Path]:
    noise = np.random.default_rng(0)
    files = [folder / f"{number}.wav" for number in range(clips)]
    for file in files:
        soundfile.write(file, 0.1 * noise.standard_normal(SAMPLES), RATE)
    return files


def write_model(folder: Path, size: str) -> None:
    """Write an AST with random weights, and its feature extractor, as transformers does."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    width, heads, layers = SIZES[size]
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=4 * width,
    )
    ASTModel(config).save_pretrained(folder)
    ASTFeatureExtractor().save_pretrained(folder)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
