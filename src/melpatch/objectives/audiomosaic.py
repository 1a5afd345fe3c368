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
from melpatch.objectives.base import Features, Picture, Plan
from melpatch.objectives.contrastive import ContrastiveConfig, ContrastiveObjective
from melpatch.objectives.masked import masked_picture


class AudioMosaic(ContrastiveObjective):
    """Contrastive learning between a time-masked and a frequency-masked view.

    *Differs:* shares of masked patches are exact, so that the last column or row of a mask may be
    masked in part; both views of a clip skip the same branches under drop path; padding is in no
    mask and no mean.
    """

    needs_token_encoder = True
    encoder: TokenEncoder

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
        self.masks = tuple(
            Masking(
                getattr(config, name),
                encoder.grid,
                (f"objective.{name}.ratio", f"objective.{name}.num_masked"),
            )
            for name in ("first_mask", "second_mask")
        )

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

    def check_plan(self, plan: Plan) -> None:
        """Refuse views of which a mask leaves nothing, or everything.

        Raises:
            ConfigError: it does, patches overlap, or views or batches do not fit.
        """
        super().check_plan(plan)
        for mask in self.masks:
            mask.check_window(self._view_frames(plan))

    def begin(self, plan: Plan) -> None:
        """Note the length of the run, and how many patches the longest view has."""
        super().begin(plan)
        for mask in self.masks:
            mask.begin(self._view_frames(plan))

    def _view_frames(self, plan: Plan) -> int:
        """Return the frames of the longest view."""
        seconds = self.input_seconds(self.config, plan.seconds)
        return self.front_end.frames(round(seconds * self.front_end.sample_rate))

    def encode(self, batch: Batch, step: int) -> Rows:
        """Return the vector of what is left of each view; the views are encoded one by one."""
        views = []
        for number in range(2):
            features = self.with_valid(*self.view(batch, step, number))
            split = self.mask_view(batch, features, step, number)
            views.append(self.pooled_rest(features, split))
        return Rows(torch.stack(views, dim=1), batch.keys)

    def mask_view(self, batch: Batch, features: Features, step: int, number: int) -> PatchSplit:
        """Return the masked and the visible patches of each clip in a view."""
        columns = self.encoder.grid.columns(features.spectrogram.shape[2])
        purpose = f"view {number}/mask"
        return self.masks[number](
            batch.keys, columns, features.valid, seed=self.seed, step=step, purpose=purpose
        )

    def pooled_rest(self, features: Features, split: PatchSplit) -> Float[Tensor, "clip dim"]:
        """Return the pooled visible patches, of which the class token counts as one."""
        # Without padding all clips have as many visible patches, and attention needs no mask.
        valid = None
        if features.valid is not None:
            valid = split.visible.valid
        tokens = self.encoder.tokens(features.spectrogram)
        encoded = self.encoder.encode_subset(tokens, split.visible, valid)
        if valid is not None:
            valid = F.pad(valid, (encoded.cls.shape[1], 0), value=True)
        every = torch.cat([encoded.cls, encoded.patches], dim=1)
        return pool(every, encoded.cls, valid, 1, self.config.pooling)

    def picture(self, batch: Batch, step: int) -> Picture:
        """Return the first clip, not augmented, without what its first view loses."""
        return self._masked_picture(self.features(batch), batch, step, 0)

    def view_pictures(self, batch: Batch, step: int) -> dict[str, Float[Tensor, "mel _frame"]]:
        """Return the first clip and its views, augmented and without what they lose, by name."""
        pictures = super().view_pictures(batch, step)
        clip, *names = pictures
        views = {clip: pictures[clip]}
        for number, name in enumerate(names):
            features = self.with_valid(*self.view(batch, step, number))
            masked = self._masked_picture(features, batch, step, number).input
            views[name] = masked[:, : pictures[name].shape[1]]
        return views

    def _masked_picture(self, features: Features, batch: Batch, step: int, number: int) -> Picture:
        """Return a picture of the first clip under the mask of a view."""
        masked = self.mask_view(batch, features, step, number).masked
        return masked_picture(features.spectrogram, masked, self.encoder.grid, self.front_end)
