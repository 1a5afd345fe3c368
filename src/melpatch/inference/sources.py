"""From the names of files, folders, CSV files, shards and URLs to a list of recordings."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np

from melpatch.data.clip import Clip
from melpatch.data.corpus import Rejected
from melpatch.data.remote import is_url
from melpatch.data.repeats import distinct_keys
from melpatch.data.row_columns import RowColumns
from melpatch.data.sources import dataset_name, read_source
from melpatch.data.tables import is_table
from melpatch.errors import DataError
from melpatch.inference.windows import clip_of_file
from melpatch.progress import notice


def list_recordings(sources: Sequence[str], rejected: list[Rejected] | None = None) -> list[Clip]:
    """Return the recordings that sources name, each once, without opening an audio file.

    A source is a sound file; a folder, of which all files with the endings of audio are taken; or a
    CSV file, folder of shards or URL, which lists clips. A recording that lasts to the end of its
    file has an infinite duration.

    Args:
        sources: files, folders and URLs.
        rejected: takes the malformed lines of CSV files; without it they are reported.

    Raises:
        DataError: a source does not exist, or there is no recording at all.
    """
    recordings: dict[tuple[str, float, float], Clip] = {}
    malformed: list[Rejected] = []
    for source in sources:
        for clip in _clips(source, malformed):
            recordings.setdefault((clip.location, clip.start, clip.duration), clip)
    first = ""
    if malformed:
        first = f"{malformed[0].path}: {malformed[0].reason}"
    if not recordings:
        names = ", ".join(sources) or "nothing"
        problem = f"no audio file; {first}" if first else "no audio file"
        raise DataError(f"{names}: {problem}; name files, or folders that hold some")
    if rejected is not None:
        rejected.extend(malformed)
    elif first:
        notice(f"{len(malformed)} lines are malformed and left out; the first is {first}")
    return [*recordings.values()]


def _clips(source: str, malformed: list[Rejected]) -> list[Clip]:
    """Return the clips of a source; add the malformed lines of a table to a list."""
    if not is_url(source):
        path = Path(source)
        if not path.exists():
            raise DataError(f"{source}: no such file or folder")
        if path.is_file() and not is_table(path):
            return [clip_of_file(path)]
    # All files of a folder are wanted, whatever a table on top of it lists.
    listing = read_source(source, whole_folder=True)
    for remark in listing.remarks:
        notice(remark)
    rows = RowColumns.of(listing.rows)
    malformed.extend(listing.rejected)
    # The length of a file is known once it is read.
    durations = np.nan_to_num(rows.clips.durations, nan=inf)
    keys = distinct_keys(dataset_name(source), rows)
    return [*replace(rows.clips, keys=keys, durations=durations)]


def fingerprint(recordings: Sequence[Clip]) -> str:
    """Return a text that changes with the recordings, their order, and their files.

    Of files the size and time count, of clips in shards the checksum.
    """
    digest = hashlib.blake2b(digest_size=8)
    for clip in recordings:
        digest.update(repr((clip.location, clip.start, clip.duration, clip.state)).encode())
    return f"{len(recordings)} ({digest.hexdigest()})"
