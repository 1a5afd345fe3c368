"""Reading and writing weights as safetensors files."""

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
    """Write tensors to a safetensors file; after a crash the file is complete or absent.

    Args:
        path: the file.
        state: tensors by name.
        about: metadata for the file's header.
    """
    with written_aside(path) as aside:
        write_weights(aside, copied(state), about)


def write_weights(
    path: Path, state: Mapping[str, Tensor], about: Mapping[str, str] | None = None
) -> None:
    """Write tensors that :func:`copied` returned; a crash may leave the file half-written."""
    # Not save_file, which hides the system's error and leaves temporary files when it is killed.
    path.write_bytes(serialised(dict(state), metadata={"format": "pt", **(about or {})}))


def copied(value: Any) -> Any:
    """Return copies on the CPU of tensors, or of dictionaries and lists of them."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, Mapping):
        return {name: copied(item) for name, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


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
            f"{path}: not a readable safetensors file ({error}); restore it from a backup or train "
            "again"
        ) from error
