"""Weights of PaSST: timm's names, images of (mel, frame), one position table for each axis."""

import torch
from torch import Tensor

from melpatch.audio import front_ends
from melpatch.audio.logmel import LogMel
from melpatch.errors import ConfigError
from melpatch.interop.base import Axes, Published, Reading
from melpatch.interop.timm_positions import State
from melpatch.interop.timm_vit import TimmViT
from melpatch.nn.position_tables import Geometry
from melpatch.weight_files import Weights

N_MELS = 128
_STRIDES = {12: 10, 10: 12, 9: 14, 8: 16}
"""Distance of neighbouring patches, by the rows of patches of 16 on 128 mels."""
_TABLES = ("time_new_pos_embed", "freq_new_pos_embed")
_SPECIALS = "new_pos_embed"


class PaSST(TimmViT):
    """Weights of PaSST, whose kernels span (mel, frame), with class and distillation token.

    Positions are a table over time plus one over frequency, here their sum, of which shorter clips
    take the first columns. The two classifiers are left out; both pool class and distillation
    token.

    Compared with a slow forward pass only, not with what the published code computes.

    Source: Koutini et al. 2022 (arXiv 2110.05069); names and layout are those of the published
    code.
    """

    family = "PaSST"
    files = "passt-s-f128-p16-s10-ap.476-swa.pt and its kin"
    needs = "nothing; unusual widths, --encoder.num-heads"
    resizing = "crop"

    def recognises(self, weights: Weights, axes: Axes | None = None) -> bool:
        """Return whether the keys hold timm's blocks and PaSST's position tables."""
        named = super().recognises(weights, axes)
        return named and {*_TABLES, _SPECIALS} <= weights.state.keys()

    def renamed(self, weights: Weights) -> dict[str, Tensor]:
        """Return the tensors under timm's names, with one table of all positions."""
        state = weights.state
        kept = {key: value for key, value in state.items() if not key.endswith(_SPECIALS)}
        # (1, dim, 1, column) + (1, dim, row, 1) -> (1, row * column, dim)
        time, frequency = (state[name] for name in _TABLES)
        patches = (time + frequency).flatten(2).transpose(1, 2)
        kept["pos_embed"] = torch.cat([state[_SPECIALS], patches], dim=1)
        return kept

    def geometry(self, weights: Weights, state: State, reading: Reading) -> Geometry | None:
        """Return how the patches lie: frequency-major, on 128 mels.

        Raises:
            ConfigError: the rows of patches are not those of a published stride.
        """
        rows = weights.state["freq_new_pos_embed"].shape[2]
        columns = weights.state["time_new_pos_embed"].shape[3]
        if rows not in _STRIDES:
            allowed = ", ".join(map(str, sorted(_STRIDES)))
            raise ConfigError(
                f"freq_new_pos_embed has {rows} rows of patches; allowed: {allowed}, those of the "
                "published strides on 128 mels"
            )
        return Geometry(rows, columns, (_STRIDES[rows], _STRIDES[rows]), N_MELS, False)

    def front_end(self, weights: Weights, geometry: Geometry | None) -> LogMel.Config | None:
        """Return the published front end, which MaskSpec took over, with its mean and deviation."""
        return front_ends.maskspec()

    def published(self, weights: Weights, reading: Reading) -> Published:
        """Return the settings of the encoder and its front end; see :class:`WeightFormat`."""
        settings = super().published(weights, reading)
        geometry = self.geometry(weights, {}, reading)
        assert geometry is not None
        assert geometry.stride is not None
        width = weights.state["patch_embed.proj.weight"].shape[3]
        return settings._replace(frames=(geometry.columns - 1) * geometry.stride[1] + width)
