"""MaskSpec and Audio-MAE: show an encoder a quarter of a spectrogram's patches; a decoder rebuilds the others.

Chong, Wang, Zhou and Zeng 2022, "Masked Spectrogram Prediction for Self-Supervised Audio Pre-Training"
(arXiv 2204.12768), after He et al. 2022, "MAE" (arXiv 2111.06377). With ``decoder.attention = "windows"`` it is
Audio-MAE (Huang et al. 2022, arXiv 2207.06405).
"""

from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.nn.masking import Masking
from melpatch.nn.patch_losses import reconstruction_loss
from melpatch.nn.pooling import masked_mean
from melpatch.nn.transformer import init_xavier
from melpatch.objectives.base import MaskedObjective, ObjectiveOutput, Picture

Patches = Float[Tensor, "clip patch pixel"]


class MaskSpec(MaskedObjective):
    """Masked autoencoding of spectrogram patches (section 3 of the paper)."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of MaskSpec."""

        mask: Masking.Config = field(default_factory=Masking.Config)
        """Which patches are hidden; the paper hides 75 %, at random."""
        decoder: MAEDecoder.Config = field(
            default_factory=lambda: MAEDecoder.Config(dim=512, depth=8, num_heads=16)
        )
        """What rebuilds them."""
        target: Literal["normalised", "raw"] = "normalised"
        """What is rebuilt: each patch with its own mean taken off and its standard deviation divided out, or as it
        is."""

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: Encoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: MaskSpec.Config = config
        several = config.target == "raw" or encoder.grid.pixels > 1
        check(
            several,
            "objective.target",
            config.target,
            "'raw', since a patch of one pixel has no shape",
        )
        self.masking = Masking(config.mask, encoder.grid)
        self.decoder = MAEDecoder(config.decoder, encoder.embed_dim, encoder.num_layers)
        self.head = nn.Linear(self.decoder.dim, encoder.grid.pixels)
        init_xavier(self.head)

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the mean squared error of the hidden patches of the batch (equation 1)."""
        features = self.features(batch)
        masked = self.mask_patches(batch, features, step)
        target = self.target(masked.masked.gather(self.encoder.grid.split(features.spectrogram)))
        rebuilt, valid = (
            self.head(self.decode_masked(self.decoder, features, masked)),
            masked.masked.valid,
        )
        loss = reconstruction_loss(rebuilt, target, valid)
        return ObjectiveOutput(loss, valid.sum().float(), {"mse": loss})

    def target(self, patches: Patches) -> Patches:
        """Return what is to be told of patches: their shape without level and contrast, or all of it."""
        if self.config.target == "raw":
            return patches
        return (patches - patches.mean(dim=2, keepdim=True)) / deviation(patches)

    def picture(self, batch: Batch, step: int) -> Picture:
        """Return the first clip, the same with its hidden patches blank, and with them rebuilt.

        Where level and contrast of a patch are not to be told, they are borrowed: the mean over the visible patches.
        """
        features = self.features(batch)
        masked = self.mask_patches(batch, features, step)
        rebuilt = self.head(self.decode_masked(self.decoder, features, masked))
        if self.config.target == "normalised":
            seen = masked.visible.gather(self.encoder.grid.split(features.spectrogram))
            level, contrast = (
                masked_mean(one, masked.visible.valid)[:, None]
                for one in (seen.mean(2, keepdim=True), deviation(seen))
            )
            rebuilt = rebuilt * contrast + level
        return self.reconstruction_picture(features.spectrogram, masked.masked, rebuilt)


def deviation(patches: Patches) -> Float[Tensor, "clip patch 1"]:
    """Return the standard deviation of each patch, by MAE's rule: unbiased, and at least 0.001."""
    return (patches.var(dim=2, keepdim=True) + 1e-6).sqrt()
