"""Read folders, CSV files and shards as one :class:`Corpus`, and write a corpus as a CSV file."""

import csv
import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from melpatch.atomic import written_aside
from melpatch.counted import counted
from melpatch.data.clip import Clip
from melpatch.data.clip_columns import ClipColumns
from melpatch.data.columns import ColumnNames
from melpatch.data.corpus import Corpus, Rejected, label_matrix
from melpatch.data.decoding import Decoding
from melpatch.data.file_names import is_text, path_text
from melpatch.data.listing import read_table
from melpatch.data.probing import Probes, probe_rows
from melpatch.data.repeats import distinct_keys, without_repeats
from melpatch.data.row import COLUMNS, GROUP, LABEL, PACKED_COLUMNS, SPLIT, Row
from melpatch.data.row_columns import RowColumns
from melpatch.data.sources import dataset_name, read_source, source_name
from melpatch.data.tables import header_of
from melpatch.errors import AudioError, DataError
from melpatch.faults import remedy
from melpatch.opening import open_text
from melpatch.progress import notice
from melpatch.unchanged import is_unchanged, note_digest

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
    group_column: str = GROUP,
    datasets: Sequence[str] | None = None,
    workers: int = 0,
) -> Corpus:
    """Return the union of folders, CSV files and shards as one corpus.

    A *folder* is searched recursively; the first sub-folder on the path of a file is its label.
    Hidden files and files with extensions of other formats are skipped. Folders of splits that hold
    folders of classes, one level more, and a table on top are recognised, see
    :mod:`melpatch.data.layouts`.

    A *CSV file* has a column ``path`` (absolute, or relative to the file's folder), and may have
    ``label`` (several are separated by semicolons), ``split``, ``start``, ``duration`` or ``end``
    (seconds) and ``key``. Only files of rows without duration and end are probed. The column
    ``group`` names the recording, speaker or patient that a clip belongs to. Usual other names of
    columns and splits are recognised; what was recognised, and what is not used, is reported. The
    NPZ and Parquet files that ``embed`` and ``predict`` write are read alike.

    A *folder of shards* is one that ``melpatch pack`` wrote, or its URL. Clips of shards that are
    missing or truncated are left out, like bad files.

    Args:
        sources: folders, CSV files, and URLs of folders of shards.
        split_column: column of splits or folds in CSV files.
        label_column: column of labels in CSV files.
        group_column: column of groups in CSV files.
        datasets: for each source the name from which the keys of its clips are made; by default
            that of its folder.
        workers: worker processes that probe files; 0: probe in this process.

    Raises:
        DataError: a source is missing, malformed or empty; all its files are bad; or a clip is
            listed twice with different labels.
    """
    return load_with_rates(
        sources,
        split_column=split_column,
        label_column=label_column,
        group_column=group_column,
        datasets=datasets,
        workers=workers,
    )[0]


