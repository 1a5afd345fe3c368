"""From the names of files, folders, CSV files, shards and URLs to a list of recordings."""

import hashlib
from collections.abc import Sequence
from math import inf
from pathlib import Path

from melpatch.data.clip import Clip, clip_key
from melpatch.data.remote import is_url
from melpatch.data.sources import LABEL, SPLIT, Row, dataset_name, rows
from melpatch.errors import DataError
from melpatch.inference.windows import clip_of_file


def list_recordings(sources: Sequence[str]) -> list[Clip]:
    """Return the recordings that sources name, each once, without opening an audio file.

    A source is a sound file; a folder, of which all files with the endings of audio are taken; or a
    CSV file, folder of shards or URL, which lists clips. A recording that lasts to the end of its
    file has an infinite duration.

    Raises:
        DataError: a source does not exist, or there is no recording at all.
    """
    recordings: dict[tuple[str, float], Clip] = {}
    for source in sources:
        for clip in _clips(source):
            recordings.setdefault((clip.location, clip.start), clip)
    if not recordings:
        names = ", ".join(sources) or "nothing"
        raise DataError(f"{names}: no audio file; name files, or folders that hold some")
    return [*recordings.values()]


def _clips(source: str) -> list[Clip]:
    if not is_url(source):
        path = Path(source)
        if not path.exists():
            raise DataError(f"{source}: no such file or folder")
        if path.is_file() and path.suffix.lower() != ".csv":
            return [clip_of_file(path)]
    dataset = dataset_name(source)
    return [_clip(dataset, row) for row in rows(source, split_column=SPLIT, label_column=LABEL)]


def _clip(dataset: str, row: Row) -> Clip:
    return Clip(
        path=row.path,
        key=clip_key(dataset, row.name, row.start) if row.key is None else row.key,
        start=row.start,
        duration=inf if row.duration is None else row.duration,
        labels=row.labels,
        split=row.split,
        group=row.group,
        offset=row.offset,
        size=row.size,
        crc32=row.crc32,
        url=row.url,
    )


def fingerprint(recordings: Sequence[Clip]) -> str:
    """Return a text that changes with the recordings, their order, and their files.

    Of files the size and time count, of clips in shards the checksum.
    """
    digest = hashlib.blake2b(digest_size=8)
    for clip in recordings:
        digest.update(repr((clip.location, clip.start, clip.duration, clip.state)).encode())
    return f"{len(recordings)} ({digest.hexdigest()})"
