"""ATST-Frame: BYOL frame by frame, at the frames that are hidden from the student.

Both views of a clip have the same frames: one is clean, the other is mixed with a partner and
resized in frequency only. The student gets each with a mask embedding in place of its hidden
frames; the teacher gets it whole. With BYOL's predictor, student and teacher, at hidden frame f::

    L_f = [d(predictor(s(a))_f, t(b)_f) + d(predictor(s(b))_f, t(a)_f)] / 2

Li et al. 2024, "Self-supervised audio teacher-student transformer for both clip-level and
frame-level tasks" (arXiv 2306.04186), section III-B.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.audio.view_augment import ViewAugment
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import TokenEncoder
from melpatch.nn.masked import at_least_float32
from melpatch.nn.masking import Masking, Subset
from melpatch.nn.whole_step import Rows
from melpatch.objectives.base import Features, Picture, Plan, Spectrograms
from melpatch.objectives.bootstrap import BootstrapConfig, BootstrapObjective
from melpatch.objectives.masked import MaskedObjective


class ATSTFrame(MaskedObjective, BootstrapObjective):
    """Prediction of a momentum teacher's frames at hidden places (section III-B of the paper).

    A frame is a token: with patches as high as the spectrogram, all mel bins of some frames.

    *Differs:* as :class:`melpatch.objectives.byol.BYOL`; blocks of hidden frames may start before
    the clip, so that all frames are hidden equally often.

    Attributes:
        mask_embed: what the student gets in place of a hidden frame.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(BootstrapConfig):
        """Settings of ATST-Frame."""

        augment: ViewAugment.Config = field(
            default_factory=lambda: ViewAugment.Config(mix=0.4, crop_mels=(0.6, 1.5))
        )
        """Augmentations of the second view, which must leave frames in their places; by default
        mixing with a partner and random resize crop in frequency, as published."""
        augment_both: bool = False
        """Whether the first view is augmented too."""
        mask: Masking.Config = field(
            default_factory=lambda: Masking.Config(kind="span", ratio=0.65, span=5)
        )
        """Which frames are hidden; published: 65 %, in blocks of 5."""

        def __post_init__(self) -> None:
            """Check that frames stay in their places."""
            super().__post_init__()
            allowed = "none, since both views have the same frames; --seconds sets their length"
            check(self.crop_seconds is None, "crop_seconds", self.crop_seconds, allowed)
            for name in ("roll", "stretch", "crop_frames"):
                value = getattr(self.augment, name)
                allowed = "none, since both views have the same frames"
                check(not value, f"augment.{name}", value, allowed)

    config: Config

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: TokenEncoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        allowed = "mean, since single frames are compared"
        check(config.pooling == "mean", "objective.pooling", config.pooling, allowed)
        super().__init__(config, front_end, encoder, labels, seed)
        self.masking = Masking(config.mask, encoder.grid)
        self.mask_embed = nn.Parameter(torch.zeros(encoder.embed_dim))
        nn.init.trunc_normal_(self.mask_embed, std=0.02)

    def check_plan(self, plan: Plan) -> None:
        """Refuse steps of too few clips, and segments without a visible or without a hidden frame.

        Raises:
            ConfigError: they are.
        """
        BootstrapObjective.check_plan(self, plan)
        MaskedObjective.check_plan(self, plan)

    def view(self, batch: Batch, step: int, number: int) -> Spectrograms:
        """Return one view of each clip; the first one is clean unless ``augment_both``."""
        if number == 0 and not self.config.augment_both:
            return self.spectrograms(batch)
        return super().view(batch, step, number)

    def encode(self, batch: Batch, step: int) -> Rows:
        """Return the hidden frames of all clips, clip after clip.

        Of each, the student's vectors in both views, then the teacher's.
        """
        both = self.both_views(batch, step)
        hidden = self.hidden(batch, both, step)
        encoded = [self.student_tokens(both, hidden)]
        with torch.no_grad():
            encoded.append(self.teacher(both.spectrogram, both.valid).patches)
        frames = [hidden.gather(tokens) for passed in encoded for tokens in passed.chunk(2)]
        # (clip, place, student and teacher in both views, dim)
        rows = at_least_float32(torch.stack(frames, dim=2)).flatten(0, 1)
        keys = batch.keys[:, None].expand_as(hidden.valid).flatten()
        if both.valid is not None:  # without padding all clips have as many hidden frames
            chosen = hidden.valid.flatten().nonzero()[:, 0]  # waits for the device
            rows = rows[chosen]
            keys = keys[chosen]
        return Rows(rows, keys)

    def hidden(self, batch: Batch, both: Features, step: int) -> Subset:
        """Return the hidden frames of each clip, the same in both views."""
        valid = both.valid
        if valid is not None:
            valid = valid[: len(batch)]
        return self.mask_patches(batch, Features(both.spectrogram, valid), step).masked

    def student_tokens(self, both: Features, hidden: Subset) -> Float[Tensor, "view token dim"]:
        """Return what the student makes of both views without the hidden frames."""
        tokens = self.encoder.tokens(both.spectrogram)
        columns = self.encoder.grid.columns(both.spectrogram.shape[2])
        masked_tokens = (self.mask_embed + self.encoder.positions(columns)).to(tokens.dtype)
        is_hidden = hidden.as_mask(tokens.shape[1]).repeat(2, 1)
        tokens = torch.where(is_hidden[..., None], masked_tokens, tokens)
        return self.encoder.encode_tokens(tokens, both.valid).patches

    def picture(self, batch: Batch, step: int) -> Picture:
        """Return the first clip, with hidden frames blank."""
        first = Batch(batch.wave[:1], batch.lengths[:1], batch.keys[:1])
        features = self.features(first)
        masked = self.mask_patches(first, features, step).masked
        return self.masked_picture(features.spectrogram, masked)
