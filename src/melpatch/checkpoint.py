"""Reading and writing weights as safetensors files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from torch import Tensor, nn

from melpatch.atomic import written_aside
from melpatch.errors import CheckpointError, ConfigError, shortened
from melpatch.faults import let_pass
from melpatch.opening import require_regular


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


def load_weights(path: Path, *, finite: bool = True) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Args:
        path: the file.
        finite: whether weights that are no finite numbers are refused.

    Raises:
        CheckpointError: the file is missing or damaged, or holds a weight that is no finite number.
    """
    again = "restore it from a backup or train again"
    if not path.exists():
        raise CheckpointError(
            f"{path}: no such file; give the folder of a finished or interrupted run"
        )
    try:
        require_regular(path)
        state: dict[str, Tensor] = load_file(path)
    except OSError as error:
        let_pass(error)
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); {again}"
        ) from error
    # Besides its own error, the library lets through those of the header's text and numbers.
    except (
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
    ) as error:
        reason = shortened(error, typed=True)
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({reason}); {again}"
        ) from error
    if finite:
        require_finite(state, path)
    return state


def require_finite(state: Mapping[str, Tensor], source: object) -> None:
    """Raise CheckpointError if a weight is NaN or infinite: one spoils every output."""
    for name, value in state.items():
        # The sum is finite if all numbers are, and is computed faster than a test of each.
        if not value.is_floating_point() or bool(value.sum().isfinite()):
            continue
        wrong = int((~value.isfinite()).sum())
        if wrong:
            raise CheckpointError(
                f"{source}: {shortened(name, typed=True)} holds {wrong} of {value.numel()} weights "
                "that are NaN or infinite; restore it from a backup or train again"
            )


def load_into(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load weights into a module, which must have the same names, shapes and kinds of numbers.

    Raises:
        ConfigError: they do not fit; the message names the first that does not.
    """
    own = module.state_dict()
    for name, value in state.items():
        if name not in own or own[name].is_floating_point() == value.is_floating_point():
            continue
        wanted = "floats" if own[name].is_floating_point() else "whole numbers"
        raise ConfigError(f"{name} holds {value.dtype} numbers instead of {wanted}")
    try:
        module.load_state_dict(dict(state))
    except RuntimeError as error:
        # torch lists one mismatch per line; the last one is enough for an error of one line.
        last = str(error).splitlines()[-1].strip()
        raise ConfigError(shortened(last, 300, typed=True)) from error
