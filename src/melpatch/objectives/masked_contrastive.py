"""The base class of objectives that compare what masks leave of two views of a clip.

Each view loses patches under a mask of its own, and only the visible ones are encoded.
"""

from jaxtyping import Float
from torch import Tensor

from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoded, TokenEncoder
from melpatch.nn.masking import Masking, PatchSplit
from melpatch.objectives.base import Features, Picture, Plan
from melpatch.objectives.contrastive import ContrastiveObjective
from melpatch.objectives.masked import masked_picture


class MaskedContrastive(ContrastiveObjective):
    """An objective whose two views of a clip are masked.

    Attributes:
        masks: of the first and of the second view.
    """

    needs_token_encoder = True
    encoder: TokenEncoder
    masks: tuple[Masking, Masking]

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

    def mask_view(self, batch: Batch, features: Features, step: int, number: int) -> PatchSplit:
        """Return the masked and the visible patches of each clip in a view."""
        columns = self.encoder.grid.columns(features.spectrogram.shape[2])
        purpose = f"view {number}/mask"
        return self.masks[number](
            batch.keys, columns, features.valid, seed=self.seed, step=step, purpose=purpose
        )

    def encode_visible(self, features: Features, split: PatchSplit) -> Encoded:
        """Encode the visible patches only."""
        # Without padding all clips have as many visible patches, and attention needs no mask.
        valid = None
        if features.valid is not None:
            valid = split.visible.valid
        tokens = self.encoder.tokens(features.spectrogram)
        return self.encoder.encode_subset(tokens, split.visible, valid)

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
