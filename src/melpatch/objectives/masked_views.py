"""Masked views: reconstruct what is masked in two views of a clip, and find one by the other.

Of each view only the visible patches are encoded. A decoder reconstructs the masked ones, and a
projector makes a vector of the visible ones that finds the other view of its clip among both views
of all clips. For predictions p of masked patches x, and projections z::

    L = mean (p - x)^2 + contrast * NT-Xent(z)

The reconstruction keeps what tells one recording from another, voice and channel included; the
comparison keeps what is common to two views, and so learns from few steps what few labels need.

Source: Mishra et al. 2022, "CAN: A simple, efficient and scalable contrastive masked autoencoder"
(arXiv 2210.16870), for images. *Differs*: views are spectrograms, compared by mean, deviation
and differences over time of what is visible; there is no noise to predict; the two terms are means
over clips.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.audio.view_augment import ViewAugment
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoded, TokenEncoder
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.nn.masked import masked_mean
from melpatch.nn.masking import Masking, PatchSplit, join_splits
from melpatch.nn.pooling import TOKEN_POOLING, pool
from melpatch.nn.transformer import init_xavier
from melpatch.nn.whole_step import Rows
from melpatch.objectives.base import Features, ObjectiveOutput, Picture
from melpatch.objectives.contrastive import ContrastiveConfig
from melpatch.objectives.masked import masked_picture
from melpatch.objectives.masked_contrastive import MaskedContrastive


class EncodedViews(NamedTuple):
    """Both views of each clip, first views first: the input, what was masked, and its encoding."""

    features: Features
    split: PatchSplit
    encoded: Encoded


class MaskedViews(MaskedContrastive):
    """A masked autoencoder whose two views of a clip also have to find each other."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ContrastiveConfig):
        """Settings of masked views."""

        augment: ViewAugment.Config = field(
            default_factory=lambda: ViewAugment.Config(
                mix=0.2, crop_mels=(0.6, 1.5), crop_frames=(0.6, 1.5), fader=1.0
            )
        )
        """Augmentations of a view, before its mask: mixing with a partner, random resize crop and a
        linear fader, as in BYOL-A v2."""
        mask: Masking.Config = field(default_factory=Masking.Config)
        """Patches that a view loses, drawn for each view; 75 % at random by default."""
        decoder: MAEDecoder.Config = field(default_factory=MAEDecoder.Config)
        """The network that reconstructs them."""
        contrast: float = 0.1
        """Weight of the comparison beside the reconstruction."""
        pooling: str = TOKEN_POOLING
        """How visible tokens become the vector that is compared, without layers."""
        temperature: float = 0.1
        """Temperature of the cosines."""
        hidden_dims: tuple[int, ...] = (512,)
        """Widths of the projector's hidden layers."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            super().__post_init__()
            check(self.contrast >= 0, "contrast", self.contrast, "0 or more")

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: TokenEncoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: MaskedViews.Config = config
        masking = Masking(config.mask, encoder.grid)
        self.masks = (masking, masking)
        self.decoder = MAEDecoder(config.decoder, encoder.embed_dim, encoder.num_layers)
        self.head = nn.Linear(self.decoder.dim, encoder.grid.pixels)
        init_xavier(self.head)

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the sum of both terms, each a mean over the clips of the batch."""
        views = self.masked_views(batch, step)
        compared = self.compared(self.rows_of(views, batch), step)
        mse = self.reconstruction(views).sum() / max(1, 2 * len(batch))
        loss = mse + self.config.contrast * compared.loss
        metrics = {"mse": mse, "nt_xent": compared.loss, **compared.metrics}
        return ObjectiveOutput(loss, compared.weight, metrics)

    def encode(self, batch: Batch, step: int) -> Rows:
        """Return the vectors of what is visible of both views of each clip."""
        return self.rows_of(self.masked_views(batch, step), batch)

    def masked_views(self, batch: Batch, step: int) -> EncodedViews:
        """Return both views of each clip, of which the visible patches are encoded."""
        features = self.both_views(batch, step)
        split = self.mask_views(batch, features, step)
        return EncodedViews(features, split, self.encode_visible(features, split))

    def mask_views(self, batch: Batch, features: Features, step: int) -> PatchSplit:
        """Return the masked and the visible patches of both views, first views first."""
        valid: tuple[Tensor | None, ...] = (None, None)
        if features.valid is not None:
            valid = features.valid.chunk(2)
        views = map(Features, features.spectrogram.chunk(2), valid)
        return join_splits(
            [self.mask_view(batch, view, step, number) for number, view in enumerate(views)]
        )

    def rows_of(self, views: EncodedViews, batch: Batch) -> Rows:
        """Return the pooled visible patches of both views of each clip."""
        encoded, visible = views.encoded, views.split.visible
        rows = self.encoder.grid.rows
        places = rows * self.encoder.grid.columns(views.features.spectrogram.shape[2])
        # Visible patches go back to their places in the grid; masked ones are pooled as padding is.
        nothing = encoded.patches.new_zeros(len(encoded.patches), places, self.encoder.embed_dim)
        patches = visible.scatter(encoded.patches, nothing)
        mask = visible.as_mask(places)
        pooled = pool(patches, encoded.cls, mask, rows, self.config.pooling)
        return Rows(torch.stack(pooled.chunk(2), dim=1), batch.keys)

    def reconstruction(self, views: EncodedViews) -> Float[Tensor, " view"]:
        """Return the mean squared error over the masked patches of each view."""
        predictions = self.reconstructed(views)
        targets = views.split.masked.gather(self.encoder.grid.split(views.features.spectrogram))
        errors = (predictions.to(targets.dtype) - targets).square().mean(dim=2, keepdim=True)
        return masked_mean(errors, views.split.masked.valid)[:, 0]

    def reconstructed(self, views: EncodedViews) -> Float[Tensor, "view masked pixel"]:
        """Return the pixels that the decoder gives to masked patches."""
        grid = self.encoder.grid
        size = (grid.rows, grid.columns(views.features.spectrogram.shape[2]))
        patches, cls = views.encoded.patches, views.encoded.cls
        decoded = self.decoder(patches, cls, views.split.visible, size, views.features.valid)
        pixels: Tensor = self.head(views.split.masked.gather(decoded))
        return pixels

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a warning if the outputs collapse, or the comparison is still that of guessing."""
        return super().warning({**metrics, "loss": metrics.get("nt_xent", 0.0)}, step)

    def picture(self, batch: Batch, step: int) -> Picture:
        """Return the first clip as it is, under the mask of its first view, and reconstructed."""
        features = self.features(batch)
        split = self.mask_view(batch, features, step, 0)
        views = EncodedViews(features, split, self.encode_visible(features, split))
        grid, front_end = self.encoder.grid, self.front_end
        reconstruction = self.reconstructed(views)
        return masked_picture(features.spectrogram, split.masked, grid, front_end, reconstruction)
