"""Files of weights by other code: which names mean them, and what they hold, without running code."""

import argparse
import json
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from melpatch.checkpoint import load_weights
from melpatch.config import check
from melpatch.errors import CheckpointError, ConfigError, shortened
from melpatch.opening import read_json, require_no_bomb, require_regular

ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
HUB = "hf:"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
"""The weight files of a Hugging Face repository, the preferred one first."""
FACT_FILES = ("config.json", "preprocessor_config.json")
"""Files beside those that describe the model and its front end."""

# Besides tensors, published checkpoints hold plain data: the arguments of MAE and models derived
# from it, the sampler state of PANNs. A torch pickle may hold these types; none of them runs code.
_DTYPES = ("bool", "int32", "int64", "uint32", "float32", "float64", "O", "S", "U")
_RECONSTRUCT_ARRAY = np.ndarray(0).__reduce__()[0]
_RECONSTRUCT_SCALAR = np.float64(0).__reduce__()[0]
_SAFE_TYPES: list[Any] = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    *(type(np.dtype(name)) for name in _DTYPES),
    # The names of numpy 1, then those of numpy 2.
    (_RECONSTRUCT_ARRAY, "numpy.core.multiarray._reconstruct"),
    (_RECONSTRUCT_SCALAR, "numpy.core.multiarray.scalar"),
    (_RECONSTRUCT_ARRAY, "numpy._core.multiarray._reconstruct"),
    (_RECONSTRUCT_SCALAR, "numpy._core.multiarray.scalar"),
]


class Weights(NamedTuple):
    """What a weight file holds."""

    state: dict[str, Tensor]
    """Tensors under their published names."""
    facts: dict[str, Any]
    """Plain data that describes them: ``args``, ``cfg``, ``config`` or ``label_dict`` of the
    training code, the files ``config`` and ``preprocessor_config`` of Hugging Face, the header
    ``melpatch`` of an export; each may be missing."""


def without_prefix(
    state: Mapping[str, Tensor], prefixes: Sequence[str], key: str
) -> dict[str, Tensor]:
    """Return the tensors behind the first prefix with which a key is there; none if it never is."""
    for prefix in prefixes:
        if f"{prefix}{key}" in state:
            return {
                name.removeprefix(prefix): value
                for name, value in state.items()
                if name.startswith(prefix)
            }
    return {}


def is_on_hub(source: str) -> bool:
    """Return whether this names a repository of the Hub."""
    return source.startswith(HUB)


def is_weights(source: str) -> bool:
    """Return whether this names weights of other code, rather than a run folder."""
    if is_on_hub(source):
        return True
    path = Path(source)
    if path.is_dir():
        return not (path / "config.toml").exists() and _holds_weights(path)
    return path.is_file() or path.suffix in ENDINGS


def require_run_folder(run: Path, kept: str, besides: str = "") -> None:
    """Raise ConfigError if this names weights of other code, beside which nothing is written.

    Args:
        run: what the user gave as a run.
        kept: what is written into a run folder.
        besides: another remedy than to import the weights.
    """
    if is_weights(str(run)):
        raise ConfigError(
            f"{run}: is no run folder, where {kept} are kept; {besides}make it one with "
            f"melpatch import {run} --out RUN"
        )


def _holds_weights(folder: Path) -> bool:
    """Return whether a folder holds weights as Hugging Face saves them."""
    return any((folder / name).is_file() for name in HUB_FILES)


def is_there(source: str) -> bool:
    """Return whether local weights exist; those of the Hub are taken to exist."""
    return is_on_hub(source) or Path(source).is_file() or _holds_weights(Path(source))


def require_weights(source: str) -> None:
    """Raise CheckpointError if this names weights that do not exist."""
    if is_there(source):
        return
    problem = "no such file"
    if Path(source).is_dir():
        problem = f"holds no {' or '.join(HUB_FILES)}"
    if Path(source, f"{HUB_FILES[0]}.index.json").exists():
        problem = f"holds its weights in several files; save them as one, {HUB_FILES[0]}"
    raise CheckpointError(
        f"{source}: {problem}; give a weight file ({', '.join(ENDINGS)}), a folder of Hugging Face "
        f"or {HUB}owner/name"
    )


def read_state(source: str) -> dict[str, Tensor]:
    """Return the tensors of a weight file by name; see :func:`read_weights`."""
    return read_weights(source).state


def read_weights(source: str) -> Weights:
    """Return the tensors of a weight file, and the plain facts that lie with them.

    Args:
        source: a ``.safetensors`` file; a torch pickle, of which only plain data is loaded; a
            folder of Hugging Face, or ``hf:owner/name[/file]`` for a repository of its Hub.

    Raises:
        CheckpointError: it is missing, damaged, holds no state dict, or is a pickle that would run
            code.
        ConfigError: the Hub's library is not installed, or the repository's name is not valid.
    """
    require_weights(source)
    path = _located(source)
    facts = _facts_beside(source, path)
    if path.suffix == ".safetensors":
        loaded: Any = _read_safetensors(path)
        facts |= _header(path)
    else:
        loaded = _unpickle(path)
    facts |= _training_settings(loaded)
    tensors = _state_dict(source, loaded)
    for name, value in tensors.items():
        _require_plain(source, name, value)
    # DataParallel and DDP put "module." before every name.
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return Weights(tensors, facts)


def _located(source: str) -> Path:
    """Return the weight file that a source names; that of the Hub is downloaded."""
    if is_on_hub(source):
        return _download(source.removeprefix(HUB))
    path = Path(source)
    if not path.is_dir():
        return path
    return next(path / name for name in HUB_FILES if (path / name).is_file())


