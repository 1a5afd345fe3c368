"""AudioMosaic: a clip without columns of time finds the same clip without rows of frequency.

NT-Xent (:mod:`melpatch.objectives.contrastive`) between views whose strongest augmentation is
dropping patches: each view loses patches under a mask of its own, only the rest is encoded, and
compared is what a projector makes of their mean.

"AudioMosaic" 2026 (arXiv 2605.14231), and the published code (commit 67a86a8).
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.audio.view_augment import ViewAugment
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import TokenEncoder
from melpatch.nn.masking import Masking, PatchSplit
from melpatch.nn.pooling import Pooling, pool
from melpatch.nn.projector import Projector
from melpatch.nn.transformer import NORM_EPS
from melpatch.nn.whole_step import Rows
from melpatch.objectives.base import Features
from melpatch.objectives.contrastive import ContrastiveConfig
from melpatch.objectives.masked_contrastive import MaskedContrastive


class AudioMosaic(MaskedContrastive):
    """Contrastive learning between a time-masked and a frequency-masked view.

    *Differs:* shares of masked patches are exact, so that the last column or row of a mask may be
    masked in part; both views of a clip skip the same branches under drop path; padding is in no
    mask and no mean.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ContrastiveConfig):
        """Settings of AudioMosaic."""

        augment: ViewAugment.Config = field(
            default_factory=lambda: ViewAugment.Config(
                roll=0.5,
                gain_beta=10,
                polarity=0.5,
                stretch=0.7,
                pitch=0.6,
                noise=0.5,
                gain=0.3,
                high_pass=0.3,
                band_stop=0.5,
            )
        )
        """Augmentations of a view, before its mask."""
        first_mask: Masking.Config = field(
            default_factory=lambda: Masking.Config(kind="time", ratio=0.6)
        )
        """Patches that the first view loses; the published code: time_legacy, 0.625."""
        second_mask: Masking.Config = field(
            default_factory=lambda: Masking.Config(kind="frequency", ratio=0.4)
        )
        """Patches that the second view loses; the published code: frequency_legacy, 0.40625."""
        temperature: float = 0.1
        """Temperature of the cosines."""
        hidden_dims: tuple[int, ...] = (512,)
        """Widths of the projector's hidden layers."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            super().__post_init__()
            pooling = Pooling.parse(self.pooling)
            whole = pooling.rows or pooling.segments > 1 or "delta" in pooling.statistics
            allowed = "mean, std, max and cls, since a masked view has no whole rows or columns"
            check(not whole, "pooling", self.pooling, allowed)

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: TokenEncoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: AudioMosaic.Config = config
        self.masks = (self.masking("first_mask"), self.masking("second_mask"))

    def masking(self, name: str) -> Masking:
        """Return the masking of one setting, whose flags its errors name."""
        flags = (f"objective.{name}.ratio", f"objective.{name}.num_masked")
        return Masking(getattr(self.config, name), self.encoder.grid, flags)

    def build_projector(self, config: ContrastiveConfig) -> nn.Module:
        """Return a LayerNorm and a projector, whose last norm has a scale and no shift."""
        return nn.Sequential(
            nn.LayerNorm(self.pooled_dim, eps=NORM_EPS),
            Projector(
                self.pooled_dim,
                hidden=config.hidden_dims,
                out=config.projection,
                last_norm="scale",
                apart=True,
            ),
        )

    def encode(self, batch: Batch, step: int) -> Rows:
        """Return the vector of what is left of each view; the views are encoded one by one."""
        views = []
        for number in range(2):
            features = self.with_valid(*self.view(batch, step, number))
            split = self.mask_view(batch, features, step, number)
            views.append(self.pooled_rest(features, split))
        return Rows(torch.stack(views, dim=1), batch.keys)

    def pooled_rest(self, features: Features, split: PatchSplit) -> Float[Tensor, "clip dim"]:
        """Return the pooled visible patches, of which the class token counts as one."""
        encoded = self.encode_visible(features, split)
        valid = None
        if features.valid is not None:
            valid = F.pad(split.visible.valid, (encoded.cls.shape[1], 0), value=True)
        every = torch.cat([encoded.cls, encoded.patches], dim=1)
        return pool(every, encoded.cls, valid, 1, self.config.pooling)
