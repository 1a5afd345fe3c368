"""Corpora in and out: the union of folders, CSV files and shards becomes a :class:`Corpus`, and a corpus a CSV file."""

import csv
import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from melpatch.atomic import written_aside
from melpatch.data.clip import Clip, clip_key
from melpatch.data.corpus import Corpus, Rejected, label_matrix
from melpatch.data.missing_shards import unavailable_rows
from melpatch.data.scan import Probed, scan
from melpatch.data.sources import COLUMNS, LABEL, PACKED_COLUMNS, SPLIT, Row, dataset_name, rows
from melpatch.errors import AudioError, DataError

__all__ = [
    "Corpus",
    "Rejected",
    "corpus_from_rows",
    "label_matrix",
    "load_corpus",
    "load_with_rates",
    "write_corpus",
    "write_rejected",
]


def load_corpus(
    sources: Sequence[str | Path],
    *,
    split_column: str = SPLIT,
    label_column: str = LABEL,
    workers: int = 0,
) -> Corpus:
    """Return the union of folders, CSV files and shards as one corpus.

    A *folder* is searched with all its sub-folders; the first one on the way to a file is its label. Hidden files are
    passed over, and files whose ending says that they are not sound.

    A *CSV file* has a column ``path`` (absolute, or relative to the file's folder), and may have ``label`` (several are
    parted by semicolons), ``split``, ``start`` and ``duration`` (seconds) and ``key``. A row with a duration is
    believed; the others are probed. The column ``group``, or ``speaker`` where there is none, tells what recording,
    speaker or patient a clip belongs to.

    A *folder of shards*, or its URL, has been written by ``melpatch pack``. Clips of shards that are missing or cut
    short are left out as bad files are.

    Args:
        sources: folders, CSV files, and URLs of folders of shards.
        split_column: the CSV files' column of splits or folds.
        label_column: the CSV files' column of labels.
        workers: processes that probe files; 0 probes in this one.

    Raises:
        DataError: a source is missing, malformed or empty; all its files are bad; or a clip is listed twice.
    """
    return load_with_rates(
        sources, split_column=split_column, label_column=label_column, workers=workers
    )[0]


def load_with_rates(
    sources: Sequence[str | Path],
    *,
    split_column: str = SPLIT,
    label_column: str = LABEL,
    workers: int = 0,
) -> tuple[Corpus, Counter[int]]:
    """Return a corpus as :func:`load_corpus` does, and the number of probed clips at each sampling rate."""
    if not sources:
        raise DataError("no source of sound is given; name a folder or a CSV file")
    parts: list[Corpus] = []
    rates: Counter[int] = Counter()
    with _uncollected():
        for source in sources:
            listed = [*rows(source, split_column=split_column, label_column=label_column)]
            part, found = corpus_from_rows(dataset_name(source), source, listed, workers=workers)
            parts.append(part)
            rates += found
    if len(parts) == 1:
        return parts[0], rates
    clips = tuple(clip for part in parts for clip in part.clips)
    rejected = tuple(each for part in parts for each in part.rejected)
    return _corpus("+".join(part.name for part in parts), clips, rejected), rates


