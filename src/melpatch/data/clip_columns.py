"""The clips of a large corpus as columns: a clip takes about 70 bytes until it is asked for."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import SupportsIndex, overload

import numpy as np
from jaxtyping import Bool, Float, Int

from melpatch.audio.files import Channel
from melpatch.data.clip import Clip
from melpatch.data.texts import Texts

# Clips that are made at a time when all are read.
_BLOCK = 1024


@dataclass(frozen=True, eq=False, repr=False)
class ClipColumns(Sequence[Clip]):
    """Clips, made when they are asked for; in all else like a tuple of them.

    What many clips share (a file, labels, a split, a group) is stored once, and numbered.

    Attributes:
        files: paths of the files.
        urls: where remote files are fetched from, by the number of the file.
        file: number of each clip's file.
        keys: the key of each clip.
        starts: in seconds.
        durations: in seconds.
        label_sets: the different sets of labels.
        label_set: number of each clip's labels.
        splits: the different splits.
        split: number of each clip's split.
        groups: the different groups.
        group: number of each clip's group.
        packed: offset, size and checksum of clips in shards; None where all are files.
        channel: what is taken of several channels.
    """

    files: Texts
    urls: Mapping[int, str]
    file: Int[np.ndarray, " clip"]
    keys: Int[np.ndarray, " clip"]
    starts: Float[np.ndarray, " clip"]
    durations: Float[np.ndarray, " clip"]
    label_sets: tuple[tuple[str, ...], ...]
    label_set: Int[np.ndarray, " clip"]
    splits: tuple[str, ...]
    split: Int[np.ndarray, " clip"]
    groups: tuple[str, ...]
    group: Int[np.ndarray, " clip"]
    packed: Int[np.ndarray, "clip 3"] | None = None
    channel: Channel = field(default="mean")

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, number: SupportsIndex) -> Clip: ...
    @overload
    def __getitem__(self, number: slice) -> "ClipColumns": ...
    def __getitem__(self, number: SupportsIndex | slice) -> "Clip | ClipColumns":
        if isinstance(number, slice):
            return self.take(np.arange(len(self))[number])
        number = range(len(self))[number]
        (clip,) = self._made(number, number + 1)
        return clip

    def __iter__(self) -> Iterator[Clip]:
        for first in range(0, len(self), _BLOCK):
            yield from self._made(first, first + _BLOCK)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClipColumns | tuple):
            return NotImplemented
        return len(self) == len(other) and all(
            ours == theirs for ours, theirs in zip(self, other, strict=True)
        )

    def __hash__(self) -> int:
        return hash((*self,))

    def __repr__(self) -> str:
        return f"ClipColumns({[*self]!r})"

    def __add__(self, other: Iterable[Clip]) -> tuple[Clip, ...]:
        return *self, *other

    def __radd__(self, other: Iterable[Clip]) -> tuple[Clip, ...]:
        return *other, *self

    def _made(self, first: int, last: int) -> Iterator[Clip]:
        """Yield the clips from number ``first`` to before ``last``."""
        part = slice(first, last)
        packed = [[0, 0, 0]] * (min(last, len(self)) - first)
        if self.packed is not None:
            packed = self.packed[part].tolist()
        number_of_path, path = -1, Path()
        columns = (
            self.file[part].tolist(),
            self.keys[part].tolist(),
            self.starts[part].tolist(),
            self.durations[part].tolist(),
            self.label_set[part].tolist(),
            self.split[part].tolist(),
            self.group[part].tolist(),
        )
        rows = zip(*columns, strict=True)
        for row, (offset, size, crc32) in zip(rows, packed, strict=True):
            file, key, start, duration, labels, split, group = row
            # Successive clips often share a file.
            if file != number_of_path:
                number_of_path, path = file, Path(self.files[file])
            yield Clip(
                path,
                key,
                start,
                duration,
                self.label_sets[labels],
                self.splits[split],
                self.groups[group],
                offset,
                size,
                crc32,
                self.urls.get(file, ""),
                self.channel,
            )

    def take(self, numbers: Int[np.ndarray, " _"] | Bool[np.ndarray, " _"]) -> "ClipColumns":
        """Return the clips of these numbers, in their order, or those where a mask is true."""
        return replace(
            self,
            file=self.file[numbers],
            keys=self.keys[numbers],
            starts=self.starts[numbers],
            durations=self.durations[numbers],
            label_set=self.label_set[numbers],
            split=self.split[numbers],
            group=self.group[numbers],
            packed=None if self.packed is None else self.packed[numbers],
        )

    def used_label_sets(self) -> list[tuple[str, ...]]:
        """Return the sets of labels that some clip has."""
        return [self.label_sets[number] for number in np.unique(self.label_set)]

    def split_counts(self) -> Counter[str]:
        """Return the number of clips of each split that some clip has."""
        counts: Counter[str] = Counter()
        for name, count in zip(self.splits, np.bincount(self.split).tolist(), strict=False):
            if count:
                counts[name] += count
        return counts

    def in_splits(self, names: Iterable[str]) -> Bool[np.ndarray, " clip"]:
        """Return which clips belong to one of these splits."""
        wanted = {*names}
        is_wanted: np.ndarray = np.array([name in wanted for name in self.splits], bool)
        mask: np.ndarray = is_wanted[self.split]
        return mask

    @classmethod
    def joined(cls, parts: Sequence["ClipColumns"]) -> "ClipColumns":
        """Return the clips of all parts, one part after the other; they are on the same channel."""
        first_file = _starts([len(part.files) for part in parts])
        packed = None
        if any(part.packed is not None for part in parts):
            packed = np.concatenate(
                [
                    np.zeros((len(part), 3), np.int64) if part.packed is None else part.packed
                    for part in parts
                ]
            )
        label_sets = _starts([len(part.label_sets) for part in parts])
        splits = _starts([len(part.splits) for part in parts])
        groups = _starts([len(part.groups) for part in parts])
        return cls(
            Texts.joined([part.files for part in parts]),
            {
                first + number: url
                for first, part in zip(first_file, parts, strict=True)
                for number, url in part.urls.items()
            },
            _shifted([part.file for part in parts], first_file),
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.starts for part in parts]),
            np.concatenate([part.durations for part in parts]),
            tuple(labels for part in parts for labels in part.label_sets),
            _shifted([part.label_set for part in parts], label_sets),
            tuple(name for part in parts for name in part.splits),
            _shifted([part.split for part in parts], splits),
            tuple(name for part in parts for name in part.groups),
            _shifted([part.group for part in parts], groups),
            packed,
            parts[0].channel,
        )


def _starts(lengths: Sequence[int]) -> list[int]:
    """Return where parts of these lengths begin."""
    return [sum(lengths[:number]) for number in range(len(lengths))]


def _shifted(columns: Sequence[np.ndarray], starts: Sequence[int]) -> np.ndarray:
    shifted = [column + start for column, start in zip(columns, starts, strict=True)]
    return np.concatenate(shifted).astype(np.int32, copy=False)


def chosen(clips: Sequence[Clip], numbers: Int[np.ndarray, " _"]) -> Sequence[Clip]:
    """Return the clips of these numbers, as columns if they are columns."""
    if isinstance(clips, ClipColumns):
        return clips.take(numbers)
    return tuple(clips[number] for number in numbers.tolist())


def keys_of(clips: Sequence[Clip]) -> Int[np.ndarray, " clip"]:
    """Return the keys of clips."""
    if isinstance(clips, ClipColumns):
        return clips.keys
    return np.array([clip.key for clip in clips], np.int64)


def durations_of(clips: Sequence[Clip]) -> Float[np.ndarray, " clip"]:
    """Return the lengths of clips, in seconds."""
    if isinstance(clips, ClipColumns):
        return clips.durations
    return np.array([clip.duration for clip in clips], np.float64)


def contents_of(clips: Sequence[Clip]) -> Iterator[tuple[int, float, float, tuple[str, ...]]]:
    """Yield key, start, duration and labels of each clip."""
    if not isinstance(clips, ClipColumns):
        yield from ((clip.key, clip.start, clip.duration, clip.labels) for clip in clips)
        return
    labels = (clips.label_sets[number] for number in clips.label_set)
    times = clips.starts.tolist(), clips.durations.tolist()
    yield from zip(clips.keys.tolist(), *times, labels, strict=True)


def used_labels(clips: Sequence[Clip]) -> set[str]:
    """Return the labels that some clip has."""
    sets: Iterable[tuple[str, ...]] = (clip.labels for clip in clips)
    if isinstance(clips, ClipColumns):
        sets = clips.used_label_sets()
    return {label for labels in sets for label in labels}
