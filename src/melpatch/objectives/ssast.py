"""SSAST: mask patches of a spectrogram, discriminate them with InfoNCE and reconstruct them.

Gong, Lai, Chung and Glass 2022, "SSAST: Self-Supervised Audio Spectrogram Transformer" (AAAI 2022,
arXiv 2110.09784). Where the paper and its published code (commit a1a3eec) differ, the paper is the
default and the code is a setting.
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
from melpatch.nn.patch_losses import joint_loss, patch_infonce, reconstruction_loss
from melpatch.objectives.base import Features, ObjectiveOutput, Picture
from melpatch.objectives.masked import MaskedObjective


class SSAST(MaskedObjective):
    """Masked spectrogram patch modelling, discriminative and generative (section 2 of the
    paper)."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of SSAST."""

        mask_ratio: float = 0.75
        """Share of a clip's patches that is masked, in (0, 1). The paper masks 400 of 512
        (0.78)."""
        num_masked: int | None = None
        """Masked patches of a clip that fills the window; shorter clips mask the same share.
        Overrides mask_ratio."""
        mask: Literal["auto", "cluster", "random"] = "auto"
        """Squares of patches or single patches; auto takes single ones if the grid has one row
        (frames)."""
        sampler: Literal["uniform", "legacy"] = "uniform"
        """How squares are drawn: every patch equally often, or as in the published code (low mels
        often stay visible)."""
        cluster_sides: tuple[int, ...] = (3, 4, 5)
        """Sides of the squares, in patches; one is drawn per clip."""
        pretext: Literal["joint", "discriminative", "generative"] = "joint"
        """Which of the two losses are used."""
        generative_weight: float = 10.0
        """Lambda: weight of the generative loss relative to the discriminative one."""
        softmax_axis: Axis = "patches"
        """The paper's softmax over patches, or the published code's over predictions."""
        two_pass: bool = False
        """Run the encoder once per loss, each with its own mask, as the published code does. Twice
        the cost."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            allowed = "between 0 and 1, both excluded"
            check(0 < self.mask_ratio < 1, "mask_ratio", self.mask_ratio, allowed)
            positive = self.num_masked is None or self.num_masked > 0
            check(positive, "num_masked", self.num_masked, "1 or more")
            positive = min(self.cluster_sides, default=0) > 0
            allowed = "one or more sides of 1 or more"
            check(positive, "cluster_sides", self.cluster_sides, allowed)

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
        grid = encoder.grid
        kind: Literal["random", "cluster", "cluster_legacy"] = "random"
        if config.mask == "cluster" or (config.mask == "auto" and grid.rows > 1):
            kind = "cluster"
            if config.sampler == "legacy":
                kind = "cluster_legacy"
        check(
            kind != "cluster_legacy" or front_end.config.padding == "legacy",
            "objective.sampler",
            config.sampler,
            "'uniform', or 'legacy' with --front-end.padding legacy, since it knows no padding",
        )
        mask = Masking.Config(
            kind=kind,
            ratio=config.mask_ratio,
            num_masked=config.num_masked,
            sides=config.cluster_sides,
        )
        fields = ("objective.mask_ratio", "objective.num_masked")
        self.masking = Masking(mask, grid, fields=fields)
        self.mask_embed = nn.Parameter(torch.empty(1, 1, encoder.embed_dim))
        nn.init.xavier_normal_(self.mask_embed)
        if config.pretext != "generative":
            self.discriminative_head = mlp_head(encoder.embed_dim, grid.pixels)
        if config.pretext != "discriminative":
            self.generative_head = mlp_head(encoder.embed_dim, grid.pixels)

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return L = L_d + lambda * L_g, means over the batch's masked patches (section 2.3)."""
        features = self.features(batch)
        masked = self.mask_patches(batch, features, step).masked
        tokens = self.encode(features, masked)
        losses: dict[str, Tensor] = {}
        if self.config.pretext != "generative":
            losses |= self.discriminative_loss(features, masked, tokens)
        if self.config.two_pass:
            masked = self.mask_patches(batch, features, step, "second mask").masked
            tokens = self.encode(features, masked)
        if self.config.pretext != "discriminative":
            losses |= self.generative_loss(features, masked, tokens)
        loss = joint_loss(losses, self.config.generative_weight)
        return ObjectiveOutput(loss, masked.valid.sum().float(), losses)

    def encode(self, features: Features, masked: Subset) -> Float[Tensor, "clip masked dim"]:
        """Return the encoder's outputs at the masked patches.

        The encoder gets the mask embedding plus the position in their place.
        """
        tokens = self.encoder.tokens(features.spectrogram)
        columns = self.encoder.grid.columns(features.spectrogram.shape[-1])
        masked_tokens = (self.mask_embed + self.encoder.positions(columns)).to(tokens.dtype)
        # Masked patches: mask embedding + position. Visible ones: patch embedding + position.
        mask = masked.as_mask(tokens.shape[1])[..., None]
        tokens = torch.where(mask, masked_tokens, tokens)
        return masked.gather(self.encoder.encode_tokens(tokens, features.valid).patches)

    def discriminative_loss(
        self, features: Features, masked: Subset, tokens: Float[Tensor, "clip masked dim"]
    ) -> dict[str, Tensor]:
        """Return the InfoNCE loss (equation 1) and its accuracy over the masked patches."""
        targets = masked.gather(self.encoder.grid.split(features.spectrogram))
        predictions = self.discriminative_head(tokens)
        return patch_infonce(predictions, targets, masked.valid, self.config.softmax_axis)

    def generative_loss(
        self, features: Features, masked: Subset, tokens: Float[Tensor, "clip masked dim"]
    ) -> dict[str, Tensor]:
        """Return the mean squared error of the reconstructed patches (equation 2)."""
        targets = masked.gather(self.encoder.grid.split(features.spectrogram))
        predictions = self.generative_head(tokens)
        return {"mse": reconstruction_loss(predictions, targets, masked.valid)}

    def picture(self, batch: Batch, step: int) -> Picture | None:
        """Return the first clip: clean, with masked patches blank, and with them reconstructed."""
        if self.config.pretext == "discriminative":
            return None
        features = self.features(batch)
        masked = self.mask_patches(batch, features, step).masked
        reconstruction = self.generative_head(self.encode(features, masked))
        return self.reconstruction_picture(features.spectrogram, masked, reconstruction)
