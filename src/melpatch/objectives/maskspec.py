"""MaskSpec and Audio-MAE: encode the visible quarter of the patches, reconstruct the masked ones.

Chong, Wang, Zhou and Zeng 2022, "Masked Spectrogram Prediction for Self-Supervised Audio
Pre-Training" (arXiv 2204.12768), after He et al. 2022, "MAE" (arXiv 2111.06377). With
``decoder.attention = "windows"`` it is Audio-MAE (Huang et al. 2022, arXiv 2207.06405).
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from melpatch.audio.augment import Augment
from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.nn.masked import masked_mean
from melpatch.nn.masking import Masking
from melpatch.nn.patch_losses import reconstruction_loss
from melpatch.nn.transformer import init_xavier
from melpatch.objectives.base import Features, ObjectiveOutput, Picture
from melpatch.objectives.masked import MaskedObjective

Patches = Float[Tensor, "clip patch pixel"]


class MaskSpec(MaskedObjective):
    """Masked autoencoding of spectrogram patches (section 3 of the paper)."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of MaskSpec."""

        mask: Masking.Config = field(default_factory=Masking.Config)
        """Which patches are masked; the paper masks 75 %, at random."""
        decoder: MAEDecoder.Config = field(
            default_factory=lambda: MAEDecoder.Config(dim=512, depth=8, num_heads=16)
        )
        """The network that reconstructs them."""
        target: Literal["normalised", "raw"] = "normalised"
        """What is reconstructed: patches normalised to mean 0 and standard deviation 1 each, or raw
        ones."""
        augment: Augment.Config = field(default_factory=Augment.Config)
        """Changes made to the waves; none by default."""

        def __post_init__(self) -> None:
            """Refuse changes of spectrograms, which would be reconstructed too."""
            augment = self.augment
            given = augment.freq_mask, augment.time_mask, augment.pixel_noise
            fits = not any(given) and not (augment.mixup_rate and augment.mixup_on != "wave")
            allowed = (
                "changes of the wave: roll, gain_db, gain_beta, noise_snr_db, mixup_on = 'wave'"
            )
            check(fits, "augment", augment, allowed)

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
        check(
            config.target == "raw" or encoder.grid.pixels > 1,
            "objective.target",
            config.target,
            "'raw', since a patch of one pixel has no standard deviation",
        )
        self.augment = Augment(config.augment)
        self.masking = Masking(config.mask, encoder.grid)
        self.decoder = MAEDecoder(config.decoder, encoder.embed_dim, encoder.num_layers)
        self.head = nn.Linear(self.decoder.dim, encoder.grid.pixels)
        init_xavier(self.head)

    @classmethod
    def clips_together(cls, config: Any) -> int:
        """Return how many clips are mixed: pairs if there is mixup."""
        return 2 if config.augment.mixup_rate else 1

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the mean squared error of the masked patches of the batch (equation 1)."""
        features = self.augmented(batch, step)
        split = self.mask_patches(batch, features, step)
        # Only masked patches are in the loss.
        patches = split.masked.gather(self.encoder.grid.split(features.spectrogram))
        predictions = self.head(self.decode_masked(self.decoder, features, split))
        valid = split.masked.valid
        loss = reconstruction_loss(predictions, self.target(patches), valid)
        return ObjectiveOutput(loss, valid.sum().float(), {"mse": loss})

    def augmented(self, batch: Batch, step: int) -> Features:
        """Return the spectrograms of augmented waves, drawn by clip key, seed and step."""
        draws = batch.keys, batch.partners, self.seed, step
        wave, _ = self.augment.wave(batch.wave, batch.lengths, None, *draws)
        return self.with_valid(*self.spectrograms(batch, wave))

    def target(self, patches: Patches) -> Patches:
        """Return the reconstruction targets of patches: normalised each by itself, or raw."""
        if self.config.target == "raw":
            return patches
        # (patch - mean) / std, each patch by itself
        return (patches - patches.mean(dim=2, keepdim=True)) / deviation(patches)

    def picture(self, batch: Batch, step: int) -> Picture:
        """Return the first clip: clean, with masked patches blank, and with them reconstructed.

        Normalised targets have no mean and standard deviation; those of the clip's visible patches
        stand in for them.
        """
        features = self.features(batch)
        split = self.mask_patches(batch, features, step)
        reconstruction = self.head(self.decode_masked(self.decoder, features, split))
        if self.config.target == "normalised":
            # reconstruction * std + mean undoes (patch - mean) / std.
            visible = split.visible.gather(self.encoder.grid.split(features.spectrogram))
            mean = masked_mean(visible.mean(2, keepdim=True), split.visible.valid)
            std = masked_mean(deviation(visible), split.visible.valid)
            reconstruction = reconstruction * std[:, None] + mean[:, None]
        return self.reconstruction_picture(features.spectrogram, split.masked, reconstruction)


def deviation(patches: Patches) -> Float[Tensor, "clip patch 1"]:
    """Return the unbiased standard deviation of each patch as in MAE, at least 0.001."""
    return (patches.var(dim=2, keepdim=True) + 1e-6).sqrt()
