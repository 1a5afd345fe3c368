"""Files that are either complete or not there: written aside, synced, renamed; and weights as safetensors."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from melpatch.errors import CheckpointError

_PARTIAL = ".partial"


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a path to write a file or folder to, which takes the place of ``path`` when the body ends well.

    A crash leaves ``path`` as it was. What was written is on the disk before it takes its name.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
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
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with written_aside(path) as aside:
        save_file(plain, aside, metadata={"format": "pt", **(about or {})})


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
