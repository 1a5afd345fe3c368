"""Measure what feeds a training: the rates of decoding, packing, loading and the front end alone, and all together."""

import io
import json
import resource
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from statistics import median
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.table import Table

from melpatch.audio.sound_writer import write_sound
from melpatch.commands.base import flag_value, read_flags
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.data.corpus import Corpus
from melpatch.data.loader import ClipDataset, LoadedBatch, step_draws, training_batches
from melpatch.errors import DataError
from melpatch.progress import bar, console, notice
from melpatch.recipes.base import recipe_names, recipe_settings
from melpatch.training.config import RunConfig, build
from melpatch.training.feeding import on_device
from melpatch.training.start import fitted, plan, shortened
from melpatch.training.stepping import training_step
from melpatch.training.trainer import set_up
from melpatch.workflows.corpus import describe_corpus, read_corpus, without_splits
from melpatch.workflows.finetune import resolved
from melpatch.workflows.runs import describe_objective

_ENOUGH = 0.95  # of the rate without data


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure, on which sound, for which training; every field of the recipe is a flag."""

    what: tyro.conf.Positional[Literal["data"]]
    """data: the way of sound from its files to the training step."""
    recipe: str = "ssast"
    """Recipe or objective whose training is fed."""
    size: str = "tiny"
    """Encoder: nano, mini, tiny, small or base."""
    exclude_splits: tuple[str, ...] | None = None
    """Splits or folds to leave out; by default val and test, where they exist."""
    batches: int = 30
    """Batches that every rate is measured over; they are held in memory."""
    rounds: int = 3
    """Turns that training with data and without takes; what counts is the median."""
    json: bool = False
    """Print JSON for scripts."""
    training: Annotated[RunConfig, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.batches >= 2, "batches", self.batches, "2 or more")
        check(self.rounds >= 1, "rounds", self.rounds, "1 or more")


@dataclass(frozen=True)
class Rate:
    """What a stage took.

    Attributes:
        stage: its name.
        clips: how many went through it.
        audio_seconds: how long they are together.
        seconds: by the clock.
        cpu_seconds: of all threads, and of the loader's processes.
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
    """Return the settings that the arguments spell."""
    return read_flags(
        Config, _default, arguments, prog="melpatch bench", about=__doc__ or "", required=["what"]
    )


def _default(arguments: list[str]) -> Config:
    name = flag_value(arguments, "--recipe") or "ssast"
    size = flag_value(arguments, "--size") or "tiny"
    return Config(
        what="data", training=recipe_settings(name, size, None, with_labels=_learns(name))
    )


def _learns(recipe: str) -> bool:
    """Return whether a recipe learns from labels."""
    return recipe.replace("-", "_") in recipe_names(with_labels=True)


def run(config: Config) -> None:
    """Print a line per stage, and the share of the training rate without data that survives with data."""
    corpus = without_splits(read_corpus(config.training), config.exclude_splits)
    settings = shortened(config.training, corpus)
    settings = resolved(settings, corpus, corpus, 0) if _learns(config.recipe) else settings
    settings = fitted(settings)
    bench = Bench(settings, corpus, config.batches, config.rounds)
    notice(
        f"{len(corpus.clips)} clips, {describe_corpus(corpus)}; {describe_objective(bench.trainer.objective)}"
    )
    rates = []
    with bar(6, "measuring") as shown:
        for rate in bench.rates():
            rates.append(rate)
            shown.advance(stage=rate.stage)
    held, fed = rates[-2:]
    shares = {
        "by_clock": held.seconds / fed.seconds,
        "by_cpu_seconds": held.cpu_seconds / fed.cpu_seconds,
    }
    if config.json:
        stages = [rate.record() for rate in rates]
        about = {"device": str(bench.trainer.fabric.device), "workers": settings.loader.workers}
        console().print_json(json.dumps({**about, "stages": stages, "share": shares}))
    else:
        _show(rates, shares)
    if shares["by_clock"] < _ENOUGH:
        notice(
            "the training waits for its data: raise --workers where processors are idle, pack the sound "
            "(melpatch pack) where decoding or the disk is slow"
        )
    else:
        notice("the training does not wait for its data")


def middle(rates: Sequence[Rate]) -> Rate:
    """Return what a stage took that was measured more than once."""
    seconds, cpu_seconds = (
        median(rate.seconds for rate in rates),
        median(rate.cpu_seconds for rate in rates),
    )
    return replace(rates[0], seconds=seconds, cpu_seconds=cpu_seconds)