def load_with_rates(
    sources: Sequence[str | Path],
    *,
    split_column: str = SPLIT,
    label_column: str = LABEL,
    group_column: str = GROUP,
    datasets: Sequence[str] | None = None,
    workers: int = 0,
    decoding: Decoding | None = None,
) -> tuple[Corpus, Counter[int]]:
    """Return a corpus, as :func:`load_corpus`, and the number of probed clips per sampling rate.

    With ``decoding``, files are decoded to their end; it takes what that shows.
    """
    if not sources:
        raise DataError("no source of sound is given; name a folder or a CSV file")
    if datasets is None:
        datasets = [dataset_name(source) for source in sources]
    names = ColumnNames(split_column, label_column, group_column)
    parts: list[Corpus] = []
    rates: Counter[int] = Counter()
    with _no_garbage_collection():
        for source, dataset in zip(sources, datasets, strict=True):
            listing = read_source(source, names)
            for remark in listing.remarks:
                notice(remark)
            part, part_rates = corpus_from_rows(
                dataset,
                source,
                listing.rows,
                malformed=listing.rejected,
                workers=workers,
                decoding=decoding,
            )
            parts.append(replace(part, title=source_name(source)))
            rates += part_rates
    if len(parts) == 1:
        return parts[0], rates
    clips = _union([part.clips for part in parts])
    rejected = tuple(file for part in parts for file in part.rejected)
    corpus = _corpus("+".join(part.name for part in parts), without_repeats(clips), rejected)
    return replace(corpus, title="+".join(dict.fromkeys(part.title for part in parts))), rates


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable the garbage collector, which would scan millions of new, live objects repeatedly."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def corpus_from_rows(
    name: str,
    source: str | Path,
    listed: Sequence[Row],
    *,
    malformed: Sequence[Rejected] = (),
    workers: int = 0,
    decoding: Decoding | None = None,
) -> tuple[Corpus, Counter[int]]:
    """Return the rows of one source as a corpus, and the number of probed clips per sampling rate.

    Args:
        name: name of the corpus, from which the keys of its clips are made.
        source: where the rows were read from, for messages.
        listed: the clips; the files of those without duration are probed.
        malformed: lines of the source that are no rows.
        workers: worker processes that probe files; 0: probe in this process.
        decoding: takes what decoding whole files shows; None: only headers are read.

    Raises:
        DataError: there is no row, all files are bad, or a clip is listed twice with different
            labels.
    """
    rows = RowColumns.of(listed)
    probes = probe_rows(rows, workers, whole=decoding is not None)
    keys = distinct_keys(name, rows)
    good: Sequence[Clip]
    if decoding is None:
        good, lines, bad, rates = _sorted_out(rows, keys, probes)
    else:
        good, lines, bad, rates = _decoded(rows, keys, probes, decoding, name)
    bad = [*malformed, *bad]
    if not len(good):
        problem = "lists no sound files"
        if bad:
            example = f"the first, {bad[0].path}, {bad[0].reason}"
            problem = f"none of its {counted(len(bad), 'file')} can be used; {example}"
        if malformed:
            problem = f"none of its lines can be used; {bad[0].path}: {bad[0].reason}"
        fix = "give a folder that holds sound, or a CSV of it"
        if Path(source, "config.toml").is_file():
            fix = f"{source} is a run; {fix}"
        raise DataError(f"{source}: {problem}; {fix}")
    if malformed:
        example = f"{malformed[0].path}: {malformed[0].reason}"
        notice(f"{source}: {len(malformed)} lines are malformed and left out, such as {example}")
    return _corpus(name, without_repeats(good, source, lines), tuple(bad)), rates


_Sorted = tuple[Sequence[Clip], Int[np.ndarray, " clip"], list[Rejected], Counter[int]]
"""Clips, their lines in the table, rows that are left out, and probed clips per sampling rate."""


def _sorted_out(rows: RowColumns, keys: Int[np.ndarray, " row"], probes: Probes) -> _Sorted:
    """Return the clips of rows, and the rows that are left out."""
    durations = np.nan_to_num(rows.clips.durations, nan=0.0)
    probed = (probes.rates > 0) & (durations == 0)
    durations = np.where(probed, probes.seconds - rows.clips.starts, durations)
    clips = replace(rows.clips, keys=keys, durations=durations)
    is_good = durations > 0
    is_good[[*probes.errors]] = False
    bad = [_reason(clips[n], probes.errors.get(n)) for n in np.flatnonzero(~is_good).tolist()]
    rates = Counter(probes.rates[is_good & (probes.rates > 0)].tolist())
    if not bad:
        return clips, rows.lines, bad, rates
    return clips.take(is_good), rows.lines[is_good], bad, rates


def _decoded(
    rows: RowColumns, keys: Int[np.ndarray, " row"], probes: Probes, decoding: Decoding, name: str
) -> _Sorted:
    """Return the clips of rows whose files were decoded, and the rows that are left out."""
    good: list[Clip] = []
    bad: list[Rejected] = []
    lines: list[int] = []
    rates: Counter[int] = Counter()
    for number, (key, row) in enumerate(zip(keys.tolist(), rows, strict=True)):
        result = probes.decoded.get(number)
        duration = row.duration or 0.0
        if result is not None and not duration:
            duration = result.duration - row.start
        within = row.offset, row.size, row.crc32, row.url
        clip = Clip(row.path, key, row.start, duration, row.labels, row.split, row.group, *within)
        error = probes.errors.get(number)
        entries: list[Clip | Rejected] = [clip]
        if error is not None or duration <= 0:
            entries = [_reason(clip, error)]
        if result is not None:
            entries = decoding.clips(entries[0], row, result, name)
        for entry in entries:
            if isinstance(entry, Rejected):
                bad.append(entry)
            else:
                good.append(entry)
                lines.append(row.line)
                if result is not None:
                    rates[result.sample_rate] += 1
    return tuple(good), np.array(lines, np.int64), bad, rates


