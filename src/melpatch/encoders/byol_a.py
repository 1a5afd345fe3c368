"""The small CNN of BYOL-A, versions 1 and 2: convolutions, then an MLP on each step of time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from melpatch.config import check
from melpatch.encoders.base import Encoded, Encoder, EncoderConfig
from melpatch.nn.batch_norm import MaskedBatchNorm
from melpatch.nn.grid import PatchGrid
from melpatch.nn.masked import halved, masked_max, masked_mean, silenced, sounding_frames
from melpatch.nn.pooling import LayerOutputs

Version = Literal["v1", "v2"]
BLOCKS: dict[Version, int] = {"v1": 3, "v2": 2}
"""Blocks of each version; each halves mels and frames."""
WIDTHS = {"nano": 128, "mini": 256, "tiny": 512, "small": 1024, "base": 2048, "large": 4096}
"""Width of the MLP of each size; published are tiny, small and base in version 1, base in 2."""


class BYOLA(Encoder):
    """The CNN of BYOL-A; padding never influences valid frames.

    >>> encoder = BYOLA(size="base", n_mels=64)  # or BYOLA(config, n_mels)
    >>> patches, cls, _ = encoder(torch.zeros(2, 64, 96))  # (clip, mel, frame)
    >>> patches.shape, cls.shape
    (torch.Size([2, 24, 3072]), torch.Size([2, 1, 3072]))

    Blocks of a convolution, a norm, ReLU and a max pooling give a step per 4 frames (8 in version
    1). The channels of all mels of a step, side by side, go through an MLP; version 2 puts what
    they were before it. A token is a step. The one special token is the published embedding: the
    maximum of the tokens over time plus their mean (pooling "cls").

    The layers are the blocks and the MLP. In ``Encoded.layers``, a block's tokens are averages over
    mels and the frames of a step, and the special token is their maximum over time plus their mean.
    If the frames are no multiple of a step, the rest at the end is cut before the first
    convolution, or as published in the poolings; see ``trim``. Weights start as torch's.

    Source: Niizumi et al. 2021 (arXiv 2103.06695) and 2023 (arXiv 2204.07402). *Differs*: there may
    be any number of mels; a clip shorter than a step is completed with zeros.

    Args:
        config: the settings; None for those of ``size``, or the defaults.
        n_mels: mel bins of the spectrograms.
        size: nano, mini, tiny, small, base or large, instead of a config.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(EncoderConfig):
        """Settings of the CNN of BYOL-A."""

        version: Version = "v2"
        """"v1" has three blocks, and its tokens are the MLP's outputs; "v2" has two, and its tokens
        hold the MLP's inputs too."""
        channels: int = 64
        """Channels of each block."""
        hidden: int = 2048
        """Hidden width of the MLP."""
        output: int = 2048
        """Output width of the MLP."""
        dropout: float = 0.0
        """Probability that a hidden value of the MLP is dropped in training."""
        trim: Literal["before", "pooling"] = "before"
        """Where frames past the last whole step are dropped: "before" the first convolution, or one
        by one in each "pooling" (published), so that the last ones still count a little."""

        def __post_init__(self) -> None:
            allowed = " or ".join(get_args(Version))
            check(self.version in BLOCKS, "version", self.version, allowed)
            check(self.trim in ("before", "pooling"), "trim", self.trim, "'before' or 'pooling'")
            for name in ("channels", "hidden", "output"):
                value = getattr(self, name)
                check(value >= 1, name, value, "1 or more")
            fits = 0.0 <= self.dropout < 1.0
            check(fits, "dropout", self.dropout, "from 0 up to, not including, 1")

        @classmethod
        def of_size(cls, size: str, **settings: Any) -> "BYOLA.Config":
            """Return the settings of a size in :data:`WIDTHS`, changed as given."""
            check(size in WIDTHS, "size", size, ", ".join(WIDTHS))
            width = WIDTHS[size]
            return cls(**{"hidden": width, "output": width, **settings})

    config: Config

    def __init__(
        self, config: Config | None = None, n_mels: int = 128, *, size: str | None = None
    ) -> None:
        super().__init__()
        config = self.resolve(config, size)
        blocks = BLOCKS[config.version]
        frames = 2**blocks
        allowed = f"{frames} or more, since this encoder halves them {blocks} times"
        check(n_mels >= frames, "n_mels", n_mels, allowed)
        patch = (n_mels, frames)
        features = n_mels // frames * config.channels
        self.config = config
        self.grid = PatchGrid(n_mels=n_mels, patch=patch, stride=patch, partial="drop")
        self.embed_dim = config.output
        if config.version == "v2":
            self.embed_dim += features
        self.num_layers = blocks + 1
        self.num_cls_tokens = 1
        self.blocks = nn.ModuleList(
            Block(config.channels if number else 1, config.channels) for number in range(blocks)
        )
        self.mlp = nn.Sequential(
            nn.Linear(features, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.output),
            nn.ReLU(),
        )

    def ordered_layers(self) -> Sequence[nn.Module]:
        """Return the blocks and the MLP."""
        return [*self.blocks, self.mlp]

    def forward(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        valid: Bool[Tensor, "clip token"] | None = None,
        layers: LayerOutputs = False,
    ) -> Encoded:
        """Encode whole spectrograms; see :meth:`Encoder.forward`."""
        width = self.grid.patch[1]  # of a step, in frames of the images
        columns = self.grid.columns(spectrogram.shape[2])
        inside = self._inside(spectrogram, valid)
        if self.config.trim == "before" or spectrogram.shape[2] < width:
            spectrogram = self.grid.pad(spectrogram)
        images = silenced(spectrogram[:, None], inside)
        outputs: list[Tensor] = []
        # A pooled pair that holds padding is padding: alone, a clip loses its odd last frame too.
        for block in self.blocks:
            images = block(images, inside)
            inside = halved(inside)
            # ReLU commutes with the maximum, and has a quarter of the values after it.
            images = silenced(F.relu(F.max_pool2d(images, 2)), inside)
            width //= 2
            if layers:
                outputs.append(_with_overall(_by_step(images, columns, width), valid))
        # The channels of all mels side by side: (clip, step, mel * channel).
        features = images.permute(0, 3, 2, 1).flatten(2)
        tokens = self.mlp(features)
        if self.config.version == "v2":
            tokens = torch.cat([features, tokens], dim=2)
        tokens = _with_overall(tokens, valid)
        outputs.append(tokens)
        return Encoded(tokens[:, 1:], tokens[:, :1], tuple(outputs) if layers else ())

    def _inside(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        valid: Bool[Tensor, "clip column"] | None,
    ) -> Bool[Tensor, "clip keptframe"] | None:
        """Return the valid frames of what the first block gets; None if there is no padding."""
        width = self.grid.patch[1]
        if self.config.trim == "pooling":
            return sounding_frames(spectrogram, valid, width)
        return None if valid is None else valid.repeat_interleave(width, dim=1)


class Block(nn.Module):
    """A 3 x 3 convolution and a norm."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm = MaskedBatchNorm(channels)

    def forward(
        self,
        images: Float[Tensor, "clip channel mel frame"],
        inside: Bool[Tensor, "clip frame"] | None,
    ) -> Float[Tensor, "clip out mel frame"]:
        """Return images of the same size, with zeros at padding."""
        normed: Tensor = self.norm(self.conv(images), inside)
        return normed


def _by_step(
    images: Float[Tensor, "clip channel mel frame"], columns: int, width: int
) -> Float[Tensor, "clip token channel"]:
    """Return averages over mels and the frames of each step, of which the last may be left over."""
    frames = images.mean(dim=2).mT[:, : columns * width]
    return frames.reshape(frames.shape[0], columns, width, -1).mean(dim=2)


def _with_overall(
    tokens: Float[Tensor, "clip token dim"], valid: Bool[Tensor, "clip token"] | None
) -> Float[Tensor, "clip clsandtoken dim"]:
    """Return the tokens, with their maximum over time plus their mean in front."""
    overall = masked_max(tokens, valid) + masked_mean(tokens, valid)
    return torch.cat([overall[:, None].to(tokens.dtype), tokens], dim=1)
