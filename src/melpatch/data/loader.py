"""From clips to batches: order, crops and labels are functions of (seed, clip, epoch) alone.

They do not depend on the number of workers. A clip that cannot be read during training is left out
of its batch, counted and reported; the run stops when too large a share of the corpus is bad.
"""

import itertools
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch.utils.data import DataLoader, Dataset

from melpatch.config import check, check_batch_size, check_workers
from melpatch.data.clip import PARTNERS, Batch, Clip
from melpatch.data.clip_columns import durations_of, keys_of
from melpatch.data.limits import require_batch, require_workers
from melpatch.data.manifest import Corpus, Rejected, label_matrix
from melpatch.data.packed import shard_numbers
from melpatch.data.ranges import shards_to_fetch_whole
from melpatch.data.remote import fetch
from melpatch.data.segments import crop
from melpatch.data.sound import decode
from melpatch.errors import AudioError, DataError, UnreachableError, report_lost_workers
from melpatch.machine import stop_signals
from melpatch.rng import integers, permutation, stream, uniform

# Entries of the training order that are made at a time.
_NUMBERS = 1 << 14

Segment = tuple[Clip, Float[np.ndarray, " _"]]
"""A clip and its samples."""
Item = Segment | Rejected | UnreachableError
"""A segment, a clip that cannot be read, or why one could not be fetched."""


class ClipDraw(NamedTuple):
    """One entry of the training order: the index of a clip, and the epoch that seeds its crop.

    With balanced sampling, ``epoch`` is the number of the draw instead.
    """

    clip: int
    epoch: int


@dataclass(frozen=True)
class LoadedBatch:
    """A batch, and the clips that could not be read for it."""

    batch: Batch | None
    rejected: tuple[Rejected, ...] = ()
    unreachable: UnreachableError | None = None
    """Why a clip could not be fetched, which is no fault of the clip."""

    def pin_memory(self) -> "LoadedBatch":
        """Return the batch in pinned memory; torch's DataLoader calls this method by name."""
        if self.batch is None:
            return self
        return replace(self, batch=self.batch.pin_memory())


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How clips become batches."""

    batch_size: int = 32
    """Clips per optimiser step, over all ranks and accumulated batches."""
    seconds: float = 10.0
    """Longest segment, in seconds; longer clips are cropped at random."""
    short_clips: Literal["pad", "repeat"] = "pad"
    """Clips shorter than a segment: "pad" (the padding is masked) or "repeat" to fill it."""
    bucket_steps: int = 4
    """Steps whose clips are sorted by length together, to reduce padding; 1: no sorting."""
    workers: int = 2
    """Worker processes that decode clips; 0: decode in the training process."""
    shards_at_once: int | None = None
    """Shards (or row groups of Parquet, or files) mixed at a time; None: the whole corpus."""
    balanced_sampling: bool = False
    """Draw clips with replacement so that all labels occur equally often."""
    max_bad_share: float = 0.01
    """Share of the corpus that may be unreadable before the run stops (one clip always may)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_batch_size(self.batch_size)
        check(self.bucket_steps >= 1, "bucket_steps", self.bucket_steps, "1 or more")
        check(self.seconds > 0, "seconds", self.seconds, "above 0")
        check_workers(self.workers)
        shards = self.shards_at_once
        check(shards is None or shards >= 1, "shards_at_once", shards, "1 or more, or none")
        compatible = not (self.balanced_sampling and shards)
        check(compatible, "shards_at_once", shards, "none, with balanced_sampling")
        check(0 <= self.max_bad_share <= 1, "max_bad_share", self.max_bad_share, "0 to 1")


class ClipDataset(Dataset[Item]):
    """Decoded segments, indexed by :class:`ClipDraw`."""

    def __init__(
        self,
        clips: Sequence[Clip],
        sample_rate: int,
        seconds: float,
        seed: int,
        *,
        repeat: bool = False,
    ) -> None:
        self.clips = clips
        self.sample_rate = sample_rate
        self.seconds = seconds
        self.seed = seed
        self.repeat = repeat
        self.whole = shards_to_fetch_whole(clips)

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, draw: ClipDraw) -> Item:
        clip = crop(self.clips[draw.clip], self.seconds, self.seed, draw.epoch)
        try:
            if clip.url in self.whole:
                fetch(clip.url, clip.path)
            wave = decode(clip, self.sample_rate)
        except UnreachableError as error:
            # Returned, because torch cannot raise an error of three arguments again.
            return error
        except AudioError as error:
            return Rejected(clip.location, error.reason, clip.key)
        if self.repeat and clip.duration < self.seconds:
            state = stream(self.seed, "repeat", torch.tensor([clip.key]), draw.epoch)
            samples = round(self.seconds * self.sample_rate)
            wave = repeat_to_length(wave, samples, uniform(state, 1).item())
        return clip, wave