def _show(rates: list[Rate], shares: dict[str, float]) -> None:
    table = Table(title="From files to training steps", title_justify="left")
    for name in ("stage", "clips/s", "times real time", "CPU ms per clip"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for rate in rates:
        record = rate.record()
        numbers = (
            record[name] for name in ("clips_per_second", "times_real_time", "cpu_ms_per_clip")
        )
        table.add_row(rate.stage, *(f"{number:,.4g}" for number in numbers))
    console().print(table)
    console().print(
        f"With data the training keeps {shares['by_clock']:.1%} of its rate by the clock, "
        f"{shares['by_cpu_seconds']:.1%} by CPU seconds."
    )


class Bench:
    """A training whose every stage can be run alone.

    Args:
        config: of the training.
        corpus: the sound.
        batches: how many steps' clips go through each stage.
        rounds: how often the training is measured.

    Raises:
        DataError: a batch of them cannot be read at all.
    """

    def __init__(self, config: RunConfig, corpus: Corpus, batches: int, rounds: int) -> None:
        self.config, self.corpus, self.batches, self.rounds = config, corpus, batches, rounds
        self.sample_rate = config.front_end.sample_rate
        self.trainer = set_up(build(config), config, plan(config, corpus))
        found = [one.batch for one in islice(self.load(first_step=1), batches)]
        self.held = [batch for batch in found if batch is not None]
        if len(self.held) < batches:
            raise DataError(
                f"{corpus.name}: whole batches cannot be read; run melpatch prepare on it to see why"
            )

    def load(self, first_step: int) -> Iterator[LoadedBatch]:
        """Yield what the loader of a training yields from a step on."""
        labels = self.trainer.objective.needs_labels
        loader, seed = self.config.loader, self.config.seed
        return training_batches(
            self.corpus,
            loader,
            self.sample_rate,
            seed=seed,
            first_step=first_step,
            with_labels=labels,
        )

    def rates(self) -> Iterator[Rate]:
        """Yield the rate of each stage; the last two are of training on what lies in memory, and with data."""
        device, workers = self.trainer.fabric.device, self.config.loader.workers
        yield self.timed("decode, one process", self.decode())
        yield self.timed("pack, one process", self.pack())
        yield self.timed(f"load, {workers} workers", self.loading())
        there = [batch.to(device) for batch in self.held]
        self.front_end(there[0])
        yield self.timed(f"front end, {device}", map(self.front_end, there))
        in_memory = [LoadedBatch(batch) for batch in self.held]
        deque(self.train(in_memory), maxlen=0)  # the first steps are slower
        held, fed = [self.timed("train, data in memory", self.train(in_memory))], []
        for _ in range(self.rounds):  # in turns, so that what else the machine does hits both alike
            fed.append(self.timed("train, data from the loader", self.train(self.loading())))
            held.append(self.timed(held[0].stage, self.train(in_memory)))
        yield middle(held)
        yield middle(fed)

    def timed(self, stage: str, batches: Iterator[object]) -> Rate:
        """Return what the batches took; at every stage they hold the same clips.

        CPU seconds are those of the loader's processes too, with what they read ahead.
        """
        cpu, clock = _cpu_seconds(), time.monotonic()
        deque(islice(batches, self.batches), maxlen=0)
        if self.trainer.fabric.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.monotonic() - clock
        del batches  # the loader's processes count once they have ended
        samples = sum(int(batch.lengths.sum()) for batch in self.held)
        return Rate(
            stage,
            sum(map(len, self.held)),
            samples / self.sample_rate,
            seconds,
            _cpu_seconds() - cpu,
        )

    def decode(self) -> Iterator[object]:
        """Yield decoded clips, batch by batch."""
        clips = ClipDataset(
            self.corpus.clips, self.sample_rate, self.config.loader.seconds, self.config.seed
        )
        for draws in step_draws(
            self.corpus, self.config.loader, self.config.seed, self.config.loader.batch_size, 1
        ):
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
        """Return an iterator over the batches as a training has them, whose processes have started."""
        loaded = self.load(first_step=0)
        next(loaded)
        return loaded

    def train(self, batches: Iterable[LoadedBatch]) -> Iterator[object]:
        """Yield what a step on each batch gives."""
        for loaded in on_device(iter(batches), self.trainer.fabric.device):
            yield training_step(self.trainer, [] if loaded.batch is None else [loaded.batch], 0)


def _cpu_seconds() -> float:
    """Return what this process has used, all threads together, and its processes that have ended."""
    used = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)
