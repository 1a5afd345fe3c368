"""Fingerprints of the files that a comparison reads, so that a changed file is a new cell.

They are made of bytes, not of times, so that a comparison goes on where its corpora were copied to.
"""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from melpatch.atomic import file_state
from melpatch.data.columns import ColumnNames
from melpatch.data.sources import read_source
from melpatch.faults import let_pass
from melpatch.opening import open_binary
from melpatch.progress import track

_THREADS = 8


def of_clips(source: str, split_column: str) -> str:
    """Return a hash of the clips that a folder or CSV file lists, and of their files' content.

    Raises:
        DataError: the source does not exist, or the CSV file is not valid.
    """
    listed = read_source(source, ColumnNames(split=split_column)).rows
    # Clips of shards are listed with checksums.
    paths = list({row.path: None for row in listed if not row.size})
    with ThreadPoolExecutor(_THREADS) as pool:
        read = track(pool.map(_content, paths), len(paths), f"reading {source}", "files")
        contents = dict(zip(paths, read, strict=True))
    # The path of the folder is left out: it is already part of the command's words.
    return _hash((*row[1:], contents.get(row.path)) for row in listed)


def of_weights(init: str) -> str:
    """Return a hash of the content of a weight file, or of the weights of a run folder.

    Weights that are still to be downloaded have none; their name identifies them.
    """
    path = Path(init)
    if path.is_dir():
        path = path / "model.safetensors"
    return _hash([(_content(path),)])


def _content(path: Path) -> str | None:
    """Return a hash of the bytes of a file, or None if it cannot be read."""
    state = file_state(path)
    return None if state is None else _content_in_state(path, state)


# Cached, because the audio to pretrain on and the tasks share their lists.
@lru_cache(1 << 20)
def _content_in_state(path: Path, _state: tuple[int, int]) -> str | None:
    try:
        with open_binary(path) as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        # Of a file that cannot be read now the hash is not known; of another, what reads it says why.
        let_pass(error)
        return None


def _hash(parts: Iterable[tuple[object, ...]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(repr(part).encode())
    return digest.hexdigest()
