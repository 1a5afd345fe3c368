"""Convolutional network of PANNs, CNN14: the supervised baseline of ASiT's and MaskSpec's tables."""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from melpatch.config import check
from melpatch.encoders.base import Encoded, Encoder, valid_frames
from melpatch.nn.batch_norm import MaskedBatchNorm
from melpatch.nn.grid import PatchGrid
from melpatch.nn.pooling import masked_max, masked_mean

BLOCKS = 6
FRAMES = 2 ** (BLOCKS - 1)
"""Frames, and mels, that make one: every block but the last halves them."""
WIDTHS = {"nano": 5, "mini": 10, "tiny": 16, "small": 32, "base": 64}


class CNN14(Encoder):
    """The CNN14 of PANNs, of any width; padding never influences sound.

    Six blocks of two convolutions, whose output is averaged over frequency: that gives a token per 32 frames. The one
    special token is the published embedding: maximum and mean of the tokens over time, summed, through a linear layer
    and ReLU. The layers have the channels of their blocks: ``width`` in the first, twice as many in each that follows;
    their special token is the same maximum and mean over time, and their tokens are averaged to 32 frames.

    An objective that pools the tokens leaves the linear layer as it starts; pooling "cls" after it means nothing then.
    Convolutions and the linear layer start Xavier-uniform, biases at 0. There is no gradient checkpointing: what is
    computed twice would be noted twice in the running statistics.

    Source: Kong et al. 2020 (arXiv 1912.10211) and the published code. *Differs*: images are
    (mel, frame), not (frame, mel), and so are the kernels; of more than 32 frames, those left over at the end are cut
    before the first convolution, not in the poolings, so that a clip is the same alone and beside a longer one; a
    shorter clip is completed with zeros.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of a CNN14."""

        width: int = 64
        """Channels of the first block; each of the other five has twice as many as the one before."""
        dropout: float = 0.2
        """Probability that a value is dropped after a block in training."""
        neck_dropout: float = 0.5
        """Probability that a value is dropped before the last linear layer in training."""

        def __post_init__(self) -> None:
            check(self.width >= 1, "width", self.width, "1 or more")
            for name in ("dropout", "neck_dropout"):
                check(
                    0.0 <= getattr(self, name) < 1.0,
                    name,
                    getattr(self, name),
                    "from 0 up to, not including, 1",
                )

    config: Config

    def __init__(self, config: Config, n_mels: int) -> None:
        super().__init__()
        check(
            n_mels >= FRAMES,
            "n_mels",
            n_mels,
            f"{FRAMES} or more, since this encoder halves them five times",
        )
        self.config = config
        self.grid = PatchGrid(
            n_mels=n_mels, patch=(n_mels, FRAMES), stride=(n_mels, FRAMES), partial="drop"
        )
        self.embed_dim, self.num_layers = config.width * FRAMES, BLOCKS
        channels = [1, *(config.width * 2**number for number in range(BLOCKS))]
        self.bn0 = MaskedBatchNorm(n_mels)
        self.blocks = nn.ModuleList(Block(*ends) for ends in pairwise(channels))
        self.dropout = nn.Dropout(config.dropout)
        self.neck = nn.Linear(self.embed_dim, self.embed_dim)
        self.neck_dropout = nn.Dropout(config.neck_dropout)
        nn.init.xavier_uniform_(self.neck.weight)
        nn.init.zeros_(self.neck.bias)

    @classmethod
    def sized(cls, name: str) -> "CNN14.Config":
        """Return the settings of a named size: base is the published one, the others have about as many parameters as
        a ViT of that name."""
        check(name in WIDTHS, "size", name, ", ".join(WIDTHS))
        return cls.Config(width=WIDTHS[name])

    def normalise(
        self, spectrogram: Float[Tensor, "clip mel frame"], frames: Int[Tensor, " clip"] | None
    ) -> Float[Tensor, "clip mel frame"]:
        """Return the spectrograms after the first norm, of which the mels are the channels: what SpecAugment masks."""
        normalised: Tensor = self.bn0(spectrogram[:, :, None], valid_frames(spectrogram, frames))
        return normalised[:, :, 0]

    def forward(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        valid: Bool[Tensor, "clip token"] | None = None,
        layers: bool = False,
    ) -> Encoded:
        """Encode whole spectrograms; see :meth:`Encoder.forward`."""
        images = self.grid.pad(spectrogram)[:, None]
        columns, inside = images.shape[3] // FRAMES, _repeated(valid, FRAMES)
        images = images if inside is None else images.masked_fill(~inside[:, None, None], 0.0)
        outputs: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            images = block(images, _repeated(valid, FRAMES >> number))
            images = self.dropout(images if number == BLOCKS - 1 else F.avg_pool2d(images, 2))
            if layers or number == BLOCKS - 1:
                outputs.append(_tokens(images, valid, columns))
        overall, patches = outputs[-1][:, :1], outputs[-1][:, 1:]
        cls = F.relu(self.neck(self.neck_dropout(overall)))
        return Encoded(patches, cls, tuple(outputs) if layers else ())


class Block(nn.Module):
    """Two convolutions of 3 by 3, each followed by a norm and ReLU; the second keeps the number of channels."""

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
        """Return images of the same size, with zeros at padding, as a convolution sees them past a clip's end."""
        images = F.relu(self.bn1(self.conv1(images), valid))
        return F.relu(self.bn2(self.conv2(images), valid))


def _repeated(
    valid: Bool[Tensor, "clip column"] | None, times: int
) -> Bool[Tensor, "clip frame"] | None:
    """Return which frames are valid, where a column has so many."""
    return None if valid is None else valid.repeat_interleave(times, dim=1)


def _tokens(
    images: Float[Tensor, "clip channel mel frame"],
    valid: Bool[Tensor, "clip column"] | None,
    columns: int,
) -> Float[Tensor, "clip clsandcolumn channel"]:
    """Return maximum plus mean over time, and then the mean of each column, all of the mean over frequency."""
    steps = images.mean(dim=2).transpose(1, 2)
    by_column = steps.reshape(len(steps), columns, -1, steps.shape[2])
    inside = _repeated(valid, by_column.shape[2])
    overall = masked_max(steps, inside) + masked_mean(steps, inside)
    return torch.cat([overall[:, None], by_column.mean(dim=2)], dim=1)
