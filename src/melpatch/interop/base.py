"""Starting from other people's weights: reading a file or a Hub repository, and finding out whose names are in it."""

import argparse
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from melpatch import registry
from melpatch.checkpoint import load_weights
from melpatch.config import check
from melpatch.errors import CheckpointError, ConfigError
from melpatch.nn.positions import Resize
from melpatch.objectives.base import Objective

ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
HUB = "hf:"
Channels = Literal["sum", "mean"]

# What a torch pickle may hold besides tensors: data that published checkpoints carry (the arguments of MAE and its
# kin, the samplers of PANNs), under the names of numpy 1 too. None of it runs code.
_ARRAY, _SCALAR = np.ndarray(0).__reduce__()[0], np.float64(0).__reduce__()[0]
_PLAIN: list[Any] = [
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "uint32", "float32", "float64", "O", "S", "U")),
    *((function, f"numpy.{core}.multiarray.{name}") for core in ("core", "_core")
      for name, function in (("_reconstruct", _ARRAY), ("scalar", _SCALAR))),
]  # fmt: skip

_STRANGERS = {
    "wav2vec 2.0, HuBERT or WavLM": r"feature_extractor\.conv_layers\.0\.",
    "MAE-AST": r"^(encoder|decoder)_mask_emb",
    "BEATs": r"^patch_embedding\.weight$",
    "data2vec 2.0 or EAT": r"(^|\.)modality_encoders\.",
    "PaSST": r"^(freq|time)_new_pos_embed$",
    "ATST": r"^model\.(teacher|student)\.encoder\.",
    "a Swin transformer or BEiT": r"^(?!decoder).*(relative_position|rel_pos)",  # the decoder of AudioMAE is a Swin
}
"""Families that no encoder here can take, by a key that gives them away."""


class Converted(NamedTuple):
    """Foreign weights, ready for an encoder of ours."""

    state: dict[str, Tensor]
    """Everything the encoder's state dict has, under its names."""
    notes: list[str]
    """What was done to make them fit, in words."""


