"""MAE-AST: SSAST's two tasks on a masked autoencoder, whose encoder is given the visible patches only.

Baade, Peng and Harwath 2022, "MAE-AST: Masked Autoencoding Audio Spectrogram Transformer" (arXiv 2203.16691).
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
from melpatch.nn.patch_losses import patch_infonce, reconstruction_loss
from melpatch.nn.transformer import init_xavier
from melpatch.objectives.base import MaskedObjective, ObjectiveOutput, Picture


class MAEAST(MaskedObjective):
    """Masked autoencoding, discriminative and generative together (section 2 of the paper).

    *Differs:* squares are drawn for each clip, where the published code gives all clips of a batch the same ones and
    lets them wrap around from one column into the next.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of MAE-AST."""

        mask: Masking.Config = field(default_factory=Masking.Config)
        """Which patches are hidden; the paper hides 75 %, in squares (its "chunks") or at random."""
        decoder: MAEDecoder.Config = field(default_factory=MAEDecoder.Config)
        """What tells them from the visible ones: by default two blocks as wide as the encoder."""
        pretext: Literal["joint", "discriminative", "generative"] = "joint"
        """Which of the two losses are used."""
        generative_weight: float = 10.0
        """Weight of the generative loss beside the discriminative one."""
        negatives: Negatives = "clip"
        """Among which hidden patches each one is to be told: those of its clip, its batch, or all processes."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            check(
                self.generative_weight > 0, "generative_weight", self.generative_weight, "above 0"
            )

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
        """Return L = L_d + 10 L_g, means over the hidden patches of the batch (section 2.4)."""
        features = self.features(batch)
        masked = self.mask_patches(batch, features, step)
        decoded, hidden = self.decode_masked(self.decoder, features, masked), masked.masked
        patches = hidden.gather(self.encoder.grid.split(features.spectrogram))
        losses: dict[str, Tensor] = {}
        if self.config.pretext != "generative":
            said = self.discriminative_head(decoded)
            losses |= patch_infonce(said, patches, hidden.valid, negatives=self.config.negatives)
        if self.config.pretext != "discriminative":
            losses["mse"] = reconstruction_loss(
                self.generative_head(decoded), patches, hidden.valid
            )
        if self.config.pretext == "joint":
            loss = losses["nce"] + self.config.generative_weight * losses["mse"]
        else:
            loss = losses["nce"] if self.config.pretext == "discriminative" else losses["mse"]
        return ObjectiveOutput(loss, hidden.valid.sum().float(), losses)

    def picture(self, batch: Batch, step: int) -> Picture | None:
        """Return the first clip, the same with its hidden patches blank, and with them rebuilt."""
        if self.config.pretext == "discriminative":
            return None
        features = self.features(batch)
        masked = self.mask_patches(batch, features, step)
        return self.reconstruction_picture(
            features.spectrogram,
            masked.masked,
            self.generative_head(self.decode_masked(self.decoder, features, masked)),
        )
