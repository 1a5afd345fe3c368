"""Weights of the published CNN14 of PANNs."""

import re
from collections.abc import Mapping, Set

from torch import Tensor

from melpatch.encoders.cnn14 import BLOCKS, CNN14, WIDTHS
from melpatch.errors import ConfigError
from melpatch.interop.base import Channels, Converted, WeightFormat, left_out
from melpatch.nn.positions import Resize

_USED = re.compile(r"bn0\.|conv_block\d+\.(conv|bn)[12]\.|fc1\.")


class PANNs(WeightFormat):
    """Published PANNs weights: ``bn0``, ``conv_block1`` to ``conv_block6``, ``fc1``.

    Its spectrograms are (frame, mel), ours (mel, frame), so that kernels are transposed. The front
    end and the classifier are left out.

    Source: Kong et al. 2020 (arXiv 1912.10211), the published code.
    """

    family = "CNN14 of PANNs"
    encoder = "cnn14"

    def recognises(self, keys: Set[str]) -> bool:
        """Return whether the keys hold PANNs' input norm and convolutions."""
        return {"bn0.weight", "conv_block1.conv1.weight"} <= keys

    def convert(
        self, state: Mapping[str, Tensor], encoder: CNN14, channels: Channels, how: Resize
    ) -> Converted:
        """Return the weights converted for a :class:`CNN14`; see :meth:`WeightFormat.convert`.

        ``channels`` and ``how`` are not used: there are no colours and no positions.
        """
        _check_size(state, encoder)
        converted: dict[str, Tensor] = {}
        unused: set[str] = set()
        for name, value in state.items():
            if _USED.match(name):
                # A kernel over (frame, mel) becomes a kernel over (mel, frame).
                converted[_own_name(name)] = value.transpose(2, 3) if value.ndim == 4 else value
            else:
                unused.add(name.split(".")[0])
        return Converted(converted, left_out(unused))


def _check_size(state: Mapping[str, Tensor], encoder: CNN14) -> None:
    """Raise ConfigError unless the weights are a CNN14's of the encoder's width and mels."""
    depth = sum(name.endswith(".conv2.weight") for name in state)
    if depth != BLOCKS or "fc1.weight" not in state:
        raise ConfigError(
            f"a PANNs network with {depth} convolution blocks; CNN14 has {BLOCKS}, and fc1"
        )
    width = len(state["conv_block1.conv1.weight"])
    if width != encoder.config.width:
        flag = f"--encoder.width {width}"
        for size, width_of_size in WIDTHS.items():
            if width_of_size == width:
                flag = f"--size {size}"
        raise ConfigError(f"width {width}, but the encoder has {encoder.config.width}; use {flag}")
    mels = len(state["bn0.weight"])
    if mels != encoder.grid.n_mels:
        raise ConfigError(
            f"trained on {mels} mels, but the front end has {encoder.grid.n_mels}; use a recipe "
            f"with the front end of PANNs (melpatch list recipes), or --front-end.n-mels {mels}"
        )


def _own_name(name: str) -> str:
    """Return the name of a parameter in :class:`CNN14`: blocks count from 0, fc1 is the neck."""
    name = re.sub(r"^conv_block(\d+)", lambda block: f"blocks.{int(block.group(1)) - 1}", name)
    return re.sub(r"^fc1\.", "neck.", name)
