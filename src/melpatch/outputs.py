"""What a command may write over: an earlier output of its own, never an input or another's file."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from melpatch.errors import ConfigError

_RESULTS = ("", ".csv", ".npz", ".parquet")
"""Endings of outputs that have lists beside them."""


def check_output(
    out: Path,
    *,
    inputs: Iterable[str | Path],
    is_own: Callable[[Path], bool],
    overwrite: bool,
    flag: str = "--out",
) -> None:
    """Raise ConfigError if a file may not be written.

    Args:
        out: the file.
        inputs: files that are read; the output is none of them, whatever ``overwrite`` says.
        is_own: whether an existing file is an unchanged output of the same command.
        overwrite: whether a file of another origin may be replaced.
        flag: the flag that names the output, for messages.
    """
    if not os.path.lexists(out):
        return
    real = os.path.realpath(out)
    for path in inputs:
        if os.path.realpath(path) == real or _is_same(path, out):
            raise ConfigError(f"{flag} {out}: is an input; give another file")
    if out.is_dir():
        raise ConfigError(f"{flag} {out}: there is a folder of this name; give the name of a file")
    if not out.is_file():
        raise ConfigError(f"{flag} {out}: is not a regular file; give another name")
    if not overwrite and not is_own(out):
        raise ConfigError(
            f"{flag} {out}: exists, and was not made by this command or was changed since; "
            "give another name, or --overwrite to replace it"
        )


def beside(out: Path, kind: str) -> Path:
    """Return the list beside an output, such as ``a.rejected.csv``; no other output has the same.

    Of two outputs whose names differ by their ending, such as ``a.csv`` and ``a.npz``, the one that
    is written second has its list in ``a.npz.rejected.csv``.

    Args:
        out: the output, which need not exist.
        kind: what is listed, such as ``rejected``.
    """
    stem = out.stem if out.suffix.lower() in _RESULTS else out.name
    others = (out.with_name(stem + ending) for ending in _RESULTS)
    for other in others:
        if other.name != out.name and (other.exists() or parts_of(other).exists()):
            return out.with_name(f"{out.name}.{kind}.csv")
    return out.with_name(f"{stem}.{kind}.csv")


def parts_of(out: Path) -> Path:
    """Return the folder that holds the parts of an unfinished output."""
    return out.with_name(f"{out.name}.parts")


def _is_same(path: str | Path, out: Path) -> bool:
    """Return whether two names stand for one file, by hard links or in a file system without case."""
    try:
        return os.path.samefile(path, out)  # noqa: PTH121 - a name may be text or a path
    except (OSError, ValueError):
        return False
