"""List clips from folders of sound, tables, formats of others, and local or remote shards.

Every source is read as rows; no sound file is opened here.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from melpatch.counted import counted
from melpatch.data.columns import ColumnNames
from melpatch.data.corpus import Rejected
from melpatch.data.file_names import path_of_url, readable
from melpatch.data.hub import fetched_dataset, is_hub
from melpatch.data.layouts import is_split_folder, read_folder
from melpatch.data.listing import read_table
from melpatch.data.recognition import files_of
from melpatch.data.remote import is_url, mirror
from melpatch.data.row import COLUMNS, Listing, Row, with_usual_splits
from melpatch.data.shards import is_shard_folder, verified_index
from melpatch.data.tables import ENDINGS, header_of, is_table
from melpatch.errors import DataError
from melpatch.faults import let_pass

# Extensions of other formats, which often lie beside recordings.
_NOT_SOUND = frozenset(
    "bmp cfg csv db doc docx gif gz h5 hdf5 htm html ini ipynb jpeg jpg json jsonl lab log md"  # noqa: SIM905
    " mid midi npy npz parquet pdf pickle pkl png pt py rar rst safetensors sh srt svg tar"
    " textgrid tgz tif tiff toml tsv txt vtt xls xlsx xml yaml yml zip".split()
)
MANIFESTS = tuple(
    name + ending
    for ending in (".csv", ".tsv", ".jsonl", ".parquet")
    for name in ("metadata", "manifest", "labels", "annotations", "meta")
)
"""Usual names of a table on top of a folder, or of a folder of a split, that lists its files."""
_DEEPEST = 2  # folders above it that hold nothing else
_LOOK_AT = 100  # of its rows, one of which must be a file that is there


def dataset_name(source: str | Path) -> str:
    """Return the name of a source's folder, from which the keys of its clips are made."""
    source = _decoded(source)
    if is_url(source):
        return str(source).rstrip("/").rpartition("/")[2]
    folder = Path(source)
    if not folder.is_dir():
        folder = folder.parent
    return readable(folder.resolve().name)


def source_name(source: str | Path) -> str:
    """Return the name of a source in titles: that of a folder, or of a table with its folder."""
    name = dataset_name(source)
    if is_url(source) or Path(source).is_dir():
        return name
    return f"{name}/{Path(source).stem}"


def read_source(
    source: str | Path, names: ColumnNames | None = None, *, whole_folder: bool = False
) -> Listing:
    """Return what a folder, a table, a folder of shards or its URL lists.

    Args:
        source: the folder, file or URL.
        names: the columns that the user named.
        whole_folder: list all files of a folder even if a table lies on top of it.

    Raises:
        DataError: the source does not exist or is malformed.
    """
    source = _decoded(source)
    names = names or ColumnNames()
    if is_url(source):
        dataset = fetched_dataset(str(source)) if is_hub(str(source)) else None
        if dataset is not None:
            return _read_folder(dataset, names, whole_folder=whole_folder)
        folder, url = mirror(str(source))
        return read_table(verified_index(folder, str(source)), names, url)
    source = Path(source)
    if is_shard_folder(source):
        return read_table(verified_index(source), names)
    if source.is_dir():
        return _read_folder(source, names, whole_folder=whole_folder)
    if not source.exists():
        raise DataError(f"{source}: no such folder or CSV file; check the path")
    if not is_table(source):
        fix = f"give the folder that holds the sound, or a table ({', '.join(ENDINGS)})"
        raise DataError(f"{source}: neither a folder nor a table; {fix}")
    return read_table(source, names)


def _decoded(source: str | Path) -> str | Path:
    """Return the path of a file URL with escaped bytes, as names that are not UTF-8 are written."""
    if isinstance(source, str) and "%" in source:
        return path_of_url(source) or source
    return source


def _read_folder(folder: Path, names: ColumnNames, *, whole_folder: bool) -> Listing:
    """Return the files of a folder, or what the table on top of it lists."""
    files = list(sound_files(folder))
    remarks: list[str] = []
    if not whole_folder:
        for below in _tops(files):
            listing = _by_tables(folder, below, names, files, remarks)
            if listing is not None:
                return listing._replace(remarks=[*remarks, *listing.remarks])
    listing = _by_formats(folder, names, files)
    if listing is None:
        listing = read_folder(folder, files)
    return listing._replace(remarks=[*remarks, *listing.remarks])


def _by_formats(folder: Path, names: ColumnNames, others: Sequence[str]) -> Listing | None:
    """Return what the files of formats of others in a folder list; None if there are none."""
    recognised = files_of(folder, others)
    if recognised is None:
        return None
    form, files = recognised
    rows: list[Row] = []
    rejected: list[Rejected] = []
    remarks: list[str] = []
    for path in files:
        listing = read_table(path, names)
        below = path.parent.relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        rows.extend(row._replace(name=prefix + row.name) for row in listing.rows)
        rejected.extend(listing.rejected)
        # What all files have in common is said once.
        known = {text.partition(": ")[2] for text in remarks} | {f"read as {form.what}"}
        remarks.extend(text for text in listing.remarks if text.partition(": ")[2] not in known)
    rows, sentence = with_usual_splits(rows)
    counts = Counter(row.split or "none" for row in rows)
    splits = ", ".join(f"{name} ({count})" for name, count in counts.items()) or "none"
    remarks.append(
        f"{folder}: read as {form.what}, in {counted(len(files), 'file')}; splits: {splits}"
        + (f"; {sentence}" if sentence else "")
    )
    return Listing(rows, rejected, remarks)


