"""Read folders, CSV files and shards as one :class:`Corpus`, and write a corpus as a CSV file."""

import csv
import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from melpatch.atomic import written_aside
from melpatch.audio.byte_range import ByteRange
from melpatch.audio.sound_file import Source
from melpatch.counted import counted
from melpatch.data.clip import Clip
from melpatch.data.columns import ColumnNames
from melpatch.data.corpus import Corpus, Rejected, label_matrix
from melpatch.data.decoding import Decoding
from melpatch.data.file_names import is_text, path_text
from melpatch.data.listing import read_table
from melpatch.data.missing_shards import unavailable_rows
from melpatch.data.packed import packed
from melpatch.data.parquet import is_parquet
from melpatch.data.repeats import distinct_keys, without_repeats
from melpatch.data.row import COLUMNS, GROUP, LABEL, PACKED_COLUMNS, SPLIT, Row
from melpatch.data.scan import Probed, scan
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
    clips = tuple(clip for part in parts for clip in part.clips)
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
    results = _probe_rows(listed, workers, decoding)
    keys = distinct_keys(name, listed)
    good: list[Clip] = []
    bad = [*malformed]
    lines: list[int] = []
    rates: Counter[int] = Counter()
    for key, row, result in zip(keys, listed, results, strict=True):
        entries: list[Clip | Rejected] = [_clip(key, row, result)]
        if decoding is not None and isinstance(result, Probed):
            entries = decoding.clips(entries[0], row, result, name)
        for entry in entries:
            if isinstance(entry, Rejected):
                bad.append(entry)
            else:
                good.append(entry)
                lines.append(row.line)
                if isinstance(result, Probed):
                    rates[result.sample_rate] += 1
    if not good:
        problem = "lists no sound files"
        if bad:
            example = f"the first, {bad[0].path}, {bad[0].reason}"
            problem = f"none of its {counted(len(bad), 'file')} can be used; {example}"
        if malformed:
            problem = f"none of its lines can be used; {bad[0].path}: {bad[0].reason}"
        fix = "give a folder that holds sound, or a CSV of it"
        raise DataError(f"{source}: {problem}; {fix}")
    if malformed:
        example = f"{malformed[0].path}: {malformed[0].reason}"
        notice(f"{source}: {len(malformed)} lines are malformed and left out, such as {example}")
    return _corpus(name, without_repeats(good, source, lines), tuple(bad)), rates


def _corpus(name: str, clips: tuple[Clip, ...], rejected: tuple[Rejected, ...]) -> Corpus:
    labels = tuple(sorted({label for clip in clips for label in clip.labels}))
    return Corpus(name, clips, labels, any(len(clip.labels) > 1 for clip in clips), rejected)


def _probe_rows(
    listed: Sequence[Row], workers: int, decoding: Decoding | None
) -> list[Probed | AudioError | None]:
    """Read the files of rows, each file once; find shards that are missing.

    Headers are read of rows without duration only. With ``decoding``, all rows are decoded but
    those of remote shards, which would have to be fetched.
    """
    whole = decoding is not None
    errors = unavailable_rows(listed)
    sources: dict[int, Source] = {}
    for number, row in enumerate(listed):
        if row.size:
            # Shards of melpatch state lengths; those on servers are not fetched to be checked.
            wanted = row.duration is None or (whole and not row.url)
            if wanted and number not in errors:
                sources[number] = _packed(row)
        elif row.duration is None or whole:
            sources[number] = row.path
    files = [*dict.fromkeys(sources.values())]
    probed = dict(zip(files, scan(files, workers, whole=whole), strict=True))
    return [
        probed[sources[number]] if number in sources else errors.get(number)
        for number in range(len(listed))
    ]


def _packed(row: Row) -> ByteRange:
    """Return the bytes of a clip in a local shard."""
    unit = "row" if is_parquet(row.path) else "byte"
    name = f"{path_text(row.path)}[at {unit} {row.offset}]"
    return packed(row.path, row.offset, row.size, row.crc32, name)


def _clip(key: int, row: Row, result: Probed | AudioError | None) -> Clip | Rejected:
    """Return the clip of a row, or the reason why it is left out."""
    duration = row.duration or 0.0
    if isinstance(result, Probed) and not duration:
        duration = result.duration - row.start
    within = row.offset, row.size, row.crc32, row.url
    clip = Clip(row.path, key, row.start, duration, row.labels, row.split, row.group, *within)
    if isinstance(result, AudioError):
        return Rejected(clip.location, result.reason)
    if duration <= 0:
        return Rejected(clip.location, f"starts at {row.start} s, beyond its end")
    return clip


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
