"""Features of a frozen encoder as probes see them: one vector per clip, or all tokens."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.data.clip import Clip
from melpatch.data.corpus import Rejected

Span = tuple[int, int]
"""Where the tokens of a window begin and end."""


@dataclass(frozen=True)
class ClipVectors:
    """One vector per clip.

    Vectors of a large corpus stay on disk until they are used.

    Attributes:
        clips: the clips that could be read.
        values: their vectors, among others.
        rejected: the other clips, and why.
        rows: which rows of ``values`` belong to the clips; None for all, in order.
    """

    clips: tuple[Clip, ...]
    values: Float[np.ndarray, "row ..."]
    rejected: tuple[Rejected, ...] = ()
    rows: Int[np.ndarray, " clip"] | None = None

    @property
    def vectors(self) -> Float[np.ndarray, "clip ..."]:
        """The vectors of the clips, in their order."""
        return self.values if self.rows is None else self.values[self.rows]

    def select(self, clips: Sequence[Clip]) -> "ClipVectors":
        """Return the vectors of those of the given clips that could be read, in the given order."""
        numbers, readable = _find_clips(self.clips, clips)
        rows = np.array(numbers, np.int64)
        if self.rows is not None:
            rows = self.rows[rows]
        return replace(self, clips=readable, rows=rows)


@dataclass(frozen=True)
class ClipTokens:
    """All patch tokens of each clip after the final norm.

    Tokens of a large corpus stay on disk until they are used.

    Attributes:
        clips: the clips that could be read.
        values: the tokens as float16, window after window.
        spans: for each clip, where the tokens of its windows are.
        rejected: the other clips, and why.
    """

    clips: tuple[Clip, ...]
    values: Float[np.ndarray, "token dim"]
    spans: Sequence[Sequence[Span]]
    rejected: tuple[Rejected, ...] = ()

    def select(self, clips: Sequence[Clip]) -> "ClipTokens":
        """Return the tokens of those of the given clips that could be read, in the given order."""
        numbers, readable = _find_clips(self.clips, clips)
        return replace(self, clips=readable, spans=[self.spans[number] for number in numbers])

    def batch(
        self, numbers: Sequence[int]
    ) -> tuple[Float[Tensor, "clip token dim"], Bool[Tensor, "clip token"]]:
        """Return the float32 tokens of the clips with these numbers, padded to the longest, and which are valid."""
        lengths = [sum(end - begin for begin, end in self.spans[number]) for number in numbers]
        padded = np.zeros((len(numbers), max(lengths), self.values.shape[1]), np.float32)
        for tokens, number in zip(padded, numbers, strict=True):
            filled = 0
            for begin, end in self.spans[number]:
                length = end - begin
                tokens[filled : filled + length] = self.values[begin:end]
                filled += length
        valid = torch.arange(padded.shape[1]) < torch.tensor(lengths)[:, None]
        return torch.from_numpy(padded), valid


def fingerprint_of_clips(clips: Sequence[Clip], text: str = "") -> str:
    """Return a hash of clips in their order, of the state of their files, and of a text.

    The state is the size and time of a file, or for a clip in a shard its checksum, which is the
    same wherever the shard is. Labels are not part of it.
    """
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for clip in clips:
        digest.update(repr((clip.key, clip.start, clip.duration, clip.state)).encode())
    return digest.hexdigest()


def _find_clips(
    known: Sequence[Clip], wanted: Sequence[Clip]
) -> tuple[list[int], tuple[Clip, ...]]:
    """Return the numbers of the wanted clips among the known ones, and the wanted clips that are known."""
    number_of_key = {clip.key: number for number, clip in enumerate(known)}
    present = tuple(clip for clip in wanted if clip.key in number_of_key)
    return [number_of_key[clip.key] for clip in present], present