def manifests_of(source: Path) -> list[Path]:
    """Return the tables by which a folder may be read: on top of it, or of its folders of splits."""
    if not source.is_dir():
        return []
    tops: list[Path] = []
    for below in _tops(list(sound_files(source))):
        top = source / below
        tops += [top, *(child for child in top.iterdir() if is_split_folder(child.name))]
    return [path for top in tops for path in (top / name for name in MANIFESTS) if path.is_file()]


def _tops(files: Sequence[str]) -> list[str]:
    """Return where a table may lie: on top, and in folders that hold all files, as ``data/``."""
    tops = [""]
    while len(tops) <= _DEEPEST:
        depth = tops[-1].count("/")
        inner = {name.split("/")[depth] if name.count("/") > depth else "" for name in files}
        if len(inner) != 1 or "" in inner:
            break
        tops.append(f"{tops[-1]}{inner.pop()}/")
    return tops


def _by_tables(
    folder: Path, below: str, names: ColumnNames, files: Sequence[str], remarks: list[str]
) -> Listing | None:
    """Return what a table in a folder lists, or those of its splits; None without such a table.

    Args:
        folder: the source.
        below: the folder with the table, from there: blank, or with a slash at its end.
        names: the columns that the user named.
        files: paths of the files below the source.
        remarks: sentences on tables are appended.
    """
    listing = _first_manifest(folder / below, names, len(files), remarks)
    if listing is None:
        listing = _by_split_tables(folder / below, names, files, below, remarks)
    if listing is None or not below:
        return listing
    return listing._replace(rows=[row._replace(name=below + row.name) for row in listing.rows])


def _first_manifest(
    folder: Path, names: ColumnNames, files: int, remarks: list[str]
) -> Listing | None:
    """Return what a table on top of a folder lists; None if there is none. Remarks are appended."""
    for path in (folder / name for name in MANIFESTS):
        if path.is_file():
            listing, remark = _read_manifest(path, names, files)
            remarks.append(remark)
            if listing is not None:
                return listing
    return None


def _by_split_tables(
    folder: Path, names: ColumnNames, files: Sequence[str], below: str, remarks: list[str]
) -> Listing | None:
    """Return what the tables in folders of splits list, as in Hugging Face's AudioFolder.

    None if no such folder has a table. Files elsewhere have the labels of their folders.
    """
    rows: list[Row] = []
    rejected: list[Rejected] = []
    used: set[str] = set()
    inside = [name.removeprefix(below) for name in files]
    for split in sorted({name.partition("/")[0] for name in inside if "/" in name}):
        if not is_split_folder(split):
            continue
        count = sum(name.startswith(f"{split}/") for name in inside)
        listing = _first_manifest(folder / split, names, count, remarks)
        if listing is not None:
            used.add(split)
            remarks.extend(listing.remarks)
            rejected.extend(listing.rejected)
            rows.extend(
                row._replace(name=f"{split}/{row.name}", split=row.split or split)
                for row in listing.rows
            )
    if not used:
        return None
    others = [name for name in inside if name.partition("/")[0] not in used]
    if others:
        rest = read_folder(folder, others)
        rows.extend(rest.rows)
        remarks.extend(rest.remarks)
    rows, sentence = with_usual_splits(rows)
    listed = ", ".join(dict.fromkeys(row.split for row in rows if row.split))
    remarks.append(
        f"{folder}: its folders are read as splits ({listed}), by the tables in them"
        + (f"; {sentence}" if sentence else "")
    )
    return Listing(rows, rejected)


def _read_manifest(path: Path, names: ColumnNames, files: int) -> tuple[Listing | None, str]:
    """Return what a table on top of a folder lists, and a sentence on it.

    None stands for a table that does not list files of the folder, or that melpatch wrote there:
    files that came later are to be found.

    Args:
        path: the table.
        names: the columns that the user named.
        files: number of sound files in the folder.
    """
    ignored = f"{path} is not used; give it instead of its folder if it lists the clips"
    try:
        if header_of(path)[: len(COLUMNS)] == [*COLUMNS]:
            return None, ignored
        listing = read_table(path, names)
    except DataError as error:
        return None, f"{ignored} ({error})"
    if not any(row.path.is_file() for row in listing.rows[:_LOOK_AT]):
        return None, f"{ignored} (its files are not there)"
    listed = len({row.path for row in listing.rows})
    among = f"{listed:,} of {counted(files, 'file')}"
    remark = f"{path.parent}: {path.name} on top of it is read; it lists {among}"
    return listing, remark


def sound_files(folder: Path) -> Iterator[str]:
    """Yield relative paths of possible sound files below a folder, in a fixed order.

    The paths have forward slashes. Links are followed, but no folder is visited twice. Hidden files
    and files with extensions of other formats are skipped.

    Raises:
        DataError: a folder does not exist, or may not be listed.
    """
    seen = set()
    for root, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(root)
        # A link may lead to a folder that was visited already.
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(root).relative_to(folder)
        prefix = f"{below.as_posix()}/" if below.parts else ""
        for file in sorted(files):
            if not file.startswith(".") and Path(file).suffix[1:].lower() not in _NOT_SOUND:
                yield prefix + file


def _raise(error: OSError) -> None:
    let_pass(error)
    problem = f"the folder cannot be listed ({error.strerror})"
    raise DataError(f"{error.filename}: {problem}; check who may read it") from error
