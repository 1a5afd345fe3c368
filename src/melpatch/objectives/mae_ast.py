"""MAE-AST: SSAST's two losses with a masked autoencoder, whose encoder sees visible patches only.

Baade, Peng and Harwath 2022, "MAE-AST: Masked Autoencoding Audio Spectrogram Transformer" (arXiv
2203.16691).
"""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder
from melpatch.nn.info_nce import Negatives
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.nn.masking import Masking
from melpatch.nn.patch_losses import joint_loss, patch_infonce, reconstruction_loss
from melpatch.nn.transformer import init_xavier
from melpatch.objectives.base import ObjectiveOutput, Picture
from melpatch.objectives.masked import MaskedObjective


class MAEAST(MaskedObjective):
    """Masked autoencoding, discriminative and generative together (section 2 of the paper).

    *Differs:* squares are drawn for each clip, where the published code gives all clips of a batch
    the same ones and lets them wrap around from one column into the next.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of MAE-AST."""

        mask: Masking.Config = field(default_factory=Masking.Config)
        """Which patches are masked; the paper masks 75 %, in squares (its "chunks") or at
        random."""
        decoder: MAEDecoder.Config = field(default_factory=MAEDecoder.Config)
        """The network that predicts them from the visible ones; by default two blocks as wide as
        the encoder."""
        pretext: Literal["joint", "discriminative", "generative"] = "joint"
        """Which of the two losses are used."""
        generative_weight: float = 10.0
        """Weight of the generative loss relative to the discriminative one."""
        negatives: Negatives = "clip"
        """Where the negatives of InfoNCE come from: the masked patches of the clip, the batch or
        all processes."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            positive = self.generative_weight > 0
            check(positive, "generative_weight", self.generative_weight, "above 0")

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: Encoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: MAEAST.Config = config
        grid = encoder.grid
        self.masking = Masking(config.mask, grid)
        self.decoder = MAEDecoder(config.decoder, encoder.embed_dim, encoder.num_layers)
        if config.pretext != "generative":
            self.discriminative_head = nn.Linear(self.decoder.dim, grid.pixels)
            init_xavier(self.discriminative_head)
        if config.pretext != "discriminative":
            self.generative_head = nn.Linear(self.decoder.dim, grid.pixels)
            init_xavier(self.generative_head)

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return L = L_d + 10 L_g, means over the masked patches of the batch (section 2.4)."""
        features = self.features(batch)
        split = self.mask_patches(batch, features, step)
        decoded = self.decode_masked(self.decoder, features, split)
        # Both losses compare with the raw pixels of the masked patches.
        targets = split.masked.gather(self.encoder.grid.split(features.spectrogram))
        valid = split.masked.valid
        losses: dict[str, Tensor] = {}
        if self.config.pretext != "generative":
            predictions = self.discriminative_head(decoded)
            losses |= patch_infonce(predictions, targets, valid, negatives=self.config.negatives)
        if self.config.pretext != "discriminative":
            predictions = self.generative_head(decoded)
            losses["mse"] = reconstruction_loss(predictions, targets, valid)
        loss = joint_loss(losses, self.config.generative_weight)
        return ObjectiveOutput(loss, valid.sum().float(), losses)

    def picture(self, batch: Batch, step: int) -> Picture | None:
        """Return the first clip: clean, with masked patches blank, and with them reconstructed."""
        if self.config.pretext == "discriminative":
            return None
        features = self.features(batch)
        split = self.mask_patches(batch, features, step)
        reconstruction = self.generative_head(self.decode_masked(self.decoder, features, split))
        return self.reconstruction_picture(features.spectrogram, split.masked, reconstruction)
