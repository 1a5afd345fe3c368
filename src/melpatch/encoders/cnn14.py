"""CNN14 of PANNs, the supervised convolutional baseline of ASiT and MaskSpec."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from melpatch.config import check
from melpatch.encoders.base import Encoded, Encoder, EncoderConfig, valid_frames
from melpatch.nn.batch_norm import MaskedBatchNorm
from melpatch.nn.grid import PatchGrid
from melpatch.nn.masked import masked_max, masked_mean

BLOCKS = 6
FRAMES = 2 ** (BLOCKS - 1)
"""Frames, and mels, that become one: every block but the last halves both."""
WIDTHS = {"nano": 5, "mini": 10, "tiny": 16, "small": 32, "base": 64}
"""Width of each size: base is the published one; a ViT of the same name has about as many
parameters."""


class CNN14(Encoder):
    """The CNN14 of PANNs, of any width; padding never influences valid frames.

    >>> encoder = CNN14(size="tiny", n_mels=64)  # or CNN14(config, n_mels)
    >>> patches, cls, _ = encoder(torch.zeros(2, 64, 1000))  # (clip, mel, frame)
    >>> patches.shape, cls.shape
    (torch.Size([2, 31, 512]), torch.Size([2, 1, 512]))

    Six blocks of two convolutions, whose output is averaged over frequency, give a token per 32
    frames. The one special token is the published embedding: maximum and mean of the tokens over
    time, summed, through a linear layer and ReLU. A block has ``width`` channels if it is the
    first, else twice as many as the block before it, and so does its output in ``Encoded.layers``;
    there, the special token is the same maximum and mean over time, and tokens are averages over 32
    frames.

    An objective that pools the tokens leaves the linear layer untrained; pooling "cls" after such
    training means nothing. Convolutions and the linear layer start Xavier-uniform, biases at 0.
    There is no gradient checkpointing, since what is computed twice would enter the running
    statistics twice.

    If the frames are no multiple of 32, the rest at the end is cut before the first convolution, or
    as published in the poolings, each of which drops an odd last frame; see ``trim``. In both cases
    a clip is the same alone and beside a longer one.

    Source: Kong et al. 2020 (arXiv 1912.10211) and the published code. *Differs*: images and
    kernels are (mel, frame), not (frame, mel); a clip shorter than 32 frames is completed with
    zeros.

    Args:
        config: the settings; None for those of ``size``, or the defaults.
        n_mels: mel bins of the spectrograms.
        size: nano, mini, tiny, small or base, instead of a config.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(EncoderConfig):
        """Settings of a CNN14."""

        width: int = 64
        """Channels of the first block; each of the other five has twice as many as the block before
        it."""
        dropout: float = 0.2
        """Probability that a value is dropped after a block in training."""
        neck_dropout: float = 0.5
        """Probability that a value is dropped before the last linear layer in training."""

        trim: Literal["before", "pooling"] = "before"
        """Where frames past a multiple of 32 are dropped: "before" the first convolution, or
        one by one in each "pooling" (published PANNs), so that the last ones still count a
        little."""

        def __post_init__(self) -> None:
            check(self.trim in ("before", "pooling"), "trim", self.trim, "'before' or 'pooling'")
            check(self.width >= 1, "width", self.width, "1 or more")
            for name in ("dropout", "neck_dropout"):
                value = getattr(self, name)
                check(0.0 <= value < 1.0, name, value, "from 0 up to, not including, 1")

        @classmethod
        def of_size(cls, size: str, **settings: Any) -> "CNN14.Config":
            """Return the settings of a size in :data:`WIDTHS`, changed as given."""
            check(size in WIDTHS, "size", size, ", ".join(WIDTHS))
            return cls(**{"width": WIDTHS[size], **settings})

    config: Config

    def __init__(
        self, config: Config | None = None, n_mels: int = 128, *, size: str | None = None
    ) -> None:
        super().__init__()
        allowed = f"{FRAMES} or more, since this encoder halves them five times"
        check(n_mels >= FRAMES, "n_mels", n_mels, allowed)
        config = self.resolve(config, size)
        patch = (n_mels, FRAMES)
        self.config = config
        self.grid = PatchGrid(n_mels=n_mels, patch=patch, stride=patch, partial="drop")
        self.embed_dim = config.width * FRAMES
        self.num_layers = BLOCKS
        self.num_cls_tokens = 1
        channels = [1, *(config.width * 2**number for number in range(BLOCKS))]
        self.bn0 = MaskedBatchNorm(n_mels)
        self.blocks = nn.ModuleList(Block(*ends) for ends in pairwise(channels))
        self.dropout = nn.Dropout(config.dropout)
        self.neck = nn.Linear(self.embed_dim, self.embed_dim)
        self.neck_dropout = nn.Dropout(config.neck_dropout)
        nn.init.xavier_uniform_(self.neck.weight)
        nn.init.zeros_(self.neck.bias)

    def ordered_layers(self) -> Sequence[nn.Module]:
        """Return the blocks of convolutions."""
        return [*self.blocks]

    def final_layers(self) -> Sequence[nn.Module]:
        """Return the linear layer of the special token."""
        return [self.neck]

    def normalise(
        self, spectrogram: Float[Tensor, "clip mel frame"], frames: Int[Tensor, " clip"] | None
    ) -> Float[Tensor, "clip mel frame"]:
        """Return the spectrograms after the first norm, whose channels are the mels."""
        normalised: Tensor = self.bn0(spectrogram[:, :, None], valid_frames(spectrogram, frames))
        return normalised[:, :, 0]

    def forward(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        valid: Bool[Tensor, "clip token"] | None = None,
        layers: bool = False,
    ) -> Encoded:
        """Encode whole spectrograms; see :meth:`Encoder.forward`."""
        columns = self.grid.columns(spectrogram.shape[2])
        images = self._images(spectrogram)
        inside = self._inside(spectrogram, valid)
        width = FRAMES  # of a column, in frames of the images
        outputs: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            last = number == BLOCKS - 1
            images = block(_silenced(images, inside), inside)
            if not last:
                images = F.avg_pool2d(images, 2)
                inside = _halved(inside)
                width //= 2
            images = self.dropout(images)
            if layers or last:
                outputs.append(_tokens(images, inside, columns, width))
        overall = outputs[-1][:, :1]
        patches = outputs[-1][:, 1:]
        cls = F.relu(self.neck(self.neck_dropout(overall)))
        return Encoded(patches, cls, tuple(outputs) if layers else ())

    def _images(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip 1 mel keptframe"]:
        """Return what the first block gets; at least 32 frames."""
        if self.config.trim == "pooling" and spectrogram.shape[2] > FRAMES:
            return spectrogram[:, None]
        return self.grid.pad(spectrogram)[:, None]

    def _inside(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        valid: Bool[Tensor, "clip column"] | None,
    ) -> Bool[Tensor, "clip keptframe"] | None:
        """Return the valid frames of what the first block gets; None if there is no padding.

        Valid columns do not tell the frames after the last whole one. Padding is 0 in all mels,
        which a normalised frame is not.
        """
        if valid is None:
            return None
        inside: Tensor = valid.repeat_interleave(FRAMES, dim=1)
        frames = spectrogram.shape[2]
        if self.config.trim == "before" or frames <= FRAMES:
            return inside
        # The frames that follow the last valid column of a clip, up to the next column.
        rest = torch.arange(frames, device=valid.device) - FRAMES * valid.sum(dim=1)[:, None]
        sounding = (spectrogram != 0).any(dim=1)
        follows = sounding & (rest >= 0) & (rest < FRAMES)
        whole = F.pad(inside, (0, frames - inside.shape[1]))
        joined: Tensor = whole | follows
        return joined


class Block(nn.Module):
    """Two 3 x 3 convolutions, each followed by a norm and ReLU."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.bn1 = MaskedBatchNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = MaskedBatchNorm(channels)
        nn.init.xavier_uniform_(self.conv1.weight)
        nn.init.xavier_uniform_(self.conv2.weight)

    def forward(
        self,
        images: Float[Tensor, "clip channel mel frame"],
        valid: Bool[Tensor, "clip frame"] | None,
    ) -> Float[Tensor, "clip out mel frame"]:
        """Return images of the same size, with zeros at padding, as past the end of a clip."""
        images = F.relu(self.bn1(self.conv1(images), valid))
        return F.relu(self.bn2(self.conv2(images), valid))


def _silenced(
    images: Float[Tensor, "clip channel mel frame"], inside: Bool[Tensor, "clip frame"] | None
) -> Float[Tensor, "clip channel mel frame"]:
    """Return the images with zeros at padding, as past the end of a clip that is alone."""
    return images if inside is None else images.masked_fill(~inside[:, None, None], 0.0)


def _halved(inside: Bool[Tensor, "clip frame"] | None) -> Bool[Tensor, "clip half"] | None:
    """Return which frames are valid after a pooling: those that were made of two valid ones."""
    if inside is None:
        return None
    pairs = inside[:, : inside.shape[1] // 2 * 2]
    return pairs[:, ::2] & pairs[:, 1::2]


def _tokens(
    images: Float[Tensor, "clip channel mel frame"],
    inside: Bool[Tensor, "clip frame"] | None,
    columns: int,
    width: int,
) -> Float[Tensor, "clip clsandcolumn channel"]:
    """Return maximum plus mean over time, then each column's mean, all averaged over frequency."""
    steps = images.mean(dim=2).transpose(1, 2)
    overall = masked_max(steps, inside) + masked_mean(steps, inside)
    # Steps past the last whole column are in no column.
    by_column = steps[:, : columns * width].reshape(steps.shape[0], columns, width, -1)
    return torch.cat([overall[:, None], by_column.mean(dim=2)], dim=1)
