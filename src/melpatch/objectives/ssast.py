"""SSAST: hide patches of a spectrogram; tell each hidden patch from the others, and rebuild it.

Gong, Lai, Chung and Glass 2022, "SSAST: Self-Supervised Audio Spectrogram Transformer" (AAAI 2022, arXiv 2110.09784).
Where paper and published code (commit a1a3eec) differ, the paper is the default and the code is a setting.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder
from melpatch.nn.heads import mlp_head
from melpatch.nn.info_nce import Axis
from melpatch.nn.masking import Masking, Subset
from melpatch.nn.patch_losses import patch_infonce, reconstruction_loss
from melpatch.objectives.base import Features, MaskedObjective, ObjectiveOutput, Picture


class SSAST(MaskedObjective):
    """Masked spectrogram patch modelling, discriminative and generative together (section 2 of the paper)."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of SSAST."""

        mask_ratio: float = 0.75
        """Share of a clip's patches that is hidden, in (0, 1). The paper hides 400 of 512 (0.78)."""
        num_masked: int | None = None
        """Patches hidden in a clip that fills the window; shorter clips hide the same share. Overrides mask_ratio."""
        mask: Literal["auto", "cluster", "random"] = "auto"
        """Squares of patches, or single patches; auto takes single ones where the grid has one row (frames)."""
        sampler: Literal["uniform", "legacy"] = "uniform"
        """How squares are drawn: every patch equally likely, or as the published code does (low mels often stay
        visible)."""
        cluster_sides: tuple[int, ...] = (3, 4, 5)
        """Sides of the squares, in patches; one is drawn per clip."""
        pretext: Literal["joint", "discriminative", "generative"] = "joint"
        """Which of the two losses are used."""
        generative_weight: float = 10.0
        """Lambda: weight of the generative loss beside the discriminative one."""
        softmax_axis: Axis = "patches"
        """The paper's softmax over patches, or the published code's over predictions."""
        two_pass: bool = False
        """Run the encoder once per loss, each with its own mask, as the published code does. Twice the cost."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            check(
                0 < self.mask_ratio < 1,
                "mask_ratio",
                self.mask_ratio,
                "between 0 and 1, both excluded",
            )
            check(
                self.num_masked is None or self.num_masked > 0,
                "num_masked",
                self.num_masked,
                "1 or more",
            )
            check(
                min(self.cluster_sides, default=0) > 0,
                "cluster_sides",
                self.cluster_sides,
                "one or more sides of 1 or more",
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
        self.config: SSAST.Config = config
        clusters = config.mask == "cluster" or (config.mask == "auto" and encoder.grid.rows > 1)
        legacy = clusters and config.sampler == "legacy"
        check(
            not legacy or front_end.config.padding == "legacy",
            "objective.sampler",
            config.sampler,
            "'uniform', or 'legacy' with --front-end.padding legacy, since it knows no padding",
        )
        mask = Masking.Config(
            kind="cluster_legacy" if legacy else "cluster" if clusters else "random",
            ratio=config.mask_ratio,
            num_masked=config.num_masked,
            sides=config.cluster_sides,
        )
        self.masking = Masking(
            mask, encoder.grid, fields=("objective.mask_ratio", "objective.num_masked")
        )
        pixels = encoder.grid.patch[0] * encoder.grid.patch[1]
        self.mask_embed = nn.Parameter(torch.empty(1, 1, encoder.embed_dim))
        nn.init.xavier_normal_(self.mask_embed)
        if config.pretext != "generative":
            self.discriminative_head = mlp_head(encoder.embed_dim, pixels)
        if config.pretext != "discriminative":
            self.generative_head = mlp_head(encoder.embed_dim, pixels)

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return L = L_d + lambda * L_g, means over the hidden patches of the batch (section 2.3)."""
        features = self.features(batch)
        hidden = self.mask_patches(batch, features, step).masked
        tokens = self.encode(features, hidden)
        losses: dict[str, Tensor] = {}
        if self.config.pretext != "generative":
            losses |= self.discriminate(features, hidden, tokens)
        if self.config.two_pass:
            hidden = self.mask_patches(batch, features, step, "second mask").masked
            tokens = self.encode(features, hidden)
        if self.config.pretext != "discriminative":
            losses |= self.generate(features, hidden, tokens)
        if self.config.pretext == "joint":
            loss = losses["nce"] + self.config.generative_weight * losses["mse"]
        else:
            loss = losses["nce"] if self.config.pretext == "discriminative" else losses["mse"]
        return ObjectiveOutput(loss, hidden.valid.sum().float(), losses)

    def encode(self, features: Features, hidden: Subset) -> Float[Tensor, "clip hidden dim"]:
        """Return the encoder's outputs at the hidden patches, whose inputs are the mask embedding plus their
        position."""
        tokens = self.encoder.tokens(features.spectrogram)
        positions = self.encoder.positions(
            self.encoder.grid.columns(features.spectrogram.shape[-1])
        )
        mask = hidden.as_mask(tokens.shape[1])[..., None]
        tokens = torch.where(mask, (self.mask_embed + positions).to(tokens.dtype), tokens)
        return hidden.gather(self.encoder.encode_tokens(tokens, features.valid).patches)

    def discriminate(
        self, features: Features, hidden: Subset, tokens: Float[Tensor, "clip hidden dim"]
    ) -> dict[str, Tensor]:
        """Return the InfoNCE loss (equation 1) and the share of hidden patches that were told from the others."""
        patches = hidden.gather(self.encoder.grid.split(features.spectrogram))
        return patch_infonce(
            self.discriminative_head(tokens), patches, hidden.valid, self.config.softmax_axis
        )

    def generate(
        self, features: Features, hidden: Subset, tokens: Float[Tensor, "clip hidden dim"]
    ) -> dict[str, Tensor]:
        """Return the mean squared error between hidden patches and their reconstruction (equation 2)."""
        patches = hidden.gather(self.encoder.grid.split(features.spectrogram))
        return {"mse": reconstruction_loss(self.generative_head(tokens), patches, hidden.valid)}

    def picture(self, batch: Batch, step: int) -> Picture | None:
        """Return the first clip, the same with its hidden patches blank, and with them rebuilt."""
        if self.config.pretext == "discriminative":
            return None
        features = self.features(batch)
        hidden = self.mask_patches(batch, features, step).masked
        return self.reconstruction_picture(
            features.spectrogram, hidden, self.generative_head(self.encode(features, hidden))
        )
