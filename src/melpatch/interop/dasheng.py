"""Weights of Dasheng, its own files or those of Hugging Face: a pre-norm ViT on columns of mel bins."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from melpatch.audio import front_ends
from melpatch.audio.framing import DECIBELS
from melpatch.audio.logmel import LogMel
from melpatch.errors import ConfigError
from melpatch.interop.base import Axes, Published, Reading
from melpatch.interop.timm_positions import State, patch_positions
from melpatch.interop.timm_vit import TimmViT
from melpatch.nn.position_tables import Geometry
from melpatch.weight_files import Weights, without_prefix

_PREFIXES = ("encoder.", "")
"""What stands before the names: in files of Hugging Face, and in Dasheng's own."""
_BATCH_NORM = "init_bn.1."
_BATCH_NORM_EPS = 1e-5
_TABLES = ("time_pos_embed", "freq_pos_embed")
_MERGED = (_BATCH_NORM, "front_end.", *_TABLES)
"""Tensors that have no counterpart of their own in a ViT here."""
_HEADS = {768: 12, 1280: 16, 1536: 24}
"""Attention heads of the published models, by their width."""


class Dasheng(TimmViT):
    """Weights of Dasheng, whose tokens are columns of all mel bins, without a class token.

    Positions are a table over time plus one over frequency, here their sum. The batch normalisation
    of the input, whose statistics are fixed after training, is a scale and an offset for each mel
    bin. What is common to all bins becomes mean and std of the front end; the rest is multiplied
    into the patch projection.

    Source: Dinkel et al. 2024 (arXiv 2406.06992); names and layout are those of the published code.
    *Differs:* values are no lower than 120 dB below the loudest of the clip, not of the batch. Of
    recordings longer than the table, the published code completes the last piece with zeros that
    its attention sees; here the last window is shorter.
    """

    family = "Dasheng"
    files = "checkpoints {model, config}; folders of Hugging Face"
    needs = "nothing; unusual widths, config.json or --encoder.num-heads"
    licence = "Apache-2.0 (the code; of the weights not seen)"
    hub = "hf:mispeech/dasheng-base, hf:mispeech/dasheng-0.6B, hf:mispeech/dasheng-1.2B"
    resizing = "crop"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether the keys hold Dasheng's position tables and normalisation of the input."""
        tensors = _encoder(weights)
        return {*_TABLES, f"{_BATCH_NORM}running_var", "patch_embed.proj.weight"} <= tensors.keys()

    def renamed(self, weights: Weights) -> dict[str, Tensor]:
        """Return the tensors under timm's names, with positions and normalisation merged.

        Raises:
            ConfigError: a patch does not span all mel bins, so that they cannot be merged.
        """
        tensors = _encoder(weights)
        named = {key: value for key, value in tensors.items() if not key.startswith(_MERGED)}
        # (1, dim, 1, column) + (1, dim, row, 1) -> (1, row * column, dim)
        time, frequency = (tensors[name] for name in _TABLES)
        named["pos_embed"] = (time + frequency).flatten(2).transpose(1, 2)
        return named | _merged_projection(tensors)

    def num_heads(self, weights: Weights, width: int, reading: Reading) -> int:
        """Return the attention heads in the settings, or else those of a published width."""
        config: dict[str, Any] = weights.facts.get("config", {})
        heads = config.get("num_heads") or config.get("encoder_kwargs", {}).get("num_heads")
        if reading.num_heads is None and isinstance(heads, int):
            return heads
        if reading.num_heads is None and width in _HEADS:
            return _HEADS[width]
        return super().num_heads(weights, width, reading)

    def one_colour_geometry(self, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches lie: in one row, without overlap."""
        n_mels, width = (int(size) for size in state["patch_embed.proj.weight"].shape[2:])
        patches = patch_positions(state)
        assert patches is not None
        return Geometry(1, len(patches), (n_mels, width), n_mels, False)

    def front_end(self, weights: Weights, geometry: Geometry | None) -> LogMel.Config | None:
        """Return the published front end, with mean and std of all mel bins."""
        mean, std = _statistics(_encoder(weights))
        return replace(front_ends.dasheng(), mean=mean, std=std)

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`."""
        settings = super().published(weights, reading)
        tensors = _encoder(weights)
        columns = tensors["time_pos_embed"].shape[3]
        return settings._replace(frames=columns * tensors["patch_embed.proj.weight"].shape[3])


def _encoder(weights: Weights) -> dict[str, Tensor]:
    return without_prefix(weights.state, _PREFIXES, _TABLES[0])


def _statistics(tensors: Mapping[str, Tensor]) -> tuple[float, float]:
    """Return mean and standard deviation of all mel bins, in natural logarithms."""
    mean = tensors[f"{_BATCH_NORM}running_mean"].double().mean().item()
    variance = tensors[f"{_BATCH_NORM}running_var"].double().mean().item()
    return round(mean / DECIBELS, 5), round(math.sqrt(variance) / DECIBELS, 5)


def _merged_projection(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the patch projection with the normalisation by mel bin merged into it."""
    kernel = tensors["patch_embed.proj.weight"]
    bias = tensors["patch_embed.proj.bias"]
    parts = ("weight", "bias", "running_mean", "running_var")
    gain, offset, centre, variance = (tensors[f"{_BATCH_NORM}{part}"].double() for part in parts)
    if kernel.shape[2] != len(gain):
        raise ConfigError(
            f"patches of {kernel.shape[2]} mel bins, but {len(gain)} bins with a normalisation of "
            "their own, as in CED; allowed: patches over all bins, as in Dasheng"
        )

    # The published input is gain (decibel - centre) / deviation + offset for each bin; ours is
    # (decibel / DECIBELS - mean) / std for all bins. In our input x, theirs is scale x + shift.
    mean, std = _statistics(tensors)
    slope = gain / (variance + _BATCH_NORM_EPS).sqrt()
    scale = slope * DECIBELS * std
    shift = slope * (DECIBELS * mean - centre) + offset
    weight = kernel.double()
    # sum_p w_p (scale_p x_p + shift_p) + b = sum_p (w_p scale_p) x_p + (b + sum_p w_p shift_p)
    merged = weight * scale[:, None]
    moved = bias.double() + (weight * shift[:, None]).sum(dim=(1, 2, 3))
    return {
        "patch_embed.proj.weight": merged.to(kernel.dtype),
        "patch_embed.proj.bias": moved.to(bias.dtype),
    }
