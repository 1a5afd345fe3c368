"""The files of a folder of features: one part per rank, joined to one file of values, and a description."""

import errno
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from melpatch.data.clip import Clip
from melpatch.data.corpus import Rejected
from melpatch.distributed import rank
from melpatch.faults import let_pass
from melpatch.inference.corpus import merge_ranks
from melpatch.opening import LOG_BYTES, read_json

VALUES = "values"
_ABOUT = "about.json"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def part_path(folder: Path, part: int | None = None) -> Path:
    """Return the file that a rank writes; by default this one."""
    number = rank() if part is None else part
    return folder / f"part-{number}"


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the description of the values."""
    (folder / _ABOUT).write_text(json.dumps(about), encoding="utf-8")


def read_about(folder: Path) -> dict[str, Any]:
    """Return the description of the values.

    Raises:
        OSError: there is none.
        ValueError: it is damaged.
    """
    return read_json(folder / _ABOUT, LOG_BYTES)


def rejected_clips(about: Mapping[str, Any]) -> tuple[Rejected, ...]:
    """Return the clips that could not be read."""
    return tuple(Rejected(path, reason) for path, reason in about["rejected"])


def lacks_shard_clips(folder: Path, clips: Sequence[Clip]) -> bool:
    """Return whether features lack clips of shards, which may only have been out of reach.

    No hash shows whether they can be read now: the checksums of their clips are the same in any
    case.
    """
    try:
        rejected = {path for path, _ in read_about(folder)["rejected"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        let_pass(error)
        # Whoever reads the folder reports what is wrong.
        return False
    return bool(rejected) and any(clip.size and clip.location in rejected for clip in clips)


def new_rows(path: Path, shape: tuple[int, ...], dtype: Any = np.float32) -> np.memmap[Any, Any]:
    """Return an array in a new file, for which there is room on the disk.

    Without that, the process would be killed while it writes to an array on a full disk.

    Raises:
        OSError: there is no room.
    """
    rows: np.memmap[Any, Any] = open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        try:
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in _FULL:
                raise OSError(error.errno, error.strerror, str(path)) from error
    return rows


def join_rows(folder: Path, lengths: Sequence[int]) -> None:
    """Join the rows of all ranks in the order of the clips.

    Args:
        folder: where the parts are.
        lengths: number of clips of each rank.
    """
    parts = [part_path(folder, number) for number in range(len(lengths))]
    if len(parts) == 1:
        parts[0].rename(folder / VALUES)
        return
    shares = []
    for part, length in zip(parts, lengths, strict=True):
        # A rank that could read none of its clips has written no part.
        if part.exists():
            shares.append(np.load(part, mmap_mode="r"))
        else:
            shares.append(np.empty((length, 0), np.float32))
    merge_ranks(shares, lambda shape, dtype: new_rows(folder / VALUES, shape, dtype))
    for part in parts:
        part.unlink(missing_ok=True)


def join_tokens(folder: Path, num_parts: int) -> None:
    """Join the tokens of all ranks, one rank's after the other's."""
    first = part_path(folder, 0)
    with first.open("ab") as file:
        for number in range(1, num_parts):
            part = part_path(folder, number)
            with part.open("rb") as tokens:
                shutil.copyfileobj(tokens, file)
            part.unlink()
    first.rename(folder / VALUES)
