"""CNN14 of PANNs, as published."""

import re
from collections.abc import Mapping, Set

from torch import Tensor

from melpatch.encoders.cnn14 import BLOCKS, CNN14, WIDTHS
from melpatch.errors import ConfigError
from melpatch.interop.base import Channels, Converted, WeightFormat
from melpatch.nn.positions import Resize

_USED = re.compile(r"bn0\.|conv_block\d+\.(conv|bn)[12]\.|fc1\.")


class PANNs(WeightFormat):
    """The names of the published PANNs code: ``bn0``, ``conv_block1`` to ``conv_block6``, ``fc1``.

    Source: Kong et al. 2020 (arXiv 1912.10211), the published code. Its images are (frame, mel), ours (mel, frame), so
    that kernels are transposed. Front end and classifier are left out.
    """

    family = "CNN14 of PANNs"
    encoder = "cnn14"

    def recognises(self, keys: Set[str]) -> bool:
        """Return whether there are PANNs' blocks of convolutions."""
        return {"bn0.weight", "conv_block1.conv1.weight"} <= keys

    def convert(
        self, state: Mapping[str, Tensor], encoder: CNN14, channels: Channels, how: Resize
    ) -> Converted:
        """Return the weights as a :class:`CNN14` takes them; see :meth:`WeightFormat.convert`. There are no colours
        and no positions here."""
        _check_size(state, encoder)
        found = {_ours(name): _turned(value) for name, value in state.items() if _USED.match(name)}
        left = sorted({name.split(".")[0] for name in state if not _USED.match(name)})
        return Converted(found, [f"left out: {', '.join(left)}"] if left else [])


def _check_size(state: Mapping[str, Tensor], encoder: CNN14) -> None:
    depth = sum(name.endswith(".conv2.weight") for name in state)
    if depth != BLOCKS or "fc1.weight" not in state:
        raise ConfigError(
            f"a network of PANNs with {depth} such blocks, not the {BLOCKS} and fc1 of CNN14"
        )
    width = len(state["conv_block1.conv1.weight"])
    if width != encoder.config.width:
        flag = next(
            (f"--size {name}" for name, one in WIDTHS.items() if one == width),
            f"--encoder.width {width}",
        )
        raise ConfigError(f"width {width}, but the encoder has {encoder.config.width}; use {flag}")
    mels = len(state["bn0.weight"])
    if mels != encoder.grid.n_mels:
        raise ConfigError(
            f"made for {mels} mels, but the front end gives {encoder.grid.n_mels}; use a recipe with the front end of "
            f"PANNs (melpatch list recipes), or --front-end.n-mels {mels}"
        )


def _ours(name: str) -> str:
    name = re.sub(r"^conv_block(\d+)", lambda block: f"blocks.{int(block.group(1)) - 1}", name)
    return re.sub(r"^fc1\.", "neck.", name)


def _turned(value: Tensor) -> Tensor:
    return value.transpose(2, 3) if value.ndim == 4 else value