def repeat_to_length(
    wave: Float[np.ndarray, " sample"], samples: int, start: float
) -> Float[np.ndarray, " _"]:
    """Return a wave repeated to ``samples`` samples, starting at a share ``start`` of its length.

    A wave that is long enough is returned unchanged.
    """
    if len(wave) >= samples:
        return wave
    # np.resize repeats the rolled wave as often as it takes.
    first = int(start * len(wave))
    return np.resize(np.roll(wave, -first), samples)


def training_order(
    corpus: Corpus, config: LoaderConfig, seed: int, first: int
) -> Iterator[ClipDraw]:
    """Yield the endless order of a run from draw number ``first``.

    Each epoch is one seeded permutation of the corpus. With ``shards_at_once``, the shards are
    shuffled, and the shuffled clips of that many shards precede those of the next ones. Balanced
    sampling draws clips with replacement, with weights of the sum of 1 / count over their labels.
    This equals drawing a label, then a clip that has it.
    """
    size = len(corpus.clips)
    # Sorted by key, so that the order does not depend on how the corpus is listed.
    by_key = keys_of(corpus.clips).argsort(kind="stable")
    cumulative = None
    shards = None
    if config.balanced_sampling:
        cumulative = _balance(corpus)[torch.from_numpy(by_key)].cumsum(0)
    elif config.shards_at_once:
        shards = torch.from_numpy(shard_numbers(corpus.clips, by_key))
    for epoch in itertools.count(first // size):
        if cumulative is None:
            indices = permutation(seed, "order", epoch, size)
            if shards is not None and config.shards_at_once:
                indices = _by_shards(indices, shards, config.shards_at_once, seed, epoch)
        else:
            indices = _balanced_draws(cumulative, seed, epoch)
        # Only the first epoch is entered in the middle.
        skip = max(0, first - epoch * size)
        # As Python's numbers a few at a time: an epoch of them would fill the memory.
        for begin in range(skip, size, _NUMBERS):
            some = by_key[indices[begin : begin + _NUMBERS].numpy()].tolist()
            for number, index in enumerate(some, start=epoch * size + begin):
                # A clip may recur within a balanced epoch; the number of the draw varies its crop.
                yield ClipDraw(index, epoch if cumulative is None else number)


def _by_shards(
    indices: torch.Tensor, shards: torch.Tensor, at_once: int, seed: int, epoch: int
) -> torch.Tensor:
    """Sort shuffled indices by the group of shards that they belong to."""
    # argsort of a permutation is its inverse: the rank of each shard in a random order of shards.
    rank = permutation(seed, "shards", epoch, int(shards.max()) + 1).argsort()
    group = rank // at_once
    # A stable sort keeps the shuffled order within each group.
    return indices[group[shards[indices]].argsort(stable=True)]


def _balanced_draws(cumulative: torch.Tensor, seed: int, epoch: int) -> torch.Tensor:
    """Return one epoch of indices, drawn with replacement by inverting their cumulative weights."""
    size = len(cumulative)
    state = stream(seed, "order", torch.zeros(1, dtype=torch.int64), epoch)
    # 53 bits: the 24 bits of `uniform` would never hit most clips of AudioSet's commonest labels.
    # The sampler runs on the CPU, which has float64.
    draws = integers(state, 0, 1 << 53, size)[0].double() * 2.0**-53
    indices = torch.searchsorted(cumulative, draws * cumulative[-1], right=True)
    # A draw just below 1 may round up to the total weight.
    return indices.clamp(max=size - 1)


def step_draws(
    corpus: Corpus, config: LoaderConfig, seed: int, per_step: int, first_step: int
) -> Iterator[list[ClipDraw]]:
    """Yield the draws of each optimiser step from ``first_step``, the same on every rank.

    The order is cut into groups of ``bucket_steps`` steps. Within a group, clips of similar length
    share a step, and the steps are shuffled. This reduces padding, and every clip still occurs once
    per epoch. The clips of a step are in the order of their draws: neighbours are partners in
    mixtures, and clips of one length are often of one corpus.
    """
    # A group is at most an epoch long; otherwise it would contain the same clip twice.
    steps = max(1, min(config.bucket_steps, len(corpus.clips) // per_step))
    first_group = first_step // steps
    durations = durations_of(corpus.clips)
    draws = training_order(corpus, config, seed, first_group * steps * per_step)
    for group in itertools.count(first_group):
        pool = [next(draws) for _ in range(steps * per_step)]
        lengths = [min(durations[draw.clip], config.seconds) for draw in pool]
        by_length = sorted(range(len(pool)), key=lengths.__getitem__)
        shuffled = permutation(seed, "steps", group, steps).tolist()
        # Only the first group is entered in the middle.
        skip = max(0, first_step - group * steps)
        for step in shuffled[skip:]:
            of_step = by_length[step * per_step : (step + 1) * per_step]
            yield [pool[number] for number in sorted(of_step)]


def step_share(draws: Sequence[ClipDraw], number: int, shares: int) -> list[ClipDraw]:
    """Return share ``number`` of a step's draws, for one accumulated batch of one rank.

    Clips that may be mixed with each other stay together, if every share has whole fours or pairs.
    """
    size = next(size for size in (4, 2, 1) if len(draws) % (size * shares) == 0 or size == 1)
    starts = range(number * size, len(draws), shares * size)
    return [draw for start in starts for draw in draws[start : start + size]]


def _balance(corpus: Corpus) -> torch.Tensor:
    """Return the weight of each clip in balanced sampling, in float64."""
    if not all(clip.labels for clip in corpus.clips):
        problem = "--balanced-sampling needs a label on every clip"
        raise DataError(f"{corpus.shown_name}: {problem}; drop the unlabelled clips")
    # A matrix of clips and labels would take 4 GB for the whole of AudioSet.
    counts = Counter(label for clip in corpus.clips for label in clip.labels)
    shares = [sum(1 / counts[label] for label in clip.labels) for clip in corpus.clips]
    return torch.tensor(shares, dtype=torch.float64)


def collate_clips(items: Sequence[Item], labels: tuple[str, ...]) -> LoadedBatch:
    """Pad the readable segments of a batch to the longest; list the unreadable ones."""
    for item in items:
        if isinstance(item, UnreachableError):
            return LoadedBatch(None, unreachable=item)
    return _collate([item for item in items if not isinstance(item, UnreachableError)], labels)


def _collate(items: Sequence[Segment | Rejected], labels: tuple[str, ...]) -> LoadedBatch:
    rejected = tuple(item for item in items if isinstance(item, Rejected))
    segments = [item for item in items if not isinstance(item, Rejected)]
    if not segments:
        return LoadedBatch(None, rejected)
    clips = [clip for clip, _ in segments]
    lengths = [len(wave) for _, wave in segments]
    padded = np.zeros((len(segments), max(lengths)), dtype=np.float32)
    for row, (_, wave) in zip(padded, segments, strict=True):
        row[: len(wave)] = wave
    targets = None
    if labels:
        targets = torch.from_numpy(label_matrix(clips, labels))
    keys = torch.tensor([clip.key for clip in clips])
    waves = torch.from_numpy(padded)
    batch = Batch(waves, torch.tensor(lengths), keys, targets, _partners(items))
    return LoadedBatch(batch, rejected)


def _partners(items: Sequence[Segment | Rejected]) -> torch.Tensor:
    """Return the rows of each readable item's partners, or its own row if these are unreadable."""
    readable = [index for index, item in enumerate(items) if not isinstance(item, Rejected)]
    rows = {index: row for row, index in enumerate(readable)}
    return torch.tensor(
        [[rows.get(index ^ bit, row) for bit in PARTNERS] for index, row in rows.items()]
    )


class Collator:
    """:func:`collate_clips` with its labels, as an object that can be pickled for workers."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels

    def __call__(self, items: Sequence[Item]) -> LoadedBatch:
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
    """Yield the endless training batches of one rank, ``accumulate`` per step, from ``first_step``.

    The clips of a step do not depend on how they are split over ranks and accumulated batches. The
    number of these must divide the batch size; see :func:`step_share`.

    Raises:
        DataError: the corpus is empty.
    """
    if not corpus.clips:
        fix = "look at --data and the splits that were left out"
        raise DataError(f"{corpus.shown_name}: no clip is left to train on; {fix}")
    # Every rank iterates over the same steps and takes its share of each.
    shares = world_size * accumulate
    require_batch(config.batch_size // shares, config.seconds, sample_rate)

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
    """Yield every clip once, uncropped, in batches of similar length."""
    by_length = sorted(range(len(clips)), key=lambda index: clips[index].duration)
    draws = [ClipDraw(index, 0) for index in by_length]
    batches = (draws[start : start + batch_size] for start in range(0, len(draws), batch_size))
    yield from _loader(ClipDataset(clips, sample_rate, float("inf"), 0), batches, workers, labels)


def _loader(
    dataset: ClipDataset, batches: Iterator[list[ClipDraw]], workers: int, labels: tuple[str, ...]
) -> Iterator[LoadedBatch]:
    require_workers(workers)
    # DataLoader is annotated with sized samplers, but only iterates over them.
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=Collator(labels),
        worker_init_fn=ignore_signals,
        pin_memory=torch.cuda.is_available(),
    )
    with report_lost_workers():
        for loaded in start_workers(loader):
            if loaded.unreachable is not None:
                raise loaded.unreachable
            yield loaded


def start_workers(loader: DataLoader[Any]) -> Iterator[Any]:
    """Start the workers of a DataLoader and return its batches; they end with the iterator."""
    items = iter(loader)
    for worker in getattr(items, "_workers", ()):
        # torch terminates workers that are stuck, and Python those left at exit. Ours ignore
        # SIGTERM, so they are killed instead; otherwise the parent would wait for them forever.
        worker._popen.terminate = worker._popen.kill
    return items


def ignore_signals(worker: int) -> None:
    """Ignore the signals that a terminal or scheduler sends to all processes of a job at once.

    Used in workers, whose parent process decides when they end.
    """
    for number in stop_signals():
        signal.signal(number, signal.SIG_IGN)
