"""Reading and writing weights as safetensors files."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor, nn

from melpatch.atomic import written_aside
from melpatch.errors import CheckpointError, ConfigError, shortened
from melpatch.faults import let_pass
from melpatch.opening import SETTINGS_BYTES, open_binary

_MOST_TENSORS = 10_000
_LONG_SHAPE = re.compile(rb'"shape"\s*:\s*\[[^\]]{1000}')
_LENGTH = 8  # bytes that give the length of a header, and to which it is padded


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
    metadata = {"format": "pt", **(about or {})}
    content = serialised(dict(state), metadata=metadata)
    # The library writes several of them in a random order; equal runs are to have equal files.
    path.write_bytes(_with_sorted_metadata(content) if len(metadata) > 1 else content)


def _with_sorted_metadata(content: bytes) -> bytes:
    """Return a safetensors file with the metadata in its header sorted by name."""
    end = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    header = json.loads(content[_LENGTH:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Padded as the library does, so that the numbers are aligned.
    text += b" " * (-len(text) % _LENGTH)
    return len(text).to_bytes(_LENGTH, "little") + text + content[end:]


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
    """Return the tensors of a safetensors file, each in memory of its own.

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
        _require_small_header(path)
        state = _read(path)
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


def _read(path: Path) -> dict[str, Tensor]:
    # A mapped file would stay in memory beside the copies, and change if somebody writes over it.
    # The copies are aligned as all tensors of torch, on which the last bit of a product may depend.
    with safe_open(path, framework="pt", backend="pread") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def _require_small_header(path: Path) -> None:
    """Raise ValueError if a safetensors file lists more tensors or dimensions than any network has.

    Each takes a few bytes, but the time to read them grows with the square of their number.
    """
    with open_binary(path) as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        if length > SETTINGS_BYTES:
            raise ValueError(
                f"a header of {length:,} bytes, more than the {SETTINGS_BYTES:,} expected"
            )
        header = file.read(length)
    if _LONG_SHAPE.search(header):
        raise ValueError("a tensor of more dimensions than expected")
    # Each tensor is a JSON object.
    objects = header.count(b"{")
    if objects > _MOST_TENSORS:
        raise ValueError(f"{objects:,} entries, more than the {_MOST_TENSORS:,} expected")


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

    A module that was built without weights (:mod:`melpatch.training.unfilled`) keeps tensors that
    fit it as they are, so do not change them afterwards; another one gets copies.

    Raises:
        ConfigError: they do not fit; the message names the first that does not. A module without
            weights may then still lack some.
    """
    own = module.state_dict()
    for name, value in state.items():
        if name not in own or own[name].is_floating_point() == value.is_floating_point():
            continue
        wanted = "floats" if own[name].is_floating_point() else "whole numbers"
        raise ConfigError(f"{name} holds {value.dtype} numbers instead of {wanted}")
    unfilled = any(value.is_meta for value in own.values())
    if unfilled:
        state = _to_keep(state, own)
    try:
        module.load_state_dict(dict(state), assign=unfilled)
    except RuntimeError as error:
        # torch lists one mismatch per line; the last one is enough for an error of one line.
        last = str(error).splitlines()[-1].strip()
        raise ConfigError(shortened(last, 300, typed=True)) from error


def _to_keep(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in the types of a module's own, no two of which share memory."""
    kept = {}
    memory = set()
    for name, value in state.items():
        storage = value.untyped_storage()
        whole = value.is_contiguous() and storage.nbytes() == value.nbytes
        dtype = own[name].dtype if name in own else value.dtype
        if value.dtype == dtype and whole and storage.data_ptr() not in memory:
            memory.add(storage.data_ptr())
            kept[name] = value.detach()
        else:
            copy = value.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
            kept[name] = copy
    return kept
