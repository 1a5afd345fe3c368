"""Whether a file is an unchanged output of ``embed`` or ``predict``, which it may replace."""

import zipfile
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Literal

from melpatch.data.row import PACKED_COLUMNS
from melpatch.data.tables import header_of
from melpatch.errors import DataError
from melpatch.faults import let_pass
from melpatch.inference.digests import DIGEST, digest_before_footer, digest_of_members
from melpatch.inference.table_about import METADATA, check_beside
from melpatch.outputs import check_output
from melpatch.unchanged import is_unchanged

Command = Literal["embed", "predict", "frames"]
_PLACE = ("path", "key", "start", "end", *PACKED_COLUMNS)
_VALUES = {"embed": "embeddings", "predict": "probabilities", "frames": "probabilities"}
_FRAME = ["path", "start", "end"]
_DECISIONS = (["label", "probability", "note"], ["label", "probability", "novelty", "note"])


def check_table(
    out: Path,
    ending: str,
    command: Command,
    *,
    inputs: Iterable[str | Path],
    overwrite: bool,
    flag: str = "--out",
) -> None:
    """Raise ConfigError if a command may not write a table, or the facts beside it.

    Args:
        out: the file.
        ending: its format.
        command: the command.
        inputs: files that are read.
        overwrite: whether files of another origin may be replaced.
        flag: the flag that names the file.
    """
    files = list(inputs)
    check_output(
        out,
        inputs=files,
        is_own=lambda path: is_own_output(path, ending, command),
        overwrite=overwrite,
        flag=flag,
    )
    if ending == ".csv":
        check_beside(out, files, overwrite=overwrite, flag=flag)


def is_own_output(path: Path, ending: str, command: Command) -> bool:
    """Return whether a file is what a command has written, and nobody has changed it.

    An NPZ or Parquet file holds its digest; that of a CSV file is noted beside it. Without one,
    as where only the CSV file was copied, it counts as changed.

    Args:
        path: an existing file.
        ending: its format.
        command: the command.
    """
    try:
        if ending == ".npz":
            with zipfile.ZipFile(path) as archive:
                needed = {"path.npy", f"{_VALUES[command]}.npy"}
                unchanged = archive.comment == digest_of_members(archive)
                return unchanged and needed <= {*archive.namelist()}
        if ending == ".parquet":
            return _is_own_parquet(path, command)
        return _is_own_csv(path, command)
    except (DataError, OSError, ValueError, zipfile.BadZipFile) as error:
        let_pass(error)
        return False


def _is_own_parquet(path: Path, command: Command) -> bool:
    from pyarrow import parquet

    metadata = parquet.read_metadata(path).metadata or {}
    digest = metadata.get(DIGEST.encode())
    about = metadata.get(METADATA, b"")
    if digest is None or digest.decode() != digest_before_footer(path, about):
        return False
    names = list(parquet.read_schema(path).names)
    rest = names[len([*takewhile(_PLACE.__contains__, names)]) :]
    if command == "embed":
        return names[:1] == ["path"] and rest == ["embeddings"]
    if command == "frames":
        return names[:3] == _FRAME and bool(rest) and not _decision(rest)
    return names[:1] == ["path"] and bool(_decision(rest))


def _is_own_csv(path: Path, command: Command) -> bool:
    header = header_of(path)
    place = [*takewhile(_PLACE.__contains__, header)]
    rest = list(header[len(place) :])
    if command == "embed":
        made = bool(rest) and rest == [f"embeddings_{number}" for number in range(len(rest))]
    elif command == "frames":
        made = place == _FRAME and bool(rest) and not _decision(rest)
    else:
        made = bool(_decision(rest))
    return place[:1] == ["path"] and made and is_unchanged(path) is True


def _decision(names: Sequence[str]) -> list[str]:
    """Return the columns from the label to the note that come first; empty if they do not."""
    return next((known for known in _DECISIONS if [*names[: len(known)]] == known), [])