@contextmanager
def _uncollected() -> Iterator[None]:
    """Do without the garbage collector, which would look through millions of new objects again and again, none of them
    garbage."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def corpus_from_rows(
    name: str, source: str | Path, listed: Sequence[Row], *, workers: int = 0
) -> tuple[Corpus, Counter[int]]:
    """Return the rows of one source as a corpus, and the number of probed clips at each sampling rate.

    Args:
        name: the corpus's name, from which its clips get their keys.
        source: what the rows were read from, for messages.
        listed: the clips; files are probed for those that state no duration.
        workers: processes that probe files; 0 probes in this one.

    Raises:
        DataError: there is no row, all files are bad, or a clip is listed twice.
    """
    found = _probe_rows(listed, workers)
    made = [_clip(name, row, probed) for row, probed in zip(listed, found, strict=True)]
    good = tuple(each for each in made if isinstance(each, Clip))
    bad = tuple(each for each in made if isinstance(each, Rejected))
    if not good:
        first = (
            f"none of its {len(bad)} files can be used; the first, {bad[0].path}, {bad[0].reason}"
            if bad
            else ""
        )
        raise DataError(
            f"{source}: {first or 'lists no sound files'}; give a folder that holds sound, or a CSV of it"
        )
    return _corpus(name, good, bad), Counter(
        probed.sample_rate for probed in found if isinstance(probed, Probed)
    )


def _corpus(name: str, clips: tuple[Clip, ...], rejected: tuple[Rejected, ...]) -> Corpus:
    _refuse_doubles(clips)
    labels = tuple(sorted({label for clip in clips for label in clip.labels}))
    return Corpus(name, clips, labels, any(len(clip.labels) > 1 for clip in clips), rejected)


def _probe_rows(listed: Sequence[Row], workers: int) -> list[Probed | AudioError | None]:
    """Probe each file once, however many rows lie in it, and none whose rows all state their durations; look whether
    the shards are there."""
    paths = [*dict.fromkeys(row.path for row in listed if row.duration is None)]
    found = dict(zip(paths, scan(paths, workers), strict=True))
    lost = unavailable_rows(listed)
    return [
        found[row.path] if row.duration is None else lost.get(number)
        for number, row in enumerate(listed)
    ]


def _clip(dataset: str, row: Row, found: Probed | AudioError | None) -> Clip | Rejected:
    try:
        str(row.path).encode()
    except UnicodeEncodeError:
        return Rejected(ascii(str(row.path)), "has a name that is not UTF-8")
    key = clip_key(dataset, row.name, row.start) if row.key is None else row.key
    duration = row.duration or (found.duration - row.start if isinstance(found, Probed) else 0.0)
    packed = row.offset, row.size, row.crc32, row.url
    clip = Clip(row.path, key, row.start, duration, row.labels, row.split, row.group, *packed)
    if isinstance(found, AudioError):
        return Rejected(clip.location, found.reason)
    if duration <= 0:
        return Rejected(clip.location, f"starts at {row.start} s, beyond its end")
    return clip


def _refuse_doubles(clips: Iterable[Clip]) -> None:
    """Refuse a clip that is listed twice: which labels and split it has would be chance, and it would count double."""
    places: set[tuple[str, int, float]] = set()
    keys: dict[int, Clip] = {}
    for clip in clips:
        place = str(clip.path), clip.offset, clip.start
        if place in places:
            hint = "keep one row, with several labels as 'a;b', or drop the source that lies within another"
            raise DataError(f"{clip.location}: listed twice, from {clip.start} s; {hint}")
        places.add(place)
        if other := keys.get(clip.key):
            hint = "rename one of their folders, or correct the column 'key'"
            raise DataError(
                f"{clip.location} and {other.location} have the same key, {clip.key}; {hint}"
            )
        keys[clip.key] = clip


def write_corpus(corpus: Corpus, path: Path) -> None:
    """Write a corpus as a CSV file that :func:`load_corpus` reads back, keys included, without opening a sound file.

    Files below the CSV file's folder are named relative to it, so that the two can move together.
    """
    folder = path.absolute().parent
    columns = (*COLUMNS, *PACKED_COLUMNS) if any(clip.size for clip in corpus.clips) else COLUMNS
    write_table(path, columns, (csv_cells(clip, folder)[: len(columns)] for clip in corpus.clips))


def csv_cells(clip: Clip, folder: Path) -> tuple[str, ...]:
    """Return a clip as the cells of a CSV file in a folder, in the order of the columns."""
    place = clip.path.relative_to(folder) if clip.path.is_relative_to(folder) else clip.path
    about = (
        ";".join(clip.labels),
        clip.split,
        repr(clip.start),
        repr(clip.duration),
        str(clip.key),
        clip.group,
    )
    packed = (str(clip.offset), str(clip.size), str(clip.crc32)) if clip.size else ("", "", "")
    return (clip.url or str(place), *about, *packed)


def write_rejected(rejected: Sequence[Rejected], path: Path) -> None:
    """Write the files that a corpus does without as a CSV file with the columns ``path`` and ``reason``."""
    write_table(path, ("path", "reason"), [(each.path, each.reason) for each in rejected])


def read_rejected(path: Path) -> tuple[Rejected, ...]:
    """Return what :func:`write_rejected` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(Rejected(**row) for row in csv.DictReader(file))


def write_table(path: Path, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    """Write a CSV file aside, and move it to its place when it is whole.

    Raises:
        DataError: it cannot be written.
    """
    try:
        with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(lines)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from error