def _reason(clip: Clip, error: AudioError | None) -> Rejected:
    """Return why a clip is left out: for an error of its file, or since it is beyond its end."""
    if error is not None:
        return Rejected(clip.location, error.reason)
    return Rejected(clip.location, f"starts at {clip.start} s, beyond its end")


def _union(parts: Sequence[Sequence[Clip]]) -> Sequence[Clip]:
    """Return the clips of several sources, as columns if all are."""
    columns = [part for part in parts if isinstance(part, ClipColumns)]
    if len(columns) == len(parts):
        return ClipColumns.joined(columns)
    return tuple(clip for part in parts for clip in part)


def _corpus(name: str, clips: Sequence[Clip], rejected: tuple[Rejected, ...]) -> Corpus:
    sets: Iterable[tuple[str, ...]] = (clip.labels for clip in clips)
    if isinstance(clips, ClipColumns):
        sets = clips.used_label_sets()
    sets = {*sets}
    labels = tuple(sorted({label for labels in sets for label in labels}))
    return Corpus(name, clips, labels, any(len(labels) > 1 for labels in sets), rejected)


def write_corpus(corpus: Corpus, path: Path, *, noted: bool = False) -> None:
    """Write a corpus as a CSV file, with keys, so that reading it back opens no sound file.

    Files below the CSV file's folder have relative paths, so that they can move together. The
    digest of the CSV file is noted beside it on request.
    """
    folder = path.absolute().parent
    columns: tuple[str, ...] = COLUMNS
    if any(clip.size for clip in corpus.clips):
        columns = (*COLUMNS, *PACKED_COLUMNS)
    lines = (csv_cells(clip, folder)[: len(columns)] for clip in corpus.clips)
    write_table(path, columns, lines, noted=noted)


def is_own_corpus(path: Path, corpus: Corpus | None) -> bool:
    """Return whether a CSV file is one of :func:`write_corpus` that holds no work of the user.

    Work is a label, split or group other than in the corpus, or a clip that the corpus lacks though
    its file is there: the list of another corpus. So is any other change, if a digest was noted.

    Args:
        path: an existing file.
        corpus: what is to replace it; None: only the columns are looked at.
    """
    try:
        header = header_of(path)
        if header not in ([*COLUMNS], [*COLUMNS, *PACKED_COLUMNS]):
            return False
        if corpus is None:
            return True
        if is_unchanged(path) is False:
            return False
        rows = read_table(path, ColumnNames()).rows
    except DataError:
        return False
    clips = {clip.key: clip for clip in corpus.clips}
    rejected = {file.path for file in corpus.rejected}
    for row in rows:
        clip = clips.get(row.key or 0)
        if clip is None:
            if row.path.exists() and path_text(row.path) not in rejected:
                return False
        elif (clip.labels, clip.split, clip.group) != (row.labels, row.split, row.group):
            return False
    return True


def csv_cells(clip: Clip, folder: Path) -> tuple[str, ...]:
    """Return a clip as the cells of a CSV file in a folder, in the order of the columns."""
    path = clip.path
    if path.is_relative_to(folder) and is_text(str(path)):
        path = path.relative_to(folder)
    about = (
        ";".join(clip.labels),
        clip.split,
        repr(clip.start),
        repr(clip.duration),
        str(clip.key),
        clip.group,
    )
    packed = ("", "", "")
    if clip.size:
        packed = (str(clip.offset), str(clip.size), str(clip.crc32))
    return (clip.url or path_text(path), *about, *packed)


REJECTED_HEADER = "path,reason"
"""The first line of a list of files that were left out."""


def write_rejected(rejected: Sequence[Rejected], path: Path) -> None:
    """Write the files that were left out as a CSV file with the columns ``path`` and ``reason``."""
    write_table(path, REJECTED_HEADER.split(","), [(file.path, file.reason) for file in rejected])


def read_rejected(path: Path) -> tuple[Rejected, ...]:
    """Return the files that were left out, as :func:`write_rejected` wrote them."""
    with open_text(path) as file:
        return tuple(Rejected(row["path"], row["reason"]) for row in csv.DictReader(file))


def write_table(
    path: Path, header: Sequence[str], lines: Iterable[Sequence[str]], *, noted: bool = False
) -> None:
    """Write a CSV file atomically.

    Args:
        path: the file.
        header: names of the columns.
        lines: the cells of each line.
        noted: whether its digest stands in a file beside it, which shows later changes.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        with written_aside(path) as aside:
            with aside.open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(header)
                writer.writerows(lines)
            if noted:
                note_digest(path, aside)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); {remedy(error)}") from error
