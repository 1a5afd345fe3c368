"""What the files that a comparison reads are like, so that a number made of other ones is not taken for theirs."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from melpatch.atomic import file_state
from melpatch.data.sources import LABEL, rows


def of_clips(source: str, split_column: str) -> str:
    """Return a hash of what a folder or CSV file lists, and of the sizes and times of the sound files.

    Raises:
        DataError: there is no such source, or the CSV file is not what it should be.
    """
    listed = rows(Path(source), split_column=split_column, label_column=LABEL)
    return _hash(
        (*row[1:], file_state(row.path)) for row in listed
    )  # the folder's own path is in the words already


def of_weights(init: str) -> str:
    """Return a hash of the size and time of a weight file, or of a run folder's weights; there are none yet where it
    is downloaded, and its name says all."""
    path = Path(init)
    return _hash([(file_state(path / "model.safetensors" if path.is_dir() else path),)])


def _hash(parts: Iterable[tuple[object, ...]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(repr(part).encode())
    return digest.hexdigest()
