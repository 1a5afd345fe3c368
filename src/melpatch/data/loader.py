"""From clips to batches: the order, the crops and the labels are functions of (seed, clip, epoch), whatever the workers
do.

A clip that cannot be read at run time is left out of its batch, counted, and reported; the run stops only when more
than a stated share of the corpus is bad.
"""

import itertools
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch.utils.data import DataLoader, Dataset

from melpatch.config import check
from melpatch.data.clip import Batch, Clip
from melpatch.data.manifest import Corpus, Rejected, label_matrix
from melpatch.data.segments import crop
from melpatch.data.sound import decode
from melpatch.errors import AudioError, DataError, report_lost_workers
from melpatch.rng import integers, permutation, stream, uniform

Segment = tuple[Clip, Float[np.ndarray, " _"]]
"""A clip and its samples, of which every clip has another number."""


class ClipDraw(NamedTuple):
    """One place in the order of a run: which clip, and in which pass over the corpus (or, balanced, in which draw)."""

    clip: int
    epoch: int


@dataclass(frozen=True)
class LoadedBatch:
    """A batch, and the clips that could not be read for it."""

    batch: Batch | None
    rejected: tuple[Rejected, ...] = ()

    def pin_memory(self) -> "LoadedBatch":
        """Return the same from where a GPU copies without a wait; torch's loader asks for it by this name."""
        return self if self.batch is None else replace(self, batch=self.batch.pin_memory())


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How clips become batches."""

    batch_size: int = 32
    """Clips per optimiser step, over which one gradient is averaged: of all processes and accumulated batches."""
    seconds: float = 10.0
    """Longest segment, in seconds; longer clips are cropped at random."""
    short_clips: Literal["pad", "repeat"] = "pad"
    """What training makes of a clip that is shorter than a segment: padding, which is masked, or a whole segment of it
    over and over, from a random place on."""
    bucket_steps: int = 4
    """Steps whose clips are sorted by length together, so that little is padded; 1 leaves the order as it is."""
    workers: int = 2
    """Processes that decode beside the training; 0 decodes in the training process."""
    shards_at_once: int | None = None
    """Shards (or files, where clips are parts of files) whose clips are mixed at a time, for stores that are slow to
    jump about; None mixes all clips of the corpus."""
    balanced_sampling: bool = False
    """Draw clips so that every label comes up equally often, with replacement."""
    max_bad_share: float = 0.01
    """Share of the corpus that may prove unreadable at run time before the run stops (one clip always may)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        check(self.bucket_steps >= 1, "bucket_steps", self.bucket_steps, "1 or more")
        check(self.seconds > 0, "seconds", self.seconds, "above 0")
        check(self.workers >= 0, "workers", self.workers, "0 or more")
        check(
            self.shards_at_once is None or self.shards_at_once >= 1,
            "shards_at_once",
            self.shards_at_once,
            "1 or more, or none",
        )
        check(
            not (self.balanced_sampling and self.shards_at_once),
            "shards_at_once",
            self.shards_at_once,
            "none, with balanced_sampling",
        )
        check(0 <= self.max_bad_share <= 1, "max_bad_share", self.max_bad_share, "0 to 1")


class ClipDataset(Dataset[Segment | Rejected]):
    """Decoded segments by place in the order."""

    def __init__(
        self,
        clips: Sequence[Clip],
        sample_rate: int,
        seconds: float,
        seed: int,
        *,
        repeat: bool = False,
    ) -> None:
        self.clips, self.sample_rate, self.seconds, self.seed = clips, sample_rate, seconds, seed
        self.repeat = repeat

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, draw: ClipDraw) -> Segment | Rejected:
        clip = crop(self.clips[draw.clip], self.seconds, self.seed, draw.epoch)
        try:
            wave = decode(clip, self.sample_rate)
        except AudioError as error:
            return Rejected(clip.location, error.reason)
        if self.repeat and clip.duration < self.seconds:
            states = stream(self.seed, "repeat", torch.tensor([clip.key]), draw.epoch)
            wave = repeat_to_length(
                wave, round(self.seconds * self.sample_rate), uniform(states, 1).item()
            )
        return clip, wave


def repeat_to_length(
    wave: Float[np.ndarray, " sample"], samples: int, start: float
) -> Float[np.ndarray, " _"]:
    """Return a wave that has so many samples as it is, and so many of a shorter one that is repeated without end, from
    ``start``, a share of it, on."""
    if len(wave) >= samples:
        return wave
    first = int(start * len(wave))
    return np.resize(np.roll(wave, -first), samples)


