"""Weights of BYOL-A, versions 1 and 2."""

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from melpatch.audio import front_ends
from melpatch.encoders.byol_a import BLOCKS, BYOLA
from melpatch.errors import ConfigError
from melpatch.interop.base import Axes, Converted, Published, Reading, WeightFormat, left_out
from melpatch.weight_files import Weights

__registered__ = "BYOLAWeights"

_FIRST = "features.0.weight"
_BLOCK_MODULES = 4  # convolution, norm, ReLU and pooling
_SECONDS = 0.95  # of a published training piece
_SETTINGS = ("version", "channels", "hidden", "output")
_NEEDED = (_FIRST, "features.1.running_mean", "fc.0.weight", "fc.3.weight")


class BYOLAWeights(WeightFormat):
    """Weights of BYOL-A: ``features.0``, ``features.1`` and so on, ``fc.0``, ``fc.3``.

    They may stand behind a prefix. Version 1 has three blocks, version 2 two. The mean and the
    standard deviation of spectrograms are those of the data in hand, as published.

    Source: Niizumi et al. 2021 (arXiv 2103.06695) and 2023 (arXiv 2204.07402), published weights.
    """

    family = "BYOL-A"
    encoder = "byol_a"
    files = "AudioNTT2020-BYOLA-64x96d2048.pth and others, AudioNTT2022"
    needs = "nothing"
    licence = "NTT's, for evaluation only"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether the keys hold BYOL-A's convolutions and MLP behind one prefix."""
        prefixes = _prefixes(weights.state)
        if len(prefixes) != 1:
            return False
        return {f"{prefixes[0]}{name}" for name in _NEEDED} <= weights.state.keys()

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`."""
        state = _plain(weights.state)
        config = _config(state)
        # fc.0 takes the channels of all mels of a step.
        n_mels = state["fc.0.weight"].shape[1] // config.channels * 2 ** BLOCKS[config.version]
        front_end = replace(front_ends.byol_a(), n_mels=n_mels)
        frames = 1 + int(_SECONDS * front_end.sample_rate) // front_end.hop_length
        notes = ["mean and std are to be those of your clips, as published"]
        return Published(config, front_end, notes, frames)

    def convert(self, weights: Weights, encoder: BYOLA, reading: Reading) -> Converted:
        """Return the weights converted for a :class:`BYOLA`; see :meth:`WeightFormat.convert`."""
        state = _plain(weights.state)
        published = _config(state)
        for name in _SETTINGS:
            own = getattr(encoder.config, name)
            wanted = getattr(published, name)
            if own != wanted:
                raise ConfigError(
                    f"encoder.{name} = {own!r}, but these weights have {wanted!r}; use "
                    f"--encoder.{name} {wanted}"
                )
        converted = {}
        unused = set()
        for name, value in state.items():
            own_name = _own_name(name)
            if own_name in encoder.state_dict():
                converted[own_name] = value
            else:
                unused.add(name.split(".")[0])
        notes = left_out(unused)
        if encoder.config.trim != "pooling":
            note = "frames are cut before the first convolution (--encoder.trim pooling is theirs)"
            notes.insert(0, note)
        return Converted(converted, notes)


def _prefixes(state: Mapping[str, Tensor]) -> list[str]:
    """Return what stands before the names of convolutions, once per network in the file."""
    first = re.compile(r"(.*\.)?features\.0\.weight")
    return [key.removesuffix(_FIRST) for key in state if first.fullmatch(key)]


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the prefix of the network."""
    prefix = _prefixes(state)[0]
    return {key.removeprefix(prefix): value for key, value in state.items()}


def _config(state: Mapping[str, Tensor]) -> BYOLA.Config:
    """Return the settings that the tensors tell.

    Raises:
        ConfigError: there are as many blocks as in no version.
    """
    blocks = sum(value.ndim == 4 for key, value in state.items() if key.startswith("features."))
    for version, number in BLOCKS.items():
        if number == blocks:
            return BYOLA.Config(
                version=version,
                channels=len(state[_FIRST]),
                hidden=len(state["fc.0.weight"]),
                output=len(state["fc.3.weight"]),
                trim="pooling",
            )
    raise ConfigError(f"BYOL-A with {blocks} blocks; allowed: 3 (version 1) or 2 (version 2)")


def _own_name(name: str) -> str:
    """Return the name of a tensor in :class:`BYOLA`; that of another part stays as it is."""
    match = re.fullmatch(r"features\.(\d+)\.(\w+)", name)
    if match is None:
        return re.sub(r"^fc\.", "mlp.", name)
    block, module = divmod(int(match[1]), _BLOCK_MODULES)
    part = ("conv", "norm")[module]
    return f"blocks.{block}.{part}.{match[2]}"
