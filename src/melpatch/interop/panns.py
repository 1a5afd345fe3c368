"""Weights of the published CNN14, CNN10 and CNN6 of PANNs."""

import re
from collections.abc import Mapping

from torch import Tensor

from melpatch.audio import front_ends
from melpatch.encoders.cnn14 import CNN14, PLANS, WIDTHS, Network
from melpatch.errors import ConfigError
from melpatch.interop.base import (
    Axes,
    Converted,
    Head,
    Published,
    Reading,
    WeightFormat,
    left_out,
)
from melpatch.weight_files import Weights

_RATES = {1024: 32000, 512: 16000, 256: 8000}
"""Sampling rate of the published models, by the points of their Fourier transform."""
_STFT = "spectrogram_extractor.stft.conv_real.weight"
_CLASSIFIER = "fc_audioset"
_SECONDS = 10.0  # clips of AudioSet
_USED = re.compile(r"bn0\.|conv_block\d+\.(conv|bn)[12]\.|fc1\.")


class PANNs(WeightFormat):
    """Published PANNs weights: ``bn0``, ``conv_block1`` and so on, ``fc1``, ``fc_audioset``.

    Its spectrograms are (frame, mel), ours (mel, frame), so that kernels are transposed. The front
    end in the file is not read.

    Source: Kong et al. 2020 (arXiv 1912.10211), the published code.
    """

    family = "CNN14, CNN10 or CNN6 of PANNs"
    encoder = "cnn14"
    files = "Cnn14_mAP=0.431.pth, Cnn10_mAP=0.380.pth, Cnn6_mAP=0.343.pth; also at 16 and 8 kHz"
    needs = "a recipe with its pooling: finetune --recipe cnn14_own"
    licence = "CC BY 4.0"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether the keys hold PANNs' input norm and convolutions."""
        return {"bn0.weight", "conv_block1.conv1.weight"} <= weights.state.keys()

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`.

        The rate is told by the Fourier transform that the file holds; without one it is 32 kHz.
        """
        state = weights.state
        width = len(state["conv_block1.conv1.weight"])
        sample_rate = 32000
        notes = []
        if _STFT in state:
            points = int(state[_STFT].shape[-1])
            if points not in _RATES:
                known = ", ".join(map(str, _RATES))
                raise ConfigError(f"{_STFT} has {points} points; allowed: {known}, as published")
            sample_rate = _RATES[points]
        else:
            notes.append("no spectrogram_extractor in the file, so the rate is taken to be 32 kHz")
        encoder = CNN14.Config(network=_network(state), width=width, trim="pooling")
        return Published(encoder, front_ends.panns(sample_rate), notes)

    def convert(self, weights: Weights, encoder: CNN14, reading: Reading) -> Converted:
        """Return the weights converted for a :class:`CNN14`; see :meth:`WeightFormat.convert`.

        ``reading`` is not used: there are no colours and no positions.
        """
        state = weights.state
        _check_size(state, encoder)
        converted: dict[str, Tensor] = {}
        unused: set[str] = set()
        for name, value in state.items():
            if _USED.match(name):
                # A kernel over (frame, mel) becomes a kernel over (mel, frame).
                converted[_own_name(name)] = value.transpose(2, 3) if value.ndim == 4 else value
            else:
                unused.add(name.split(".")[0])
        notes = left_out(unused)
        if encoder.config.trim != "pooling":
            note = "frames are cut before the first convolution (--encoder.trim pooling is theirs)"
            notes.insert(0, note)
        return Converted(converted, notes)

    def head(self, weights: Weights, reading: Reading) -> Head | None:
        """Return the head ``fc_audioset``: a linear layer on the embedding, a sigmoid per class."""
        if f"{_CLASSIFIER}.weight" not in weights.state:
            return None
        return Head(linear=_CLASSIFIER, multi_label=True, seconds=_SECONDS)


def _check_size(state: Mapping[str, Tensor], encoder: CNN14) -> None:
    """Raise ConfigError unless the weights are a CNN14's of the encoder's width and mels."""
    network = _network(state)
    if network != encoder.config.network:
        raise ConfigError(
            f"encoder.network = {encoder.config.network!r}, but these weights are of {network!r}; "
            f"use --encoder.network {network}"
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


def _network(state: Mapping[str, Tensor]) -> Network:
    """Return which network the weights are of.

    Raises:
        ConfigError: its blocks are those of none of them, or fc1 is missing.
    """
    kernels = [name for name in state if re.fullmatch(r"conv_block\d+\.conv[12]\.weight", name)]
    blocks = len({name.split(".")[0] for name in kernels})
    size = len(state["conv_block1.conv1.weight"][0, 0])
    given = (blocks, len(kernels), size)
    for network, plan in PLANS.items():
        published = (plan.blocks, plan.blocks * plan.convolutions, plan.kernel)
        if given == published and "fc1.weight" in state:
            return network
    raise ConfigError(
        f"a PANNs network with {blocks} blocks and {len(kernels)} convolutions of {size} x {size}; "
        "allowed: those of CNN14, CNN10 and CNN6, with fc1"
    )


def _own_name(name: str) -> str:
    """Return the name of a parameter in :class:`CNN14`: blocks count from 0, fc1 is the neck."""
    name = re.sub(r"^conv_block(\d+)", lambda block: f"blocks.{int(block.group(1)) - 1}", name)
    return re.sub(r"^fc1\.", "neck.", name)
