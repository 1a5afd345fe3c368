"""What a frozen encoder says of clips, as probes see it: vectors, or all tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.data.clip import Clip
from melpatch.data.corpus import Rejected
from melpatch.errors import ConfigError
from melpatch.nn.pooling import Pooling

Span = tuple[int, int]
"""Where the tokens of a window begin and end."""


@dataclass(frozen=True)
class Vectors:
    """One vector per clip and pooling, and per layer.

    Attributes:
        clips: those that could be read.
        pooled: the final norm's tokens as one vector, by the name of the pooling.
        layers: mean over the patch tokens of each block, before the final norm; None where blocks differ in width.
        rejected: the other clips, and why.
        at: which rows of ``pooled`` and ``layers`` are those of the clips; None for all. Vectors of a large corpus are
            read when they are asked for, not before.
    """

    clips: tuple[Clip, ...]
    pooled: Mapping[str, Float[np.ndarray, "row _"]]
    layers: Float[np.ndarray, "row layer dim"] | None
    rejected: tuple[Rejected, ...] = ()
    at: Int[np.ndarray, " clip"] | None = None

    def of(self, pooling: Pooling) -> Float[np.ndarray, "clip dim"]:
        """Return the vectors of a pooling.

        Raises:
            ConfigError: the encoder has no such vectors.
        """
        if pooling not in self.pooled:
            raise ConfigError(f"pooling = {pooling!r}; allowed: {', '.join(self.pooled)}")
        values = self.pooled[pooling]
        return values if self.at is None else values[self.at]

    def mix(self) -> Float[np.ndarray, "clip layer dim"]:
        """Return the vectors of all layers.

        Raises:
            ConfigError: the encoder's blocks differ in width.
        """
        if self.layers is None:
            raise ConfigError(
                "this encoder's blocks differ in width, so they cannot be mixed; take another protocol"
            )
        return self.layers if self.at is None else self.layers[self.at]

    def select(self, clips: Sequence[Clip]) -> "Vectors":
        """Return the vectors of those of the given clips that could be read, in the given order."""
        rows, kept = _places(self.clips, clips)
        return replace(
            self, clips=kept, at=np.array(rows, np.int64) if self.at is None else self.at[rows]
        )


@dataclass(frozen=True)
class Tokens:
    """All patch tokens of each clip after the final norm.

    Attributes:
        clips: those that could be read.
        values: float16, window after window. Those of a large corpus are read when they are asked for, not before.
        spans: of each clip, where those of its windows lie.
        rejected: the other clips, and why.
    """

    clips: tuple[Clip, ...]
    values: Float[np.ndarray, "token dim"]
    spans: Sequence[Sequence[Span]]
    rejected: tuple[Rejected, ...] = ()

    def select(self, clips: Sequence[Clip]) -> "Tokens":
        """Return the tokens of those of the given clips that could be read, in the given order."""
        rows, kept = _places(self.clips, clips)
        return replace(self, clips=kept, spans=[self.spans[row] for row in rows])

    def batch(
        self, rows: Sequence[int]
    ) -> tuple[Float[Tensor, "clip token dim"], Bool[Tensor, "clip token"]]:
        """Return the tokens of the clips in some rows padded to the longest, float32, and which of them are real."""
        lengths = [sum(end - begin for begin, end in self.spans[row]) for row in rows]
        padded = np.zeros((len(rows), max(lengths), self.values.shape[1]), np.float32)
        for tokens, row in zip(padded, rows, strict=True):
            at = 0
            for begin, end in self.spans[row]:
                tokens[at : at + end - begin] = self.values[begin:end]
                at += end - begin
        return torch.from_numpy(padded), torch.arange(padded.shape[1]) < torch.tensor(lengths)[
            :, None
        ]


def _places(known: Sequence[Clip], wanted: Sequence[Clip]) -> tuple[list[int], tuple[Clip, ...]]:
    place = {clip.key: row for row, clip in enumerate(known)}
    kept = tuple(clip for clip in wanted if clip.key in place)
    return [place[clip.key] for clip in kept], kept
