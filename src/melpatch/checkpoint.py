"""Weights as safetensors files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor

from melpatch.atomic import written_aside
from melpatch.errors import CheckpointError


def save_weights(
    path: Path, state: Mapping[str, Tensor], about: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a safetensors file, whole or not at all.

    Args:
        path: the file.
        state: tensors by name.
        about: text to keep in the file's header.
    """
    with written_aside(path) as aside:
        write_weights(aside, copied(state), about)


def write_weights(
    path: Path, state: Mapping[str, Tensor], about: Mapping[str, str] | None = None
) -> None:
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


def load_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; give the folder of a finished or interrupted run"
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); take it from a backup or train again"
        ) from error
