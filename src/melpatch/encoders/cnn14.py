"""CNN14 of PANNs, the supervised convolutional baseline, and its smaller kin CNN10 and CNN6."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from melpatch.config import check
from melpatch.encoders.base import Encoded, Encoder, EncoderConfig, valid_frames
from melpatch.nn.batch_norm import MaskedBatchNorm
from melpatch.nn.grid import PatchGrid
from melpatch.nn.masked import halved, masked_max, masked_mean, silenced, sounding_frames
from melpatch.nn.pooling import LayerOutputs

Network = Literal["cnn14", "cnn10", "cnn6"]


class Plan(NamedTuple):
    """The blocks of a network."""

    blocks: int
    """How many there are."""
    convolutions: int
    """Convolutions in a block, 1 or 2."""
    kernel: int
    """Mels, and frames, that a convolution spans."""
    poolings: int
    """Blocks that halve mels and frames, from the first on."""


PLANS: dict[Network, Plan] = {
    "cnn14": Plan(blocks=6, convolutions=2, kernel=3, poolings=5),
    "cnn10": Plan(blocks=4, convolutions=2, kernel=3, poolings=4),
    "cnn6": Plan(blocks=4, convolutions=1, kernel=5, poolings=4),
}
"""Kong et al. 2020, table I, and the published code."""
WIDTHS = {"nano": 5, "mini": 10, "tiny": 16, "small": 32, "base": 64, "large": 124}
"""Width of each size: base is the published one; of CNN14, a ViT of the same name has about as many
parameters."""


class CNN14(Encoder):
    """The CNN14, CNN10 or CNN6 of PANNs, of any width; padding never influences valid frames.

    >>> encoder = CNN14(size="tiny", n_mels=64)  # or CNN14(config, n_mels)
    >>> patches, cls, _ = encoder(torch.zeros(2, 64, 1000))  # (clip, mel, frame)
    >>> patches.shape, cls.shape
    (torch.Size([2, 31, 512]), torch.Size([2, 1, 512]))

    Six blocks of two convolutions, whose output is averaged over frequency, give a token per 32
    frames; the four blocks of CNN10 and CNN6, see ``network``, one per 16. The one special token is
    the published embedding: maximum and mean of the tokens over time, summed, through a linear
    layer and ReLU. A block has ``width`` channels if it is the first, else twice as many as the
    block before it, and so does its output in ``Encoded.layers``; there, the special token is the
    same maximum and mean over time, and tokens are averages over the frames of a token.

    An objective that pools the tokens leaves the linear layer untrained; pooling "cls" after such
    training means nothing. Convolutions and the linear layer start Xavier-uniform, biases at 0.
    There is no gradient checkpointing, since what is computed twice would enter the running
    statistics twice.

    If the frames are no multiple of that, the rest at the end is cut before the first convolution,
    or as published in the poolings, each of which drops an odd last frame; see ``trim``. In both
    cases a clip is the same alone and beside a longer one.

    Source: Kong et al. 2020 (arXiv 1912.10211) and the published code. *Differs*: images and
    kernels are (mel, frame), not (frame, mel); a clip shorter than a token is completed with
    zeros.

    Args:
        config: the settings; None for those of ``size``, or the defaults.
        n_mels: mel bins of the spectrograms.
        size: nano, mini, tiny, small, base or large, instead of a config.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(EncoderConfig):
        """Settings of a CNN14, CNN10 or CNN6."""

        network: Network = "cnn14"
        """Blocks: "cnn14" has six of two 3 x 3 convolutions, "cnn10" four of them, "cnn6" four of
        one 5 x 5 convolution."""
        width: int = 64
        """Channels of the first block; each other one has twice as many as the block before it."""
        dropout: float = 0.2
        """Probability that a value is dropped after a block in training."""
        neck_dropout: float = 0.5
        """Probability that a value is dropped before the last linear layer in training."""

        trim: Literal["before", "pooling"] = "before"
        """Where frames past the last whole token are dropped: "before" the first convolution, or
        one by one in each "pooling" (published PANNs), so that the last ones still count a
        little."""

        def __post_init__(self) -> None:
            allowed = ", ".join(get_args(Network))
            check(self.network in PLANS, "network", self.network, allowed)
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
        config = self.resolve(config, size)
        plan = PLANS[config.network]
        frames = 2**plan.poolings
        allowed = f"{frames} or more, since this encoder halves them {plan.poolings} times"
        check(n_mels >= frames, "n_mels", n_mels, allowed)
        patch = (n_mels, frames)
        self.config = config
        self.plan = plan
        self.grid = PatchGrid(n_mels=n_mels, patch=patch, stride=patch, partial="drop")
        self.num_layers = plan.blocks
        self.num_cls_tokens = 1
        channels = [1, *(config.width * 2**number for number in range(plan.blocks))]
        self.embed_dim = channels[-1]
        self.bn0 = MaskedBatchNorm(n_mels)
        self.blocks = nn.ModuleList(
            Block(*ends, plan.convolutions, plan.kernel) for ends in pairwise(channels)
        )
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
        layers: LayerOutputs = False,
    ) -> Encoded:
        """Encode whole spectrograms; see :meth:`Encoder.forward`."""
        columns = self.grid.columns(spectrogram.shape[2])
        inside = self._inside(spectrogram, valid)
        images = silenced(self._images(spectrogram), inside)
        width = self.grid.patch[1]  # of a column, in frames of the images
        outputs: list[Tensor] = []
        # A pooled pair that holds padding is padding: alone, a clip loses its odd last frame too.
        for number, block in enumerate(self.blocks):
            images = block(images, inside)
            if number < self.plan.poolings:
                inside = halved(inside)
                images = silenced(F.avg_pool2d(images, 2), inside)
                width //= 2
            images = self.dropout(images)
            if layers or number == self.num_layers - 1:
                outputs.append(_tokens(images, inside, columns, width))
        overall = outputs[-1][:, :1]
        patches = outputs[-1][:, 1:]
        cls = F.relu(self.neck(self.neck_dropout(overall)))
        return Encoded(patches, cls, tuple(outputs) if layers else ())

    def _images(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip 1 mel keptframe"]:
        """Return what the first block gets; at least a column of frames."""
        if self.config.trim == "pooling" and spectrogram.shape[2] > self.grid.patch[1]:
            return spectrogram[:, None]
        return self.grid.pad(spectrogram)[:, None]

    def _inside(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        valid: Bool[Tensor, "clip column"] | None,
    ) -> Bool[Tensor, "clip keptframe"] | None:
        """Return the valid frames of what the first block gets; None if there is no padding."""
        if valid is None:
            return None
        width = self.grid.patch[1]
        if self.config.trim == "before":
            whole: Tensor = valid.repeat_interleave(width, dim=1)
            return whole
        return sounding_frames(spectrogram, valid, width)


class Block(nn.Module):
    """One or two convolutions, each followed by a norm and ReLU."""

    conv2: nn.Conv2d | None

    def __init__(self, channels_in: int, channels: int, convolutions: int, kernel: int) -> None:
        super().__init__()
        padding = kernel // 2
        self.conv1 = nn.Conv2d(channels_in, channels, kernel, padding=padding, bias=False)
        self.bn1 = MaskedBatchNorm(channels)
        nn.init.xavier_uniform_(self.conv1.weight)
        self.conv2 = None
        if convolutions == 2:
            self.conv2 = nn.Conv2d(channels, channels, kernel, padding=padding, bias=False)
            self.bn2 = MaskedBatchNorm(channels)
            nn.init.xavier_uniform_(self.conv2.weight)

    def forward(
        self,
        images: Float[Tensor, "clip channel mel frame"],
        valid: Bool[Tensor, "clip frame"] | None,
    ) -> Float[Tensor, "clip out mel frame"]:
        """Return images of the same size, with zeros at padding, as past the end of a clip."""
        images = F.relu(self.bn1(self.conv1(images), valid))
        if self.conv2 is None:
            return images
        return F.relu(self.bn2(self.conv2(images), valid))


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
    # shape[0], not len, which an exported graph would keep as a constant.
    inside_columns = steps[:, : columns * width]
    by_column = inside_columns.reshape(steps.shape[0], columns, width, steps.shape[2])
    return torch.cat([overall[:, None], by_column.mean(dim=2)], dim=1)
