"""A corpus: the clips that folders and CSV files list, their closed set of labels, and the files that were no good."""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from melpatch.data.clip import Clip, clip_key
from melpatch.data.scan import Probed, scan
from melpatch.data.sources import COLUMNS, LABEL, SPLIT, Row, dataset_name, rows
from melpatch.errors import AudioError, DataError


@dataclass(frozen=True)
class Rejected:
    """A file that a corpus does without, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """Clips and what is known of them together.

    Attributes:
        name: the names of the sources, joined by ``+``.
        clips: in the order of the sources; folders are sorted.
        labels: all labels of all splits, sorted.
        multi_label: whether some clip has more than one label.
        rejected: what was left out.
    """

    name: str
    clips: tuple[Clip, ...]
    labels: tuple[str, ...]
    multi_label: bool
    rejected: tuple[Rejected, ...] = ()

    @property
    def splits(self) -> dict[str, int]:
        """The number of clips of each split, sorted by its name; ``""`` stands for none."""
        return dict(sorted(Counter(clip.split for clip in self.clips).items()))

    def select(self, splits: Iterable[str]) -> "Corpus":
        """Return the clips of some splits; the labels stay those of the whole corpus.

        Raises:
            DataError: no clip stands in one of the splits.
        """
        wanted = self._known(splits)
        return replace(self, clips=tuple(clip for clip in self.clips if clip.split in wanted))

    def without(self, splits: Iterable[str]) -> "Corpus":
        """Return the clips of all other splits; the labels stay those of the whole corpus.

        Raises:
            DataError: no clip stands in one of the splits, so that nothing would be held out.
        """
        unwanted = self._known(splits)
        return replace(self, clips=tuple(clip for clip in self.clips if clip.split not in unwanted))

    def _known(self, splits: Iterable[str]) -> set[str]:
        asked = {splits} if isinstance(splits, str) else set(splits)
        unknown = sorted(asked - set(self.splits))
        if unknown:
            there = ", ".join(f"{split or '(none)'} ({count} clips)" for split, count in self.splits.items())
            raise DataError(f"{self.name}: no split {unknown[0]!r}; there are: {there or 'no clips'}")
        return asked


def load_corpus(
    sources: Sequence[str | Path], *, split_column: str = SPLIT, label_column: str = LABEL, workers: int = 0
) -> Corpus:
    """Return the union of folders and CSV files as one corpus.

    A *folder* is searched with all its sub-folders; the first sub-folder on the way to a file is its label. Hidden files,
    and files whose ending says that they are not sound, are passed over.

    A *CSV file* has a column ``path`` (absolute, or relative to the file's folder), and may have ``label`` (several are
    parted by semicolons), ``split``, ``start`` and ``duration`` (seconds) and ``key``. A row with a duration is believed;
    the others are probed.

    Args:
        sources: folders and CSV files.
        split_column: the CSV files' column of splits or folds.
        label_column: the CSV files' column of labels.
        workers: processes that probe files; 0 probes in this one.

    Raises:
        DataError: a source is missing, malformed or empty; all its files are bad; or a clip is listed twice.
    """
    return survey(sources, split_column=split_column, label_column=label_column, workers=workers)[0]


def survey(
    sources: Sequence[str | Path], *, split_column: str = SPLIT, label_column: str = LABEL, workers: int = 0
) -> tuple[Corpus, Counter[int]]:
    """Return a corpus as :func:`load_corpus` does, and the number of probed clips at each sampling rate."""
    if not sources:
        raise DataError("no source of sound is given; name a folder or a CSV file")
    clips: list[Clip] = []
    rejected: list[Rejected] = []
    rates: Counter[int] = Counter()
    for source in map(Path, sources):
        listed = [*rows(source, split_column=split_column, label_column=label_column)]
        if not listed:
            raise DataError(f"{source}: lists no sound files; give a folder that holds some, or a CSV file with rows")
        before, name = len(clips), dataset_name(source)
        for row, found in zip(listed, _probe_rows(listed, workers), strict=True):
            clip = _clip(name, row, found)
            if isinstance(clip, Rejected):
                rejected.append(clip)
            else:
                clips.append(clip)
                rates.update([found.sample_rate] if isinstance(found, Probed) else [])
        if len(clips) == before:
            first = rejected[-len(listed)]
            raise DataError(
                f"{source}: none of its {len(listed)} files can be used; the first, {first.path}, {first.reason}"
            )
    _refuse_doubles(clips)
    labels = tuple(sorted({label for clip in clips for label in clip.labels}))
    multi_label = any(len(clip.labels) > 1 for clip in clips)
    name = "+".join(dataset_name(Path(source)) for source in sources)
    return Corpus(name, tuple(clips), labels, multi_label, tuple(rejected)), rates


def _probe_rows(listed: Sequence[Row], workers: int) -> list[Probed | AudioError | None]:
    """Probe each file once, however many rows lie in it, and none whose rows all state their durations."""
    paths = [*dict.fromkeys(row.path for row in listed if row.duration is None)]
    found = dict(zip(paths, scan(paths, workers), strict=True))
    return [found[row.path] if row.duration is None else None for row in listed]


def _clip(dataset: str, row: Row, found: Probed | AudioError | None) -> Clip | Rejected:
    if isinstance(found, AudioError):
        return Rejected(str(row.path), found.reason)
    duration = row.duration or (found.duration - row.start if found else 0.0)
    if duration <= 0:
        return Rejected(str(row.path), f"starts at {row.start} s, beyond its end")
    try:
        key = clip_key(dataset, row.name, row.start) if row.key is None else row.key
    except UnicodeEncodeError:
        return Rejected(repr(str(row.path)), "has a name that is not UTF-8")
    return Clip(row.path, key, row.start, duration, row.labels, row.split)


def _refuse_doubles(clips: Iterable[Clip]) -> None:
    """Refuse a clip that is listed twice: which labels and split it has would be chance, and it would count double."""
    places: set[tuple[Path, float]] = set()
    keys: dict[int, Clip] = {}
    for clip in clips:
        if (clip.path, clip.start) in places:
            hint = "keep one row, with several labels as 'a;b', or drop the source that lies within another"
            raise DataError(f"{clip.path}: listed twice, from {clip.start} s; {hint}")
        places.add((clip.path, clip.start))
        if other := keys.get(clip.key):
            hint = "rename one of their folders, or correct the column 'key'"
            raise DataError(f"{clip.path} and {other.path} have the same key, {clip.key}; {hint}")
        keys[clip.key] = clip


def label_matrix(clips: Sequence[Clip], labels: Sequence[str]) -> Float[np.ndarray, "clip label"]:
    """Return 1 where a clip has a label and 0 elsewhere, float32.

    Raises:
        DataError: a clip has a label that is not among ``labels``.
    """
    column = {label: index for index, label in enumerate(labels)}
    matrix = np.zeros((len(clips), len(labels)), np.float32)
    for row, clip in zip(matrix, clips, strict=True):
        for label in clip.labels:
            if label not in column:
                raise DataError(
                    f"{clip.path}: label {label!r} is not among the {len(labels)} known; see the column 'label'"
                )
            row[column[label]] = 1
    return matrix


def write_corpus(corpus: Corpus, path: Path) -> None:
    """Write a corpus as a CSV file that :func:`load_corpus` reads back, keys included, without opening a sound file.

    Files below the CSV file's folder are named relative to it, so that the two can move together.
    """
    folder = path.absolute().parent
    _write(path, COLUMNS, [_cells(clip, folder) for clip in corpus.clips])


def _cells(clip: Clip, folder: Path) -> tuple[str, ...]:
    place = clip.path.relative_to(folder) if clip.path.is_relative_to(folder) else clip.path
    return (str(place), ";".join(clip.labels), clip.split, repr(clip.start), repr(clip.duration), str(clip.key))


def write_rejected(rejected: Sequence[Rejected], path: Path) -> None:
    """Write the files that a corpus does without as a CSV file with the columns ``path`` and ``reason``."""
    _write(path, ("path", "reason"), [(each.path, each.reason) for each in rejected])


def _write(path: Path, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    aside = path.with_name(f".{path.name}.part")
    with aside.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    os.replace(aside, path)
