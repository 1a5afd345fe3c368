"""Which recordings are meant: files, folders of them, and the clips that CSV files and shards list."""

import hashlib
from collections.abc import Sequence
from math import inf
from pathlib import Path

from melpatch.data.clip import Clip, clip_key
from melpatch.data.remote import is_url
from melpatch.data.sources import LABEL, SPLIT, Row, dataset_name, rows
from melpatch.errors import DataError
from melpatch.inference.windows import clip_of_file


def recordings(sources: Sequence[str]) -> list[Clip]:
    """Return the files that are named, all audio-like files of the folders that are named, and the clips that CSV
    files, folders of shards and URLs list, each once. No file is opened: one that goes to its end has an infinite
    duration.

    Raises:
        DataError: a source does not exist, or there is no recording at all.
    """
    found: dict[tuple[str, float], Clip] = {}
    for source in sources:
        for clip in _clips(source):
            found.setdefault((clip.location, clip.start), clip)
    if not found:
        raise DataError(
            f"{', '.join(sources) or 'nothing'}: no audio file; name files, or folders that hold some"
        )
    return [*found.values()]


def _clips(source: str) -> list[Clip]:
    path = Path(source)
    if not is_url(source) and not path.exists():
        raise DataError(f"{source}: no such file or folder")
    if not is_url(source) and path.is_file() and path.suffix.lower() != ".csv":
        return [clip_of_file(path)]
    listed, name = rows(source, split_column=SPLIT, label_column=LABEL), dataset_name(source)
    return [_clip(name, row) for row in listed]


def _clip(dataset: str, row: Row) -> Clip:
    key = clip_key(dataset, row.name, row.start) if row.key is None else row.key
    duration = inf if row.duration is None else row.duration
    return Clip(
        row.path,
        key,
        row.start,
        duration,
        row.labels,
        row.split,
        row.group,
        row.offset,
        row.size,
        row.crc32,
        row.url,
    )


def fingerprint(found: Sequence[Clip]) -> str:
    """Return a text that is another one where the recordings, their order, or the sizes, times or checksums of their
    sounds are."""
    digest = hashlib.blake2b(digest_size=8)
    for clip in found:
        digest.update(repr((clip.location, clip.start, clip.duration, clip.state)).encode())
    return f"{len(found)} ({digest.hexdigest()})"
