"""What a command may write over: an earlier output of its own, never an input or another's file."""

import hashlib
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from melpatch.errors import ConfigError

_LONGEST_NAME = 200  # bytes
# Endings of outputs that have lists beside them.
_RESULTS = ("", ".csv", ".npz", ".parquet")
# Names of devices, whatever their ending, and letters that no name has on Windows.
_RESERVED = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9]|lpt[0-9])(?:\.|$)", re.IGNORECASE
)
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')


def check_output(
    out: Path,
    *,
    inputs: Iterable[str | Path],
    is_own: Callable[[Path], bool],
    overwrite: bool,
    flag: str = "--out",
) -> None:
    """Raise ConfigError if a command may not write its output.

    Args:
        out: the file.
        inputs: files that are read; the output is none of them, whatever ``overwrite`` says.
        is_own: whether an existing file is an unchanged output of the same command.
        overwrite: whether a file of another origin may be replaced.
        flag: the flag that names the file.
    """
    if not os.path.lexists(out):
        return
    if is_among(out, inputs):
        raise ConfigError(f"{flag} {out}: is an input; give another file")
    if out.is_dir():
        raise ConfigError(f"{flag} {out}: there is a folder of this name; give the name of a file")
    if not overwrite and not (out.is_file() and is_own(out)):
        raise ConfigError(
            f"{flag} {out}: exists, and was not made by this command or was changed since; "
            "give another name, or --overwrite to replace it"
        )


def check_output_folder(
    out: Path,
    inputs: Iterable[str | Path],
    *,
    flag: str = "--out",
    alone: bool = False,
    own: Collection[str] = (),
) -> None:
    """Raise ConfigError if a command may not write into a folder.

    Args:
        out: the folder, which need not exist.
        inputs: folders and files that are read.
        flag: the flag that names the folder.
        alone: whether nothing else may lie in a folder that the command did not make.
        own: names that may lie there all the same.
    """
    if not os.path.lexists(out):
        return
    if is_among(out, inputs):
        raise ConfigError(f"{flag} {out}: is an input; give another folder")
    if not out.is_dir():
        raise ConfigError(f"{flag} {out}: is a file; give the name of a folder")
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    others = sorted(names.difference(own))
    if alone and others:
        raise ConfigError(
            f"{flag} {out}: holds {others[0]}, which is not of this command; give another {flag}"
        )


def is_among(path: Path, files: Iterable[str | Path]) -> bool:
    """Return whether a path stands for one of some files, by whatever name or link."""
    real = os.path.realpath(path)
    return any(os.path.realpath(file) == real or _is_same(file, path) for file in files)


def _is_same(file: str | Path, path: Path) -> bool:
    """Return whether two names are links to one file, or differ by a case that is ignored."""
    try:
        return os.path.samefile(file, path)  # noqa: PTH121 - a name may be text or a path
    except (OSError, ValueError):
        return False


def list_beside(out: Path, kind: str, header: str, inputs: Iterable[str | Path] = ()) -> Path:
    """Return the path of a list beside an output, such as ``a.rejected.csv``.

    No other output has the same: of two outputs whose names differ by their ending, such as
    ``a.csv`` and ``a.npz``, the one that is written second has ``a.npz.rejected.csv``. So has one
    beside which something else is called ``a.rejected.csv``.

    Args:
        out: the output, which need not exist.
        kind: what is listed, such as ``rejected``.
        header: the first line of such a list.
        inputs: files that are read.

    Raises:
        ConfigError: something else has both names.
    """
    stem = out.stem if out.suffix.lower() in _RESULTS else out.name
    short = out.with_name(f"{stem}.{kind}.csv")
    long = out.with_name(f"{out.name}.{kind}.csv")
    others = [out.with_name(stem + ending) for ending in _RESULTS if stem + ending != out.name]
    files = list(inputs)
    shared = any(
        path.exists() for other in others for path in (other, parts_of(other), lock_of(other))
    )
    if not shared and _may_be_replaced(short, header, files):
        return short
    if _may_be_replaced(long, header, files):
        return long
    raise ConfigError(f"--out {out}: {long} is in the way of its list; give another --out")


def as_file_name(text: str, *, any_case: bool = True) -> str:
    """Return a name for a file or folder that stands for a text, and for no other, on any system.

    >>> as_file_name("fold 1")
    'fold 1'

    Args:
        text: the text.
        any_case: whether names may differ by their case alone, which macOS and Windows ignore.
    """
    plain = re.sub(r"[^\w .,;+=@()'!~-]+", "-", text).strip(" .")
    plain = plain.encode()[:_LONGEST_NAME].decode("utf-8", "ignore").rstrip(" .")
    if is_reserved(plain):
        plain = f"_{plain}"
    # macOS takes an accented letter and a letter with an accent for the same.
    alone = any_case or unicodedata.normalize("NFC", text).lower() == text
    if plain and plain == text and alone:
        return text
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()
    return f"{plain}-{digest}"


def is_reserved(name: str) -> bool:
    """Return whether Windows takes a name for a device, or for another name, or refuses it."""
    return bool(_RESERVED.match(name)) or name != name.rstrip(" .") or bool(_FORBIDDEN.search(name))


def require_usable_name(out: Path) -> None:
    """Raise ConfigError if an output has a name that this system takes for something else."""
    names = [out.name, *(folder.name for folder in out.parents)]
    bad = next((name for name in names if name not in ("", "..") and is_reserved(name)), None)
    if sys.platform == "win32" and bad is not None:
        raise ConfigError(
            f'--out {out}: Windows reserves {bad!r}; give a name without any of <>:"/|?*, without a '
            "dot or blank at its end, and other than CON, NUL, COM1 and the like"
        )


def parts_of(out: Path) -> Path:
    """Return the folder that holds the parts of an unfinished output."""
    return out.with_name(f"{out.name}.parts")


def lock_of(out: Path) -> Path:
    """Return the file that the process that writes an output locks."""
    return out.with_name(f".{out.name}.lock")


def _may_be_replaced(path: Path, header: str, inputs: list[str | Path]) -> bool:
    """Return whether a path is free, or has an earlier list."""
    if not os.path.lexists(path):
        return True
    if not path.is_file() or is_among(path, inputs):
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(len(header) + 2).rstrip("\r\n") == header