class WeightFormat(ABC):
    """The names under which others publish an encoder's weights, and their places in an encoder of ours.

    Attributes:
        family: whose names they are.
        encoder: the kind of encoder that takes them, as registered.
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
        """Return the weights as the encoder takes them.

        Args:
            state: tensors under their foreign names.
            encoder: of the kind that :attr:`encoder` names; it is not changed.
            channels: whether the three colours that a kernel was made for are summed or averaged.
            how: the way of resizing positions, see :func:`melpatch.nn.positions.resize`.

        Raises:
            ConfigError: they do not fit; the message says what they are and which flag fits the encoder to them.
        """


def is_weights(source: str) -> bool:
    """Return whether this names a weight file or a Hub repository, and not a run folder."""
    path = Path(source)
    return (
        source.startswith(HUB) or path.is_file() or (path.suffix in ENDINGS and not path.is_dir())
    )


def require_weights(source: str) -> None:
    """Raise a CheckpointError if this is no weight file, and no repository either."""
    if not source.startswith(HUB) and not Path(source).is_file():
        raise CheckpointError(
            f"{source}: no such file; give a weight file ({', '.join(ENDINGS)}) or {HUB}owner/name"
        )


def start_from_weights(
    objective: Objective, source: str, channels: Channels = "sum", how: Resize | None = None
) -> str:
    """Put foreign weights into an objective's encoder; return a sentence that says what was put where.

    Args:
        objective: whose encoder to fill.
        source: see :func:`read_state`.
        channels: what is done with the three colours of an image model's first kernel. AST sums them.
        how: the way of resizing positions; by default "legacy", as published for AST.

    Raises:
        CheckpointError: the source cannot be read.
        ConfigError: its format is not known, or it does not fit the encoder.
    """
    encoder, state = objective.encoder, read_state(source)
    try:
        found = recognise(state.keys())
        if not isinstance(encoder, registry.find("encoders", found.encoder)):
            ours, keys = registry.name_of(type(encoder)), ", ".join(list(state)[:3])
            raise ConfigError(
                f"looks like {found.family} (keys {keys}...), but the encoder is {ours}; use --encoder {found.encoder}"
            )
        converted = found.convert(state, encoder, channels, how or "legacy")
        encoder.load_state_dict(converted.state)
    except (ConfigError, RuntimeError) as error:
        raise ConfigError(f"{source}: {str(error).splitlines()[-1].strip()}") from error
    return f"the encoder starts from {source}: {'; '.join([found.family, *converted.notes])}"


def recognise(keys: Set[str]) -> WeightFormat:
    """Return the format of a state dict with these keys.

    Raises:
        ConfigError: it is none of ours; the message names its family, where the keys tell.
    """
    formats: list[WeightFormat] = [
        registry.find("interop", name)() for name in registry.all_names("interop")
    ]
    known = "; ".join(one.family for one in formats)
    for family, telltale in _STRANGERS.items():
        for key in keys:
            if re.search(telltale, key):
                raise ConfigError(
                    f"looks like {family} (key {key}), which no encoder here can take; allowed: {known}"
                )
    for one in formats:
        if one.recognises(keys):
            return one
    raise ConfigError(
        f"weights of a kind not known here (keys {', '.join(sorted(keys)[:3])}...); allowed: {known}"
    )


def read_state(source: str) -> dict[str, Tensor]:
    """Return the tensors of a weight file by name, without the wrappings of training code.

    Args:
        source: a ``.safetensors`` file, a torch pickle, of which nothing but plain data is opened, or
            ``hf:owner/name[/file]`` for a repository of the Hugging Face Hub.

    Raises:
        CheckpointError: it is missing, damaged, no state dict, or a pickle that names code.
        ConfigError: the Hub is asked for without its library.
    """
    require_weights(source)
    path = _fetched(source.removeprefix(HUB)) if source.startswith(HUB) else Path(source)
    loaded: Any = load_weights(path) if path.suffix == ".safetensors" else _unpickled(path)
    for wrapping in ("model", "state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapping), Mapping):
            loaded = loaded[wrapping]
    tensors = {}
    if isinstance(loaded, Mapping):
        tensors = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(
            f"{source}: holds no state dict (tensors by name); save model.state_dict()"
        )
    wrapped = all(name.startswith("module.") for name in tensors)
    return {
        name.removeprefix("module.") if wrapped else name: value for name, value in tensors.items()
    }


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(_PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code:
            raise CheckpointError(
                f"{path}: opening it would run code ({code.group(1)}), so it stays closed; where you trust it, save "
                "its state dict as .safetensors and give that"
            ) from error
        # Of torch's own words not the first, which advise to open it all the same.
        reason = str(error).split("WeightsUnpickler error:")[-1].strip().split("\n")[0]
        raise CheckpointError(
            f"{path}: not a readable torch file ({type(error).__name__}: {reason}); fetch it again, or give "
            "a .safetensors file"
        ) from error


def _fetched(name: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise ConfigError(
            f"{HUB}{name} needs huggingface_hub; pip install 'melpatch[hub]', or give a file"
        ) from error
    owner, repository, *inside = name.split("/", 2)[:3] if name.count("/") else ("", "")
    check(
        bool(owner and repository), "init", HUB + name, f"{HUB}owner/name or {HUB}owner/name/FILE"
    )
    reasons = []
    for file in inside or ("model.safetensors", "pytorch_model.bin"):
        try:
            return Path(hf_hub_download(repo_id=f"{owner}/{repository}", filename=file))
        except (OSError, ValueError, EntryNotFoundError) as error:
            reasons.append(f"{file}: {type(error).__name__}, {str(error).strip().splitlines()[0]}")
    raise CheckpointError(
        f"{HUB}{name}: cannot be fetched ({'; '.join(reasons)}); check name, network and access, or name another file: "
        f"{HUB}{owner}/{repository}/FILE"
    )
