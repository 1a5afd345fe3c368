"""What every encoder offers: spectrograms in, tokens out; and a joint where objectives mask or drop tokens."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from melpatch.nn.grid import PatchGrid


class Encoded(NamedTuple):
    """What an encoder returns."""

    patches: Float[Tensor, "clip token dim"]
    """Patch tokens after the final norm, in the order they were given."""
    cls: Float[Tensor, "clip cls dim"]
    """Special tokens after the final norm; there may be none."""
    layers: tuple[Float[Tensor, "clip clsandtoken _"], ...]
    """Output of every block before the final norm, special tokens first; empty unless asked for. Blocks of a CNN have
    channels of their own number."""


def valid_frames(
    spectrogram: Float[Tensor, "clip mel frame"], frames: Int[Tensor, " clip"] | None
) -> Bool[Tensor, "clip frame"] | None:
    """Return which frames are valid, given their number in each clip; None where no clip is padded."""
    if frames is None:
        return None
    return torch.arange(spectrogram.shape[2], device=frames.device) < frames[:, None]


class Encoder(nn.Module, ABC):
    """A spectrogram encoder: it knows patches and positions, and nothing of masks, labels or losses.

    Attributes:
        config: the settings it was built with, a ``Config`` nested in the encoder's class.
        embed_dim: channels of a token.
        num_layers: number of blocks.
        grid: the geometry of its tokens.
    """

    config: Any
    embed_dim: int
    num_layers: int
    grid: PatchGrid

    @classmethod
    @abstractmethod
    def sized(cls, name: str) -> Any:
        """Return the settings of a named size (nano, mini, tiny, small, base).

        Raises:
            ConfigError: no size is called so.
        """

    def normalise(
        self, spectrogram: Float[Tensor, "clip mel frame"], frames: Int[Tensor, " clip"] | None
    ) -> Float[Tensor, "clip mel frame"]:
        """Return the spectrograms as the encoder wants them, given each clip's valid frames, or None where no clip is
        padded; by default as they are."""
        return spectrogram

    @abstractmethod
    def forward(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        valid: Bool[Tensor, "clip token"] | None = None,
        layers: bool = False,
    ) -> Encoded:
        """Encode whole spectrograms, which :meth:`normalise` returned.

        Args:
            spectrogram: zeros past each clip's end.
            valid: False for padding, which then influences nothing; None, the fast way, when there is no padding.
            layers: whether to return every block's output too.
        """


class TokenEncoder(Encoder):
    """An encoder of tokens, of which it takes any subset: what objectives that mask or drop patches need."""

    @abstractmethod
    def embed(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip token dim"]:
        """Return the projected patches, without positions."""

    @abstractmethod
    def positions(self, columns: int) -> Float[Tensor, "token dim"]:
        """Return the positions of a grid with so many columns; a column's vector does not depend on their number,
        unless a setting of the encoder says that it does."""

    @abstractmethod
    def encode_tokens(
        self,
        tokens: Float[Tensor, "clip token dim"],
        valid: Bool[Tensor, "clip token"] | None = None,
        layers: bool = False,
    ) -> Encoded:
        """Transform any subset of tokens, in any order.

        Args:
            tokens: what :meth:`tokens` returned, or part of it, or something put in its place.
            valid: see :meth:`forward`.
            layers: see :meth:`forward`.
        """

    def tokens(
        self, spectrogram: Float[Tensor, "clip mel frame"]
    ) -> Float[Tensor, "clip token dim"]:
        """Return the projected patches with their positions added, in the precision of the projection."""
        embedded = self.embed(spectrogram)
        return embedded + self.positions(self.grid.columns(spectrogram.shape[2])).to(embedded.dtype)

    def forward(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        valid: Bool[Tensor, "clip token"] | None = None,
        layers: bool = False,
    ) -> Encoded:
        """Encode whole spectrograms: :meth:`encode_tokens` of :meth:`tokens`."""
        return self.encode_tokens(self.tokens(spectrogram), valid, layers)
