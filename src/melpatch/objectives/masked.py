"""The base class of objectives that mask patches and predict them from the visible ones."""

from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.data.clip import Batch
from melpatch.encoders.base import TokenEncoder
from melpatch.nn.grid import PatchGrid
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.nn.masking import Masking, PatchSplit, Subset
from melpatch.objectives.base import Features, Objective, Picture, Plan


class MaskedObjective(Objective):
    """An objective that masks patches and predicts them from the visible ones."""

    needs_token_encoder = True
    encoder: TokenEncoder
    masking: Masking

    def mask_patches(
        self, batch: Batch, features: Features, step: int, purpose: str = "mask"
    ) -> PatchSplit:
        """Return the masked and the visible patches of each clip; padding is in neither."""
        columns = self.encoder.grid.columns(features.spectrogram.shape[-1])
        return self.masking(
            batch.keys, columns, features.valid, seed=self.seed, step=step, purpose=purpose
        )

    def decode_masked(
        self,
        decoder: MAEDecoder,
        features: Features,
        split: PatchSplit,
        tokens: Float[Tensor, "clip token dim"] | None = None,
    ) -> Float[Tensor, "clip masked out"]:
        """Encode the visible patches only, and return the decoder's outputs at the masked ones.

        Args:
            decoder: the decoder.
            features: the input.
            split: the masked and visible patches.
            tokens: the embedded patches with their positions, if they are there already.
        """
        masked, visible = split
        # Without padding all clips have as many visible patches, and attention needs no mask.
        valid = None
        if features.valid is not None:
            valid = visible.valid
        if tokens is None:
            tokens = self.encoder.tokens(features.spectrogram)
        encoded = self.encoder.encode_subset(tokens, visible, valid)
        grid = self.encoder.grid
        size = (grid.rows, grid.columns(features.spectrogram.shape[-1]))
        decoded = decoder(encoded.patches, encoded.cls, visible, size, features.valid)
        return masked.gather(decoded)

    def check_plan(self, plan: Plan) -> None:
        """Refuse overlapping patches, and segments without a visible or without a masked patch."""
        self.masking.check_window(self._window_frames(plan))

    def least_seconds(self, plan: Plan) -> float:
        """Return the length of the shortest clip of which a patch is masked, in seconds.

        0 if padding counts as sound, as with a front end of fixed length.
        """
        if self.front_end.config.padding == "legacy":
            return 0.0
        grid = self.encoder.grid
        columns = self.masking.least_columns(self._window_frames(plan))
        frames = next(frames for frames in count(1) if grid.columns(frames) >= columns)
        # Even the shortest clip has a frame, and so a column.
        return self.shortest_seconds(frames) if columns > 1 else 0.0

    def begin(self, plan: Plan) -> None:
        """Note how many patches the longest segment has."""
        super().begin(plan)
        self.masking.begin(self._window_frames(plan))

    def _window_frames(self, plan: Plan) -> int:
        """Return the frames of the longest segment, padding of the front end included."""
        frames = self.front_end.frames(round(plan.seconds * self.front_end.sample_rate))
        return self.front_end.config.target_frames or frames

    def masked_picture(
        self, spectrogram: Float[Tensor, "clip mel frame"], masked: Subset
    ) -> Picture:
        """Return the first clip: clean, and with masked patches blank."""
        return masked_picture(spectrogram, masked, self.encoder.grid, self.front_end)

    def reconstruction_picture(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        masked: Subset,
        reconstruction: Float[Tensor, "clip masked pixel"],
    ) -> Picture:
        """Return the first clip: clean, with masked patches blank, and with them reconstructed."""
        return masked_picture(
            spectrogram, masked, self.encoder.grid, self.front_end, reconstruction
        )


def masked_picture(
    spectrogram: Float[Tensor, "clip mel frame"],
    masked: Subset,
    grid: PatchGrid,
    front_end: LogMel,
    reconstruction: Float[Tensor, "clip masked pixel"] | None = None,
) -> Picture:
    """Return the first clip: clean, with masked patches blank, and reconstructed, if that is given.

    Args:
        spectrogram: the normalised log-mel spectrograms.
        masked: the masked patches of each.
        grid: the geometry of the patches.
        front_end: what made the spectrograms.
        reconstruction: pixels for the masked patches, if there is a decoder.
    """
    patches = grid.split(spectrogram)
    frames = spectrogram.shape[-1]
    # NaN marks what the encoder does not get; the mask is read from it.
    blank = torch.full_like(masked.gather(patches), torch.nan)
    masked_input = _log_mel(masked.scatter(blank, patches), frames, grid, front_end)
    clean = _log_mel(patches, frames, grid, front_end)
    whole = None
    if reconstruction is not None:
        joined = masked.scatter(reconstruction.to(patches.dtype), patches)
        whole = _log_mel(joined, frames, grid, front_end)
    return Picture(clean, masked_input, masked_input.isnan(), whole)


def _log_mel(
    patches: Float[Tensor, "clip token pixel"], frames: int, grid: PatchGrid, front_end: LogMel
) -> Float[Tensor, "mel frame"]:
    """Return the log-mel spectrogram of the first clip, given all its patches."""
    return front_end.denormalise(grid.join(patches, frames))[0].detach()
