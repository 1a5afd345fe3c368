"""Batches of clips of unequal length without their padding, on a processor.

A padded batch spends as much on padding as on sound. Here the valid tokens of all clips lie one
after another, in one row, through which linear layers, norms and activations pass as through any
tokens; attention takes clips of equal length together. So nothing is computed for padding, and no
mask is needed. Source: unpadding as in Zeng et al. 2022 (arXiv 2208.08124) and ModernBERT (arXiv
2412.13663).

*Differs*: those need kernels of a GPU; here attention is one call per length, which costs little on
a processor and too much on a GPU, so that padded batches stay padded there.
"""

from collections import Counter
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Unpadded = Float[Tensor, "1 alltokens dim"]

_TOKENS_PER_CALL = 12
"""Tokens whose arithmetic costs as much as one more call of attention (lab/mixed-lengths.md)."""


class Unpadding(NamedTuple):
    """Where the valid tokens of a padded batch are; without padding, shorter clips come first."""

    places: Int[Tensor, " alltokens"]
    """Their indices in the batch, counted through all clips."""
    clips: Int[Tensor, " alltokens"]
    """The clip of each."""
    groups: list[tuple[int, int]]
    """Clips of each length that occurs, and that length."""
    batch: tuple[int, int]
    """Clips and tokens of the padded batch."""

    def unpad(self, x: Float[Tensor, "clip token dim"]) -> Unpadded:
        """Return the valid tokens of all clips, one after another."""
        return x.flatten(0, 1)[self.places][None]

    def pad(self, x: Unpadded) -> Float[Tensor, "clip token dim"]:
        """Return such tokens in their places of the batch, with zeros at padding."""
        clips, tokens = self.batch
        padded = x.new_zeros(clips * tokens, x.shape[2])
        return padded.index_copy(0, self.places, x[0]).view(clips, tokens, -1)

    def split(self, x: Unpadded) -> list[Float[Tensor, "_ _ dim"]]:
        """Return the tokens of each length, (clip, token, dim)."""
        sizes = [clips * tokens for clips, tokens in self.groups]
        parts = torch.split_with_sizes(x[0], sizes)
        return [
            part.view(clips, tokens, -1)
            for part, (clips, tokens) in zip(parts, self.groups, strict=True)
        ]

    def join(self, parts: list[Float[Tensor, "_ _ dim"]]) -> Unpadded:
        """Return tokens that were split in one row."""
        return torch.cat([part.flatten(0, 1) for part in parts])[None]


def unpadding_of(
    x: Float[Tensor, "clip token dim"], valid: Bool[Tensor, "clip token"]
) -> Unpadding | None:
    """Return where the valid tokens are, or None where leaving out the rest does not pay.

    It does not on a GPU; under torch.compile, which takes no shapes that depend on values; and in
    inference, whose batches are of equal length and may have packed weights.
    """
    if x.device.type != "cpu" or torch.is_inference_mode_enabled() or torch.compiler.is_compiling():
        return None
    lengths = valid.sum(dim=1)
    counts = Counter(lengths.tolist())
    padding = valid.numel() - lengths.sum().item()
    if not _TOKENS_PER_CALL * len(counts) < padding < valid.numel():
        return None
    order = lengths.argsort(stable=True)
    rows, tokens = valid[order].nonzero(as_tuple=True)
    clips = order[rows]
    groups = [(counts[length], length) for length in sorted(counts) if length]
    places = clips * valid.shape[1] + tokens
    return Unpadding(places, clips, groups, (len(valid), valid.shape[1]))
