"""Measure the data pipeline of a training: decoding, packing, loading, front end and steps."""

import io
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.table import Table

from melpatch.audio.sound_writer import write_sound
from melpatch.commands.base import flag_value, read_flags
from melpatch.config import check
from melpatch.counted import counted
from melpatch.data.clip import Batch
from melpatch.data.corpus import Corpus
from melpatch.data.loader import ClipDataset, LoadedBatch, step_draws, training_batches
from melpatch.errors import DataError
from melpatch.machine import cpu_seconds
from melpatch.objectives.teacher import Teacher
from melpatch.progress import bar, console, notice, show_json
from melpatch.recipes.base import recipe_names, recipe_settings
from melpatch.training.config import RunConfig, build
from melpatch.training.feeding import on_device
from melpatch.training.start import fitted, plan, shortened
from melpatch.training.stepping import training_step
from melpatch.training.trainer import set_up
from melpatch.workflows.corpus import describe_corpus, read_corpus, without_splits
from melpatch.workflows.label_settings import resolved
from melpatch.workflows.runs import describe_objective
from melpatch.workflows.teacher import hand_in, with_teacher

_ENOUGH = 0.95  # of the rate without loading


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure, on which corpus, for which training."""

    what: tyro.conf.Positional[Literal["data"]]
    """data: the pipeline from audio files to training steps."""
    recipe: str = "ssast"
    """Recipe or objective of the training."""
    size: str = "tiny"
    """Encoder: nano, mini, tiny, small, base or large."""
    exclude_splits: tuple[str, ...] | None = None
    """Splits or folds to leave out; by default val and test, where they exist."""
    batches: int = 30
    """Batches over which each rate is measured; they are held in memory."""
    rounds: int = 3
    """Measurements of training, with and without loading in turn; the median counts."""
    json: bool = False
    """Print JSON for scripts."""
    training: Annotated[RunConfig, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.batches >= 2, "batches", self.batches, "2 or more")
        check(self.rounds >= 1, "rounds", self.rounds, "1 or more")


@dataclass(frozen=True)
class Rate:
    """What one stage of the pipeline took.

    Attributes:
        stage: its name.
        clips: number of clips that went through it.
        audio_seconds: their total duration.
        seconds: wall-clock time.
        cpu_seconds: CPU time of all threads and of the loader's processes.
    """

    stage: str
    clips: int
    audio_seconds: float
    seconds: float
    cpu_seconds: float

    def record(self) -> dict[str, Any]:
        """Return the numbers, and the rates that follow from them."""
        return asdict(self) | {
            "clips_per_second": self.clips / self.seconds,
            "times_real_time": self.audio_seconds / self.seconds,
            "cpu_ms_per_clip": 1000 * self.cpu_seconds / self.clips,
        }


def parse(arguments: list[str]) -> Config:
    """Return the configuration that the arguments spell."""
    return read_flags(
        Config, _default, arguments, prog="melpatch bench", about=__doc__ or "", required=["what"]
    )


def _default(arguments: list[str]) -> Config:
    name = flag_value(arguments, "--recipe") or "ssast"
    size = flag_value(arguments, "--size") or "tiny"
    return Config(
        what="data",
        training=recipe_settings(name, size, None, with_labels=_learns_from_labels(name)),
    )


def _learns_from_labels(recipe: str) -> bool:
    """Return whether a recipe learns from labels."""
    return recipe.replace("-", "_") in recipe_names(with_labels=True)


def run(config: Config) -> None:
    """Print the rate of each stage, and the share of the training rate that loading leaves."""
    corpus = without_splits(read_corpus(config.training), config.exclude_splits)
    settings = shortened(config.training, corpus)
    if _learns_from_labels(config.recipe):
        settings = resolved(settings, corpus, corpus, 0)
    settings, teacher = with_teacher(fitted(settings), None, Path(), trust_code=False)
    bench = Bench(settings, corpus, config.batches, config.rounds, teacher)
    objective = describe_objective(bench.trainer.objective)
    notice(f"{counted(len(corpus.clips), 'clip')}, {describe_corpus(corpus)}; {objective}")
    rates = []
    with bar(6, "measuring", "stage") as shown:
        for rate in bench.rates():
            rates.append(rate)
            shown.advance(stage=f"done: {rate.stage}")
    from_memory, from_loader = rates[-2:]
    shares = {
        "by_clock": from_memory.seconds / from_loader.seconds,
        "by_cpu_seconds": from_memory.cpu_seconds / from_loader.cpu_seconds,
    }
    if config.json:
        stages = [rate.record() for rate in rates]
        about = {"device": str(bench.trainer.fabric.device), "workers": settings.loader.workers}
        show_json({**about, "stages": stages, "share": shares})
    else:
        _show(rates, shares)
    if shares["by_clock"] < _ENOUGH:
        notice(
            "training waits for data: raise --workers if processors are idle; pack the corpus "
            "(melpatch pack) if decoding or the disk is slow"
        )
    else:
        notice("training does not wait for data")


def median_rate(rates: Sequence[Rate]) -> Rate:
    """Return the median of several measurements of one stage."""
    return replace(
        rates[0],
        seconds=median(rate.seconds for rate in rates),
        cpu_seconds=median(rate.cpu_seconds for rate in rates),
    )


def _show(rates: list[Rate], shares: dict[str, float]) -> None:
    table = Table(title="From files to training steps", title_justify="left")
    table.add_column("stage")
    for name in ("clips/s", "times real time", "CPU ms per clip"):
        table.add_column(name, justify="right")
    for rate in rates:
        record = rate.record()
        row = [rate.stage]
        for name in ("clips_per_second", "times_real_time", "cpu_ms_per_clip"):
            row.append(f"{record[name]:,.4g}")
        table.add_row(*row)
    console().print(table)
    console().print(
        f"With loading, training keeps {shares['by_clock']:.1%} of its rate by the clock, "
        f"{shares['by_cpu_seconds']:.1%} by CPU seconds."
    )


class Bench:
    """A training whose stages can be measured one by one.

    Args:
        config: settings of the training.
        corpus: the clips.
        batches: number of batches that go through each stage.
        rounds: number of times that training is measured.
        teacher: who teaches, of a distillation.

    Raises:
        DataError: no clip of a batch can be read.
    """

    def __init__(
        self,
        config: RunConfig,
        corpus: Corpus,
        batches: int,
        rounds: int,
        teacher: Teacher | None = None,
    ) -> None:
        self.config = config
        self.corpus = corpus
        self.batches = batches
        self.rounds = rounds
        objective = build(config)
        hand_in(objective, teacher)
        self.trainer = set_up(objective, config, plan(config, corpus))
        self.sample_rate = self.trainer.objective.wave_rate
        loaded_batches = islice(self.load(first_step=1), batches)
        self.held = [loaded.batch for loaded in loaded_batches if loaded.batch is not None]
        if len(self.held) < batches:
            raise DataError(
                f"{corpus.shown_name}: no clip of a batch can be read; run melpatch prepare on it to see why"
            )

    def load(self, first_step: int) -> Iterator[LoadedBatch]:
        """Yield the batches of a training from a step on."""
        return training_batches(
            self.corpus,
            self.config.loader,
            self.sample_rate,
            seed=self.config.seed,
            first_step=first_step,
            with_labels=self.trainer.objective.needs_labels,
        )

    def rates(self) -> Iterator[Rate]:
        """Yield the rate of each stage; the last two are training from memory and from the loader."""
        device = self.trainer.fabric.device
        workers = self.config.loader.workers
        yield self.timed("decode, one process", self.decode())
        yield self.timed("pack, one process", self.pack())
        yield self.timed(f"load, {counted(workers, 'worker')}", self.loading())
        moved = [batch.to(device) for batch in self.held]
        self.front_end(moved[0])
        yield self.timed(f"front end, {device}", map(self.front_end, moved))
        in_memory = [LoadedBatch(batch) for batch in self.held]
        # The first steps are slower, so they are not measured.
        deque(self.train(in_memory), maxlen=0)
        from_memory = [self.timed("train, data in memory", self.train(in_memory))]
        from_loader = []
        # The two are measured in turn, so that other work on the machine slows both alike.
        for _ in range(self.rounds):
            from_loader.append(
                self.timed("train, data from the loader", self.train(self.loading()))
            )
            from_memory.append(self.timed("train, data in memory", self.train(in_memory)))
        yield median_rate(from_memory)
        yield median_rate(from_loader)

    def timed(self, stage: str, batches: Iterator[object]) -> Rate:
        """Return what a stage took for the batches, which hold the same clips at every stage.

        CPU seconds include the loader's processes and what they read ahead.
        """
        cpu_start = cpu_seconds()
        start = time.monotonic()
        deque(islice(batches, self.batches), maxlen=0)
        if self.trainer.fabric.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.monotonic() - start
        # The CPU time of the loader's processes is known once they have ended. Closing ends them
        # now, also where a caller still holds the iterator.
        if isinstance(batches, Generator):
            batches.close()
        samples = sum(int(batch.lengths.sum()) for batch in self.held)
        return Rate(
            stage,
            sum(map(len, self.held)),
            samples / self.sample_rate,
            seconds,
            cpu_seconds() - cpu_start,
        )

    def decode(self) -> Iterator[object]:
        """Yield decoded clips, batch by batch."""
        clips = ClipDataset(
            self.corpus.clips, self.sample_rate, self.config.loader.seconds, self.config.seed
        )
        loader = self.config.loader
        for draws in step_draws(self.corpus, loader, self.config.seed, loader.batch_size, 1):
            yield [clips[draw] for draw in draws]

    def pack(self) -> Iterator[object]:
        """Yield packed clips, batch by batch."""
        for batch in self.held:
            waves = zip(batch.wave.numpy(), batch.lengths.tolist(), strict=True)
            yield [
                write_sound([wave[:length]], self.sample_rate, "flac", io.BytesIO())
                for wave, length in waves
            ]

    def front_end(self, batch: Batch) -> object:
        """Return the spectrograms of a batch."""
        with torch.inference_mode():
            return self.trainer.objective.spectrograms(batch)

    def loading(self) -> Iterator[LoadedBatch]:
        """Return the batches of a training, from a loader whose processes have started."""
        loaded = self.load(first_step=0)
        next(loaded)
        return loaded

    def train(self, batches: Iterable[LoadedBatch]) -> Iterator[object]:
        """Yield the result of a training step on each batch."""
        for loaded in on_device(iter(batches), self.trainer.fabric.device):
            batches_of_step = [] if loaded.batch is None else [loaded.batch]
            yield training_step(self.trainer, batches_of_step, 0)
