"""Files that are either complete or not there: written aside, synced, renamed; and weights as safetensors."""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor

from melpatch.errors import CheckpointError

_PARTIAL = ".partial"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # the disk, a quota, the largest file that this process may write


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a path to write a file or folder to, which takes the place of ``path`` when the body ends well.

    A crash leaves ``path`` as it was. What was written is on the disk before it takes its name.
    """
    aside = _aside(path)
    _remove(aside)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
        for written in [aside, *aside.rglob("*")] if aside.is_dir() else [aside]:
            sync(written)
        if path.is_dir() and aside.is_dir():
            _remove(path)  # a folder cannot be renamed over another; over a file's name it is not ours to remove
        aside.replace(path)
        sync(path.parent)
    finally:
        _remove(aside)


def clear_partial(folder: Path) -> None:
    """Remove what a crash left half-written in a folder; nobody else may be writing there."""
    for left in folder.glob(f".*{_PARTIAL}"):
        _remove(left)


def discard(folder: Path) -> None:
    """Remove a folder such that a crash leaves all of it or, under its name, nothing."""
    aside = _aside(folder)
    _remove(aside)
    folder.rename(aside)
    _remove(aside)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_weights(path: Path, state: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write tensors to a safetensors file, whole or not at all.

    Args:
        path: the file.
        state: tensors by name.
        about: text to keep in the file's header.
    """
    with written_aside(path) as aside:
        write_weights(aside, copied(state), about)


def write_weights(path: Path, state: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write tensors that :func:`copied` returned to a safetensors file, which a crash may leave half-written."""
    # Not save_file, which hides what the system said, and leaves files of other names where it is killed.
    path.write_bytes(serialised(dict(state), metadata={"format": "pt", **(about or {})}))


def copied(value: Any) -> Any:
    """Return tensors, or dictionaries and lists of them, with memory of their own on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping):
        return {name: copied(each) for name, each in value.items()}
    return [copied(each) for each in value] if isinstance(value, list) else value


def lack_of_space(error: BaseException | None) -> OSError | None:
    """Return the error that says that there is no room left, which may be the cause of the given one; None if none
    does."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return error
        error = error.__cause__ or error.__context__  # torch.save covers up what the file said
    return None


def load_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the folder of a finished or interrupted run")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); take it from a backup or train again"
        ) from error
