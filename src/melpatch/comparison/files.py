"""Fingerprints of the files that a comparison reads, so that a changed file is a new cell."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from melpatch.atomic import file_state
from melpatch.data.columns import ColumnNames
from melpatch.data.sources import read_source


def of_clips(source: str, split_column: str) -> str:
    """Return a hash of the clips that a folder or CSV file lists, with their file sizes and times.

    Raises:
        DataError: the source does not exist, or the CSV file is not valid.
    """
    listed = read_source(source, ColumnNames(split=split_column)).rows
    # The path of the folder is left out: it is already part of the command's words.
    return _hash((*row[1:], file_state(row.path)) for row in listed)


def of_weights(init: str) -> str:
    """Return a hash of the size and time of a weight file, or of the weights of a run folder.

    Weights that are still to be downloaded have neither; their name identifies them.
    """
    path = Path(init)
    if path.is_dir():
        path = path / "model.safetensors"
    return _hash([(file_state(path),)])


def _hash(parts: Iterable[tuple[object, ...]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(repr(part).encode())
    return digest.hexdigest()
