"""A folder of shards: ``shard-000000.tar`` and so on in WebDataset's layout, ``index.csv``, and ``shards.json``.

A shard is an ordinary tar archive with two members to a clip: ``KEY.flac`` (or ``KEY.wav``), 16-bit and mono, and
``KEY.json`` with what is known of it. The index is a corpus like any CSV file, and says at which byte of which shard
each clip lies; ``shards.json``, which is written last, says what belongs together.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from melpatch.config import from_dict
from melpatch.errors import ConfigError, DataError

LAYOUT = 1
"""Number of the layout, to be raised when older versions of melpatch could not read what is written."""
ABOUT, INDEX, UNFINISHED = "shards.json", "index.csv", ".packing"
_AGAIN = "copy or fetch the folder again, or pack it anew"


@dataclass(frozen=True)
class Shard:
    """One archive: its file's name, its size in bytes, its checksum, and how many clips it holds."""

    name: str
    size: int
    sha256: str
    clips: int


@dataclass(frozen=True)
class ShardSet:
    """What ``shards.json`` says.

    Attributes:
        layout: number of the layout.
        melpatch: version that packed it.
        command: the command that packed it.
        identity: hash of all that the shards hang on: corpus and settings.
        sample_rate: of all clips, in Hz.
        codec: ``flac`` or ``pcm``.
        clips: how many there are.
        clipped: how many of them had samples beyond full scale, which are cut off.
        rejected: how many clips of the corpus are left out.
        seconds: how long they are together.
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
        DataError: it does, but they are not complete.
    """
    if (folder / ABOUT).exists():
        return True
    if (folder / UNFINISHED).exists():
        raise DataError(
            f"{folder}: packing has not come to its end; run the same melpatch pack again, and it goes on"
        )
    return False


def read_shard_set(folder: Path, shown: str = "") -> ShardSet:
    """Return what a folder of shards says of itself.

    Args:
        folder: where ``shards.json`` lies.
        shown: what messages call the folder, if not by its path.

    Raises:
        DataError: it is missing or damaged, or of a newer layout.
    """
    where = f"{shown or folder}/{ABOUT}"
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        layout = about["layout"]
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror}); {_AGAIN}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: damaged, or not of melpatch pack ({error}); {_AGAIN}") from error
    if layout != LAYOUT:
        raise DataError(
            f"{where}: layout = {layout!r}; allowed: {LAYOUT}; update melpatch, or pack anew"
        )
    try:
        return from_dict(ShardSet, about, where)
    except ConfigError as error:
        raise DataError(f"{error}; {_AGAIN}") from error


def verified_index(folder: Path, shown: str = "") -> Path:
    """Return the index of a folder of shards, which is the one that was written with them.

    Raises:
        DataError: the index is missing, damaged, or of other shards.
    """
    about, index = read_shard_set(folder, shown), folder / INDEX
    if digest(index, f"{shown or folder}/{INDEX}") != about.index:
        hint = "for labels of your own give a CSV file of another name"
        raise DataError(
            f"{shown or folder}/{INDEX}: does not match {ABOUT}, by its checksum; {_AGAIN}; {hint}"
        )
    return index


def digest(path: Path, shown: str = "") -> str:
    """Return the sha256 of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{shown or path}: cannot be read ({error.strerror}); {_AGAIN}") from error
