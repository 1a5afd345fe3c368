"""Starting from published weights: reading a file or a Hub repository, recognising its format."""

import argparse
import re
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from melpatch import registry
from melpatch.checkpoint import load_into, load_weights, require_finite
from melpatch.config import check
from melpatch.encoders.base import Encoder
from melpatch.errors import CheckpointError, ConfigError, shortened
from melpatch.nn.positions import Resize
from melpatch.objectives.base import Objective
from melpatch.opening import require_no_bomb, require_regular

ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
HUB = "hf:"
Channels = Literal["sum", "mean"]

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

_UNSUPPORTED = {
    "wav2vec 2.0, HuBERT or WavLM": r"feature_extractor\.conv_layers\.0\.",
    "MAE-AST": r"^(encoder|decoder)_mask_emb",
    "BEATs": r"^patch_embedding\.weight$",
    "data2vec 2.0 or EAT": r"(^|\.)modality_encoders\.",
    "PaSST": r"^(freq|time)_new_pos_embed$",
    "ATST": r"^model\.(teacher|student)\.encoder\.",
    # Not in the decoder: that of AudioMAE is a Swin, its encoder a plain ViT.
    "a Swin transformer or BEiT": r"^(?!decoder).*(relative_position|rel_pos)",
}
"""Families that no encoder here supports, each with a pattern of a key that only it has."""


class Converted(NamedTuple):
    """Published weights, converted for an encoder."""

    state: dict[str, Tensor]
    """The complete state dict of the encoder."""
    notes: list[str]
    """How the weights were changed to fit, for the user."""


class WeightFormat(ABC):
    """A format of published weights: its key names, and how they map to an encoder's.

    Attributes:
        family: the models published in this format, for messages.
        encoder: registered name of the encoder that takes the weights.
    """

    family: ClassVar[str]
    encoder: ClassVar[str]

    @abstractmethod
    def recognises(self, keys: Set[str]) -> bool:
        """Return whether a state dict with these keys is of this format."""

    @abstractmethod
    def convert(
        self, state: Mapping[str, Tensor], encoder: Any, channels: Channels, how: Resize
    ) -> Converted:
        """Return the weights converted for an encoder.

        Args:
            state: tensors under their published names.
            encoder: an encoder of the class that :attr:`encoder` names; it is not changed.
            channels: whether the three colour channels of a kernel are summed or averaged.
            how: how to resize positions, see :func:`melpatch.nn.positions.resize`.

        Raises:
            ConfigError: they do not fit the encoder; the message names the flag that makes it fit.
        """


def left_out(parts: Set[str]) -> list[str]:
    """Return a note on the parts of a file that are left out; no note if there are none."""
    if not parts:
        return []
    return [f"left out: {', '.join(sorted(parts))}"]


def is_weights(source: str) -> bool:
    """Return whether this names a weight file or a Hub repository, rather than a run folder."""
    if source.startswith(HUB):
        return True
    path = Path(source)
    return path.is_file() or (path.suffix in ENDINGS and not path.is_dir())


def require_weights(source: str) -> None:
    """Raise CheckpointError if this is neither a weight file nor a Hub repository."""
    if not source.startswith(HUB) and not Path(source).is_file():
        raise CheckpointError(
            f"{source}: no such file; give a weight file ({', '.join(ENDINGS)}) or {HUB}owner/name"
        )


def start_from_weights(
    objective: Objective, source: str, channels: Channels = "sum", how: Resize | None = None
) -> str:
    """Load published weights into an objective's encoder; return a sentence for the user on it.

    Args:
        objective: the objective whose encoder is filled.
        source: see :func:`read_state`.
        channels: what is done with the three colour channels of an image model's first kernel. AST
            sums them.
        how: how to resize positions; by default "legacy", as published for AST.

    Raises:
        CheckpointError: the source cannot be read.
        ConfigError: its format is unknown, or it does not fit the encoder.
    """
    encoder = objective.encoder
    state = read_state(source)
    try:
        weight_format = recognise(state.keys())
        _require_encoder(encoder, weight_format, state.keys())
        converted = _converted(weight_format, state, encoder, channels, how or "legacy")
        # Only what is used counts: the parts that are left out may hold masks of -inf.
        require_finite(converted.state, source)
        load_into(encoder, converted.state)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    notes = "; ".join([weight_format.family, *converted.notes])
    return f"the encoder starts from {source}: {notes}"