def training_order(
    corpus: Corpus, config: LoaderConfig, seed: int, first: int
) -> Iterator[ClipDraw]:
    """Yield the endless order of a run from its ``first`` draw on.

    Each pass over the corpus is one seeded permutation. With locality the shards are shuffled, and all clips of a few
    of them, shuffled, come before those of the next few. A balanced order draws clips with replacement instead, by the
    sum of 1 / count over a clip's labels: as if a label were drawn and then a clip that has it.
    """
    size = len(corpus.clips)
    by_key = sorted(
        range(size), key=lambda index: corpus.clips[index].key
    )  # however the corpus is listed
    weights = _balance(corpus)[by_key].cumsum(0) if config.balanced_sampling else None
    shards = (
        _shards([corpus.clips[index].path for index in by_key]) if config.shards_at_once else None
    )
    for epoch in itertools.count(first // size):
        if weights is None:
            indices = permutation(seed, "order", epoch, size)
            if shards is not None and config.shards_at_once:
                turn = (
                    permutation(seed, "shards", epoch, int(shards.max()) + 1).argsort()
                    // config.shards_at_once
                )
                indices = indices[turn[shards[indices]].argsort(stable=True)]
        else:
            state = stream(seed, "order", torch.zeros(1, dtype=torch.int64), epoch)
            # 53 bits, since the 24 of uniform never meet most clips of AudioSet's commonest labels.
            draws = integers(state, 0, 1 << 53, size)[0].double() * 2.0**-53
            indices = torch.searchsorted(weights, draws * weights[-1], right=True).clamp(
                max=size - 1
            )
        skip = first % size if epoch == first // size else 0
        for number, index in enumerate(indices[skip:].tolist(), start=epoch * size + skip):
            # With replacement, a clip that comes again within a pass is cut elsewhere.
            yield ClipDraw(by_key[index], epoch if weights is None else number)


def _shards(paths: Sequence[Path]) -> torch.Tensor:
    """Return the number of each path, which counts them in the order in which they come first."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(str(path), len(numbers)) for path in paths])


def step_draws(
    corpus: Corpus, config: LoaderConfig, seed: int, per_step: int, first_step: int
) -> Iterator[list[ClipDraw]]:
    """Yield the draws of each optimiser step, from ``first_step`` on, whoever computes them.

    The order is cut into groups of ``bucket`` steps; within a group, clips of like length come into the same step, and
    the steps are shuffled. So little is padded, and every clip still comes up once per pass.
    """
    steps = max(
        1, min(config.bucket_steps, len(corpus.clips) // per_step)
    )  # no more than a pass, or clips would meet themselves
    group, skip = divmod(first_step, steps)
    draws = training_order(corpus, config, seed, group * steps * per_step)
    for number in itertools.count(group):
        held = [next(draws) for _ in range(steps * per_step)]
        held.sort(key=lambda draw: min(corpus.clips[draw.clip].duration, config.seconds))
        shuffled = permutation(seed, "steps", number, steps).tolist()
        for at in shuffled[skip if number == group else 0 :]:
            yield held[at * per_step : (at + 1) * per_step]


def step_share(draws: Sequence[ClipDraw], number: int, shares: int) -> list[ClipDraw]:
    """Return one of so many equal shares of a step's draws, in each of which are clips of all lengths.

    Two neighbours, of which each is the other's partner in mixtures, stay together where shares are of even size.
    """
    size = 2 if len(draws) % (2 * shares) == 0 else 1
    return [
        draw
        for at in range(number * size, len(draws), shares * size)
        for draw in draws[at : at + size]
    ]


def _balance(corpus: Corpus) -> torch.Tensor:
    if not all(clip.labels for clip in corpus.clips):
        raise DataError(
            f"{corpus.name}: --balanced-sampling needs a label on every clip; drop the unlabelled clips"
        )
    # No matrix of clips and labels, which for the whole of AudioSet would take 4 GB.
    counts = Counter(label for clip in corpus.clips for label in clip.labels)
    shares = [sum(1 / counts[label] for label in clip.labels) for clip in corpus.clips]
    return torch.tensor(shares, dtype=torch.float64)


def collate_clips(items: Sequence[Segment | Rejected], labels: tuple[str, ...]) -> LoadedBatch:
    """Pad the readable segments of a batch to the longest of them, and pass the others on."""
    rejected = tuple(item for item in items if isinstance(item, Rejected))
    good = [item for item in items if not isinstance(item, Rejected)]
    if not good:
        return LoadedBatch(None, rejected)
    lengths = [len(wave) for _, wave in good]
    padded = np.zeros((len(good), max(lengths)), dtype=np.float32)
    for row, (_, wave) in zip(padded, good, strict=True):
        row[: len(wave)] = wave
    clips = [clip for clip, _ in good]
    targets = torch.from_numpy(label_matrix(clips, labels)) if labels else None
    keys = torch.tensor([clip.key for clip in clips])
    return LoadedBatch(
        Batch(torch.from_numpy(padded), torch.tensor(lengths), keys, targets, _partners(items)),
        rejected,
    )


def _partners(items: Sequence[Segment | Rejected]) -> torch.Tensor:
    """Return the row of each readable item's partner, which is the other one of two neighbours; else its own."""
    places = [place for place, item in enumerate(items) if not isinstance(item, Rejected)]
    rows = {place: row for row, place in enumerate(places)}
    return torch.tensor([rows.get(place ^ 1, row) for place, row in rows.items()])


class Collator:
    """:func:`collate_clips` with its labels, in a form that travels to worker processes."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels

    def __call__(self, items: Sequence[Segment | Rejected]) -> LoadedBatch:
        """Return the items as one batch."""
        return collate_clips(items, self.labels)


def training_batches(
    corpus: Corpus,
    config: LoaderConfig,
    sample_rate: int,
    *,
    seed: int,
    first_step: int = 0,
    accumulate: int = 1,
    rank: int = 0,
    world_size: int = 1,
    with_labels: bool = False,
) -> Iterator[LoadedBatch]:
    """Yield the endless sequence of one process's training batches, ``accumulate`` per step, from ``first_step`` on.

    The clips of a step are the same however they are divided among processes and accumulated batches, of which there
    must be as many as divide the batch size; see :func:`step_share`.

    Raises:
        DataError: the corpus is empty.
    """
    if not corpus.clips:
        raise DataError(
            f"{corpus.name}: no clip is left to train on; look at --data and the splits that were left out"
        )
    shares = world_size * accumulate

    def batches() -> Iterator[list[ClipDraw]]:
        for draws in step_draws(corpus, config, seed, config.batch_size, first_step):
            for number in range(accumulate):
                yield step_share(draws, rank * accumulate + number, shares)

    dataset = ClipDataset(
        corpus.clips, sample_rate, config.seconds, seed, repeat=config.short_clips == "repeat"
    )
    yield from _loader(dataset, batches(), config.workers, corpus.labels if with_labels else ())


def evaluation_batches(
    clips: Sequence[Clip],
    sample_rate: int,
    *,
    batch_size: int,
    workers: int = 0,
    labels: tuple[str, ...] = (),
) -> Iterator[LoadedBatch]:
    """Yield the clips, whole and once, in batches of like length (clips that are to be windowed are windowed
    before)."""
    by_length = sorted(range(len(clips)), key=lambda index: clips[index].duration)
    draws = [ClipDraw(index, 0) for index in by_length]
    batches = (draws[at : at + batch_size] for at in range(0, len(draws), batch_size))
    yield from _loader(ClipDataset(clips, sample_rate, float("inf"), 0), batches, workers, labels)


def _loader(
    dataset: ClipDataset, batches: Iterator[list[ClipDraw]], workers: int, labels: tuple[str, ...]
) -> Iterator[LoadedBatch]:
    # A DataLoader wants sized samplers in its annotations; an iterator of batches is all that it uses.
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=Collator(labels),
        worker_init_fn=ignore_signals,
        pin_memory=torch.cuda.is_available(),
    )
    with report_lost_workers():
        yield from start_workers(loader)


def start_workers(loader: DataLoader[Any]) -> Iterator[Any]:
    """Return what a loader loads; its worker processes run from now on, and end when this is let go of."""
    items = iter(loader)
    for worker in getattr(items, "_workers", ()):
        # How torch ends a worker that is stuck, and Python one that is left at exit, to wait for it then; and workers
        # ignore SIGTERM.
        worker._popen.terminate = worker._popen.kill
    return items


def ignore_signals(worker: int) -> None:
    """Have a worker ignore the signals that a terminal or a scheduler sends to all processes at once: the process
    that it works for says when it ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