def _facts_beside(source: str, path: Path) -> dict[str, Any]:
    """Return what the JSON files beside a weight file of Hugging Face say, by their stems.

    Raises:
        CheckpointError: one of them is damaged.
    """
    facts = {}
    # Beside a file of another name they need not describe it.
    for name in FACT_FILES if path.name in HUB_FILES else ():
        beside: Path | None = path.with_name(name)
        if is_on_hub(source):
            beside = _download_fact(source.removeprefix(HUB), name)
        if beside is None or not beside.is_file():
            continue
        try:
            facts[beside.stem] = read_json(beside)
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{beside}: not readable settings ({shortened(str(error), typed=True)}); "
                "download it again"
            ) from error
    return facts


def _training_settings(loaded: Any) -> dict[str, Any]:
    """Return the settings of the training code that stand beside a state dict."""
    settings = {}
    for name in ("args", "cfg", "config", "label_dict"):
        value = loaded.get(name) if isinstance(loaded, Mapping) else None
        if isinstance(value, argparse.Namespace):
            value = vars(value)
        if isinstance(value, Mapping):
            settings[name] = dict(value)
    return settings


def _state_dict(source: str, loaded: Any) -> dict[str, Tensor]:
    """Return the state dict within what a file holds.

    Raises:
        CheckpointError: there is none.
    """
    # Training code saves the state dict within a dictionary, beside the optimiser's and others.
    # Of a student and a teacher, the teacher is the model to use (ASiT).
    for key in ("model", "state_dict", "teacher"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    tensors = {}
    if isinstance(loaded, Mapping):
        tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(
            f"{source}: holds no state dict (tensors by name); save model.state_dict()"
        )
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    # Parts that are not used may hold anything; the others are checked once they are chosen.
    return load_weights(path, finite=False)


def _header(path: Path) -> dict[str, Any]:
    """Return the settings that an export of melpatch keeps in the header of its file.

    Raises:
        CheckpointError: they are damaged.
    """
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get("melpatch")
    if text is None:
        return {}
    try:
        return {"melpatch": json.loads(text)}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: the entry melpatch of its header is no JSON "
            f"({shortened(str(error), typed=True)}); export the run again"
        ) from error


def _require_plain(source: str, name: str, value: Tensor) -> None:
    """Raise CheckpointError unless a tensor is plain numbers that are all in the file.

    A pickle of a few bytes can state a tensor of any size: one number, repeated.
    """
    plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    if plain and value.numel() * value.element_size() <= value.untyped_storage().nbytes():
        return
    raise CheckpointError(
        f"{source}: {shortened(name, typed=True)} is not a plain tensor "
        "(sparse, quantised, or larger than what is stored); save a state dict of plain tensors"
    )


def _unpickle(path: Path) -> Any:
    """Load plain data and tensors from a torch pickle; see :func:`read_state` for the errors."""
    try:
        require_regular(path)
        if zipfile.is_zipfile(path):
            require_no_bomb(path)
        with (
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals(_SAFE_TYPES),
        ):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise CheckpointError(
                f"{path}: opening it would run code ({code.group(1)}), so it stays closed; if you "
                "trust it, save its state dict as .safetensors and give that"
            ) from error
        if path.suffix.lower() not in ENDINGS and not zipfile.is_zipfile(path):
            raise CheckpointError(
                f"{path}: holds no weights; give a run folder or a weight file "
                f"({', '.join(ENDINGS)}), and tables of clips with --data"
            ) from error
        # The first part of torch's message is left out: it advises to load the file unsafely.
        reason = str(error).split("WeightsUnpickler error:")[-1].strip().split("\n")[0]
        reason = shortened(reason, typed=True)
        raise CheckpointError(
            f"{path}: not a readable torch file ({type(error).__name__}: {reason}); download it "
            "again, or give a .safetensors file"
        ) from error


def _download(name: str) -> Path:
    """Return the path of a file downloaded from the Hub; see :func:`read_state` for the errors."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise ConfigError(
            f"{HUB}{name} needs huggingface_hub; pip install 'melpatch[hub]', or give a file"
        ) from error
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    allowed = f"{HUB}owner/name or {HUB}owner/name/FILE"
    check(bool(owner and repository), "init", HUB + name, allowed)
    files = [file] if "/" in rest else [*HUB_FILES]
    reasons = []
    for file in files:
        try:
            return Path(hf_hub_download(repo_id=f"{owner}/{repository}", filename=file))
        except (OSError, ValueError, EntryNotFoundError) as error:
            reasons.append(f"{file}: {type(error).__name__}, {str(error).strip().splitlines()[0]}")
    raise CheckpointError(
        f"{HUB}{name}: cannot be downloaded ({'; '.join(reasons)}); check the name, the network "
        f"and your access, or name another file: {HUB}{owner}/{repository}/FILE"
    )


def _download_fact(name: str, file: str) -> Path | None:
    """Return the path of a file that describes weights of the Hub, or None if there is none.

    Raises:
        CheckpointError: it cannot be fetched now.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    owner, _, rest = name.partition("/")
    repository = rest.partition("/")[0]
    try:
        return Path(hf_hub_download(repo_id=f"{owner}/{repository}", filename=file))
    except (OSError, ValueError, EntryNotFoundError) as error:
        # Only the Hub knows that there is none; without a network there may be one.
        is_absent = isinstance(error, EntryNotFoundError)
        if is_absent and not type(error).__name__.startswith("Local"):
            return None
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"{HUB}{name}: {file} cannot be downloaded ({type(error).__name__}, {reason}); check "
            "the network, or give a folder with the weights and that file"
        ) from error