def _converted(
    weight_format: WeightFormat,
    state: Mapping[str, Tensor],
    encoder: Encoder,
    channels: Channels,
    how: Resize,
) -> Converted:
    """Return the weights converted for an encoder.

    Raises:
        ConfigError: they do not fit, or their shapes are not those of the format.
    """
    # Checked for all formats at once: numbers of other types are averaged and resized wrongly.
    for name, value in state.items():
        if value.is_complex():
            raise ConfigError(f"{shortened(name, typed=True)} holds complex numbers, not weights")
    try:
        return weight_format.convert(state, encoder, channels, how)
    # What a format does with a tensor of another shape, or without one of its tensors.
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip() if str(error) else ""
        raise ConfigError(
            f"the tensors are not those of {weight_format.family} "
            f"({type(error).__name__}: {shortened(reason, typed=True)}); give the published file"
        ) from error


def _require_encoder(encoder: Encoder, weight_format: WeightFormat, keys: Set[str]) -> None:
    """Raise ConfigError if the encoder is not of the class that takes weights in this format."""
    if isinstance(encoder, registry.find("encoders", weight_format.encoder)):
        return
    first_keys = shortened(", ".join(list(keys)[:3]), typed=True)
    raise ConfigError(
        f"looks like {weight_format.family} (keys {first_keys}...), but the encoder is "
        f"{registry.name_of(type(encoder))}; use --encoder {weight_format.encoder}"
    )


def recognise(keys: Set[str]) -> WeightFormat:
    """Return the format of a state dict with these keys.

    Raises:
        ConfigError: the format is not supported; the message names its family if it is known.
    """
    names = registry.all_names("interop")
    formats: list[WeightFormat] = [registry.find("interop", name)() for name in names]
    allowed = "; ".join(weight_format.family for weight_format in formats)
    # Unsupported families come first: some of them have the keys of a supported one as well.
    for family, pattern in _UNSUPPORTED.items():
        for key in keys:
            if re.search(pattern, key):
                raise ConfigError(
                    f"looks like {family} (key {shortened(key, typed=True)}), "
                    "which no encoder here can take; "
                    f"allowed: {allowed}"
                )
    for weight_format in formats:
        if weight_format.recognises(keys):
            return weight_format
    first_keys = shortened(", ".join(sorted(keys)[:3]), typed=True)
    raise ConfigError(f"weights of an unknown format (keys {first_keys}...); allowed: {allowed}")


def read_state(source: str) -> dict[str, Tensor]:
    """Return the tensors of a weight file by name.

    Args:
        source: a ``.safetensors`` file; a torch pickle, of which only plain data is loaded; or
            ``hf:owner/name[/file]`` for a repository of the Hugging Face Hub.

    Raises:
        CheckpointError: it is missing, damaged, holds no state dict, or is a pickle that would run
            code.
        ConfigError: the Hub's library is not installed, or the repository's name is not valid.
    """
    require_weights(source)
    path = Path(source)
    if source.startswith(HUB):
        path = _download(source.removeprefix(HUB))
    loaded: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _unpickle(path)
    # Training code saves the state dict within a dictionary, beside the optimiser's and others.
    for key in ("model", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    tensors = {}
    if isinstance(loaded, Mapping):
        tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(
            f"{source}: holds no state dict (tensors by name); save model.state_dict()"
        )
    for name, value in tensors.items():
        _require_plain(source, name, value)
    # DataParallel and DDP put "module." before every name.
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    # Parts that are not used may hold anything; the others are checked once they are chosen.
    return load_weights(path, finite=False)


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
    files = [file] if "/" in rest else ["model.safetensors", "pytorch_model.bin"]
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
