"""A folder of shards: tar archives in WebDataset's layout, ``index.csv`` and ``shards.json``.

A shard (``shard-000000.tar``) is an ordinary tar archive with two members per clip: ``KEY.flac`` or
``KEY.wav``, 16-bit and mono, and ``KEY.json`` with its labels. The index is a corpus like any CSV
file, with the shard and byte offset of each clip. ``shards.json`` is written last and describes the
whole set.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from melpatch.config import check, from_dict
from melpatch.data.addresses import is_shard_name
from melpatch.errors import ConfigError, DataError, shortened
from melpatch.faults import let_pass
from melpatch.opening import read_text, require_regular

LAYOUT = 1
"""Version of the layout; raise it when older versions of melpatch cannot read the files."""
ABOUT = "shards.json"
INDEX = "index.csv"
UNFINISHED = ".packing"
ABOUT_BYTES = 1 << 26
"""Largest ``shards.json``: 64 MiB, about half a million shards."""
_AGAIN = "copy or fetch the folder again, or pack it again"


@dataclass(frozen=True)
class Shard:
    """One archive: its file name, size in bytes, checksum and number of clips."""

    name: str
    size: int
    sha256: str
    clips: int

    def __post_init__(self) -> None:
        """Check that the name is that of a shard, so that it can lie nowhere else."""
        check(is_shard_name(self.name), "name", self.name, "shard-NUMBER.tar")
        check(self.size >= 0, "size", self.size, "0 or more bytes")


@dataclass(frozen=True)
class ShardSet:
    """The content of ``shards.json``.

    Attributes:
        layout: version of the layout.
        melpatch: version of melpatch that packed it.
        command: the command that packed it.
        identity: hash of the corpus and the settings.
        sample_rate: of all clips, in Hz.
        codec: ``flac`` or ``pcm``.
        clips: number of clips.
        clipped: number of clips with samples beyond full scale, which were clipped.
        rejected: number of clips of the corpus that were left out.
        seconds: total length of the clips.
        index: sha256 of the index.
        shards: the archives.
    """

    layout: int
    melpatch: str
    command: str
    identity: str
    sample_rate: int
    codec: str
    clips: int
    clipped: int
    rejected: int
    seconds: float
    index: str
    shards: tuple[Shard, ...]

    @property
    def size(self) -> int:
        """Bytes of all archives."""
        return sum(shard.size for shard in self.shards)


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:06}.tar"


def is_shard_folder(folder: Path) -> bool:
    """Return whether a folder holds shards.

    Raises:
        DataError: it does, but packing was not completed.
    """
    if (folder / ABOUT).exists():
        return True
    if (folder / UNFINISHED).exists():
        fix = "run the same melpatch pack again to continue"
        raise DataError(f"{folder}: packing was not completed; {fix}")
    return False


def read_shard_set(folder: Path, shown: str = "") -> ShardSet:
    """Return the description of a folder of shards.

    Args:
        folder: the folder of ``shards.json``.
        shown: name of the folder in messages; its path by default.

    Raises:
        DataError: it is missing or damaged, or of a newer layout.
    """
    where = f"{shown or folder}/{ABOUT}"
    try:
        about = json.loads(read_text(folder / ABOUT, ABOUT_BYTES))
        # Checked before the other keys, which another layout may lack.
        layout = about["layout"]
    except OSError as error:
        let_pass(error)
        raise DataError(f"{where}: cannot be read ({error.strerror}); {_AGAIN}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = shortened(error, typed=True)
        raise DataError(
            f"{where}: damaged, or not of melpatch pack ({reason}); {_AGAIN}"
        ) from error
    if layout != LAYOUT:
        fix = "update melpatch, or pack again"
        raise DataError(f"{where}: layout = {shortened(layout)}; allowed: {LAYOUT}; {fix}")
    try:
        return from_dict(ShardSet, about, where)
    except ConfigError as error:
        raise DataError(f"{error}; {_AGAIN}") from error


def verified_index(folder: Path, shown: str = "") -> Path:
    """Return the path of the index of a folder of shards after checking its checksum.

    Raises:
        DataError: the index is missing, damaged, or belongs to other shards.
    """
    about = read_shard_set(folder, shown)
    index = folder / INDEX
    name = f"{shown or folder}/{INDEX}"
    if digest(index, name) != about.index:
        hint = "for labels of your own give a CSV file of another name"
        raise DataError(f"{name}: does not match the checksum in {ABOUT}; {_AGAIN}; {hint}")
    return index


def digest(path: Path, shown: str = "") -> str:
    """Return the sha256 of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        require_regular(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        let_pass(error)
        raise DataError(f"{shown or path}: cannot be read ({error.strerror}); {_AGAIN}") from error
