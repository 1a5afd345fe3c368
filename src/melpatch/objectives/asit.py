"""ASiT: reconstruct a corrupted spectrogram and match an EMA teacher that sees the clean one.

Atito, Awais, Wang, Plumbley and Kittler 2022, "ASiT: Audio Spectrogram vIsion Transformer" (arXiv
2211.13189; IEEE/ACM TASLP 32, 2024). The paper and its two releases (April 2023, March 2024) are
three methods: the paper is the default where it says enough, the releases are settings (see
melpatch.recipes.asit).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import MOST_LAYERS, Encoded, Encoder
from melpatch.nn.corruption import Corruption, corrupt_views
from melpatch.nn.ema import ema_update, frozen_copy
from melpatch.nn.heads import PatchDecoder
from melpatch.nn.self_distillation import SelfDistillation
from melpatch.nn.transformer import MOST_VIEWS
from melpatch.nn.views import (
    Crops,
    Views,
    averaging_weights,
    by_view,
    pixels_in_patches,
    random_crops,
    token_weights,
    whole_patches,
)
from melpatch.objectives.base import NO_PLAN, Objective, ObjectiveOutput, Picture, Plan
from melpatch.rng import stream

Spectrograms = Float[Tensor, "view mel frame"]

# Length of a view as a share of the segment: the paper's 6 s of 10 s.
_VIEW_RATIO = 0.6


class ASiT(Objective):
    """Group-masked modelling with local and global self-distillation (section III of the paper)."""

    needs_token_encoder = True
    depends_on_other_clips = True  # corrupted blocks may come from another clip of the batch
    progress_metric = "pixel"  # the other losses depend on how confident the teacher is

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of ASiT. A loss of weight 0 is not computed, and its modules are not built."""

        views: int = 2
        """Random views of each clip for student and teacher; at least 2 for the global loss."""
        view_seconds: float | None = None
        """Length of a view, in seconds; none: 0.6 of the longest segment (paper: 6 s of 10 s)."""
        local_crops: int = 0
        """Further short, clean crops of each clip, for the student's side of the global loss."""
        local_crop_seconds: float = 2.0
        """Length of a local crop, in seconds."""
        corrupt: bool = True
        """Whether the student's views are corrupted."""
        corruption: Corruption.Config = field(default_factory=Corruption.Config)
        """How they are corrupted."""
        pixel_weight: float = 1.0
        """Weight of the L1 loss between the reconstructed and the clean spectrogram."""
        pixels: Literal["corrupted", "all"] = "corrupted"
        """Pixels that the reconstruction loss covers."""
        decoder: tuple[int, ...] = (2048, 2048, 256)
        """Widths of the decoder's layers before its transposed convolution."""
        decoder_last_gelu: bool = False
        """Whether a GELU follows the last of them."""
        local_weight: float = 1.0
        """Weight of the local loss: patch tokens match the teacher's of the same clean patches."""
        local_tokens: Literal["all", "corrupted", "separate"] = "all"
        """Tokens in the local loss; separate: weighted mean over corrupted and over intact ones."""
        intact_weight: float = 0.5
        """With separate: weight of the intact tokens' mean, 0 to 1."""
        corrupted_threshold: float = 0.0
        """Smallest share of corrupted pixels in a corrupted token, 0 to 1; 0: any pixel counts."""
        global_weight: float = 1.0
        """Weight of the global loss: the class token matches the teacher's of another view."""
        distillation: SelfDistillation.Config = field(default_factory=SelfDistillation.Config)
        """Heads and teacher of the local and global losses."""
        average: Literal["clip", "batch"] = "clip"
        """Average tokens and pixels within each clip first, which is exact on several processes, or
        over the batch, as published. Nearly the same for clips of equal length."""
        export: Literal["teacher", "student"] = "teacher"
        """Whose encoder is kept after pretraining."""

        @property
        def weights(self) -> dict[str, float]:
            """Weights of the losses that are used, by the name of their metric."""
            weights = {
                "pixel": self.pixel_weight,
                "local": self.local_weight,
                "global": self.global_weight,
            }
            return {name: weight for name, weight in weights.items() if weight}

        def __post_init__(self) -> None:
            """Check the ranges."""
            for name in ("pixel_weight", "local_weight", "global_weight"):
                weight = getattr(self, name)
                check(0 <= weight < math.inf, name, weight, "0 or more")
            allowed = "above 0, or another of the three weights"
            check(bool(self.weights), "pixel_weight", 0.0, allowed)
            # Class tokens are compared across views.
            least = 1 + bool(self.global_weight)
            allowed = f"{least} to {MOST_VIEWS} with global_weight {self.global_weight:g}"
            check(least <= self.views <= MOST_VIEWS, "views", self.views, allowed)
            crops = self.local_crops
            check(0 <= crops <= MOST_VIEWS, "local_crops", crops, f"0 to {MOST_VIEWS}")
            if not self.corrupt:
                allowed = "'all' where nothing is corrupted"
                fits = self.pixels == "all" or not self.pixel_weight
                check(fits, "pixels", self.pixels, allowed)
                fits = self.local_tokens == "all" or not self.local_weight
                check(fits, "local_tokens", self.local_tokens, allowed)
            for name in ("view_seconds", "local_crop_seconds"):
                value = getattr(self, name)
                check(value is None or 0 < value < math.inf, name, value, "seconds above 0")
            for name in ("intact_weight", "corrupted_threshold"):
                check(0 <= getattr(self, name) <= 1, name, getattr(self, name), "0 to 1")
            widths = self.decoder
            fits = len(widths) <= MOST_LAYERS and min(widths, default=1) >= 1
            check(fits, "decoder", widths, f"up to {MOST_LAYERS} widths of 1 or more")

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: Encoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: ASiT.Config = config
        grid = encoder.grid
        cls_tokens = encoder.num_cls_tokens
        allowed = f"{grid.patch}; patches are reconstructed one by one"
        check(grid.stride == grid.patch, "encoder.stride", grid.stride, allowed)
        self.require_masked_padding("so that padding is in no loss")
        if config.global_weight:
            check(cls_tokens > 0, "encoder.cls_tokens", cls_tokens, "1 or 2 with a global loss")
        self.plan = NO_PLAN
        self.corruption = None
        if config.corrupt:
            self.corruption = Corruption(config.corruption, grid.patch)
        self.decoder = None
        if config.pixel_weight:
            self.decoder = PatchDecoder(
                encoder.embed_dim, config.decoder, grid.pixels, last_gelu=config.decoder_last_gelu
            )
        # Global before local: the order in which their weights are drawn and stored.
        self.distillation = None
        self.teacher = None
        distilled = tuple(name for name in ("global", "local") if name in config.weights)
        if distilled:
            heads = config.distillation
            prototypes = heads.prototypes(distilled)
            self.distillation = SelfDistillation(heads, encoder.embed_dim, prototypes, heads.shared)
            self.teacher = frozen_copy(encoder)

    @classmethod
    def clips_together(cls, config: Any) -> int:
        """Return how many clips have blocks of each other: pairs, if any."""
        return 2 if config.corrupt and config.corruption.alien_probability else 1

    @classmethod
    def input_seconds(cls, config: Any, seconds: float) -> float:
        """Return the length of a view, in seconds."""
        return float(config.view_seconds or _VIEW_RATIO * seconds)

    def check_plan(self, plan: Plan) -> None:
        """Refuse views or crops that are longer than every clip, or too short for a patch.

        Raises:
            ConfigError: a view or crop has such a length.
        """
        least = self.shortest_seconds(max(self.encoder.grid.patch[1], 2))
        longest = plan.longest_segment
        view = self.input_seconds(self.config, plan.seconds)
        crop = self.config.local_crop_seconds
        allowed = f"{least:g} (one patch) to {longest:g}, the longest segment; set it or --seconds"
        check(least <= view <= longest, "objective.view_seconds", view, allowed)
        if self.config.local_crops:
            allowed = f"{least:g} (one patch) to {view:g}, the length of a view"
            check(least <= crop <= view, "objective.local_crop_seconds", crop, allowed)

    def begin(self, plan: Plan) -> None:
        """Make the teacher a copy of the student, and fit the schedules to the run."""
        super().begin(plan)
        self.plan = plan
        if self.distillation is not None and self.teacher is not None:
            self.distillation.begin(plan.steps, plan.batch_size)
            self.teacher.load_state_dict(self.encoder.state_dict())

    def train(self, mode: bool = True) -> "ASiT":
        """Set training mode; the teacher stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return L = w_p L_pixel + w_l L_local + w_g L_global, a mean over clips (III-D)."""
        return self.losses(self.views(batch, step), step)

    def views(self, batch: Batch, step: int) -> Views:
        """Return random views, corrupted for the student, and local crops (section III-A)."""
        spectrogram = self.features(batch).spectrogram
        shortest = self.front_end.frames(batch.shortest)
        crops = self._random_crops("view", self.config.views, spectrogram, batch, step)
        clean, valid = self.with_valid(crops.spectrogram, crops.frames, shortest)
        # Frames that are in no patch are not corrupted, and in no loss.
        frames, valid_frames = pixels_in_patches(crops.frames, clean.shape[2], self.encoder.grid)
        corrupted, mask = corrupt_views(
            self.corruption,
            clean,
            frames,
            self.config.views,
            batch.keys,
            batch.partners,
            seed=self.seed,
            step=step,
            silence=self.front_end.silence,
        )
        local_crops = None
        if self.config.local_crops and self.config.global_weight:
            short = self._random_crops("crop", self.config.local_crops, spectrogram, batch, step)
            local_crops = self.with_valid(short.spectrogram, short.frames, shortest)
        valid_pixels = valid_frames.expand_as(clean)
        return Views(clean, corrupted, mask, valid_pixels, valid, local_crops, crops.start)

    def losses(self, views: Views, step: int) -> ObjectiveOutput:
        """Return the losses of views as metrics, and their weighted sum as the loss."""
        student_out = self.encoder(views.corrupted, views.valid)
        teacher_out = None
        if self.teacher is not None:
            with torch.no_grad():
                teacher_out = self.teacher(views.clean, views.valid)
        metrics = self.reconstruction_loss(views, student_out)
        if teacher_out is not None and self.config.local_weight:
            metrics |= self.local_loss(views, student_out, teacher_out, step)
        if teacher_out is not None and self.config.global_weight:
            metrics |= self.global_loss(views, student_out, teacher_out, step)
        # L = sum_i w_i L_i over the losses in use
        weighted = [weight * metrics[name] for name, weight in self.config.weights.items()]
        loss = torch.stack(weighted).sum()
        return ObjectiveOutput(loss, loss.new_full((), self._clips(views)), metrics)

    def reconstruction_loss(self, views: Views, student_out: Encoded) -> dict[str, Tensor]:
        """Return the L1 distance between reconstructed and clean pixels (equation 1)."""
        if self.decoder is None:
            return {}
        grid = self.encoder.grid
        covered = grid.split(views.pixels(self.config.pixels).to(views.clean.dtype))
        by_clip = self.config.average == "clip"
        weights = averaging_weights(covered, self.config.views, by_clip=by_clip).flatten(0, 1)
        # Only patches with such pixels are decoded. Finding them waits for the device, once.
        chosen = (weights > 0).any(dim=1).nonzero()[:, 0]
        tokens = student_out.patches.flatten(0, 1)[chosen]
        clean = grid.split(views.clean).flatten(0, 1)[chosen]
        error = self.decoder(tokens).to(clean.dtype) - clean
        # L1 of each pixel, weighted such that the sum is a mean over clips
        return {"pixel": (weights[chosen] * error.abs()).sum() / self._clips(views)}

    def local_loss(
        self, views: Views, student_out: Encoded, teacher_out: Encoded, step: int
    ) -> dict[str, Tensor]:
        """Return the cross-entropy of patch tokens with the teacher's at the same place (equation
        6).

        *Differs:* over all tokens by default, as in both releases; the paper's equation takes the
        corrupted ones.
        """
        weights = self._token_weights(views).flatten() / self._clips(views)
        chosen: slice | Tensor = slice(None)
        if self.config.local_tokens != "all" or views.valid is not None:
            chosen = weights.nonzero()[:, 0]  # waits for the device
        student_tokens = student_out.patches.flatten(0, 1)[chosen]
        teacher_tokens = teacher_out.patches.flatten(0, 1)[chosen]
        assert self.distillation is not None
        return self.distillation.token_loss(
            "local", student_tokens, teacher_tokens, weights[chosen], step
        )

    def global_loss(
        self, views: Views, student_out: Encoded, teacher_out: Encoded, step: int
    ) -> dict[str, Tensor]:
        """Return the cross-entropy of class tokens with the teacher's of other views (equation
        5)."""
        student_cls = student_out.cls
        if views.local_crops is not None:
            student_cls = torch.cat([student_cls, self.encoder(*views.local_crops).cls])
        student_cls = by_view(student_cls, self._clips(views))
        teacher_cls = by_view(teacher_out.cls, self._clips(views))
        assert self.distillation is not None
        return self.distillation.view_loss("global", student_cls, teacher_cls, step)

    def after_step(self, step: int) -> None:
        """Move the teacher towards the student."""
        if self.distillation is not None and self.teacher is not None:
            self.distillation.after_step(step)
            ema_update(self.teacher, self.encoder, self.distillation.momentum_at(step))

    def export_encoder(self) -> Encoder:
        """Return the teacher's encoder, or the student's if that is set or there is no teacher."""
        if self.teacher is None or self.config.export == "student":
            return self.encoder
        return self.teacher

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a warning with a remedy if self-distillation has collapsed."""
        if self.distillation is None:
            return None
        return self.distillation.warning(metrics, step)

    def picture(self, batch: Batch, step: int) -> Picture:
        """Return the first clip's first view: clean, corrupted, reconstructed, pseudo-labelled."""
        views = self.views(batch, step).first()
        grid = self.encoder.grid
        frames = int(views.valid_pixels[0, 0].sum())

        def log_mel(spectrogram: Spectrograms) -> Float[Tensor, "mel shown"]:
            return self.front_end.denormalise(spectrogram)[0, :, :frames].detach()

        reconstruction = None
        if self.decoder is not None:
            patches = self.decoder(self.encoder(views.corrupted, views.valid).patches)
            pixels = grid.join(patches.to(views.clean.dtype), views.clean.shape[2])
            covered = views.pixels(self.config.pixels)
            reconstruction = log_mel(torch.where(covered, pixels, views.clean))
        pseudo_labels = None
        if self.distillation is not None and self.teacher is not None and self.config.local_weight:
            tokens = self.teacher(views.clean, views.valid).patches
            best = self.distillation.logits("local", tokens)[0].argmax(dim=-1)
            pseudo_labels = best.view(grid.rows, -1)[:, : math.ceil(frames / grid.patch[1])]
        assert views.start is not None
        return Picture(
            log_mel(views.clean),
            log_mel(views.corrupted),
            views.mask[0, :, :frames],
            reconstruction,
            start=int(views.start[0]),
            pseudo_labels=pseudo_labels,
        )

    def _random_crops(
        self, purpose: str, count: int, spectrogram: Spectrograms, batch: Batch, step: int
    ) -> Crops:
        """Return ``count`` random crops of every clip, padded to whole patches."""
        seconds = self.config.local_crop_seconds
        if purpose == "view":
            segment = self.segment_seconds(batch, self.plan)
            seconds = self.input_seconds(self.config, segment)
        width = self.front_end.frames(round(seconds * self.front_end.sample_rate))
        states = [
            stream(self.seed, f"{purpose} {number}", batch.keys, step) for number in range(count)
        ]
        crops = random_crops(states, spectrogram, self.front_end.frames(batch.lengths), width)
        return whole_patches(crops, self.encoder.grid)

    def _token_weights(self, views: Views) -> Float[Tensor, "view token"]:
        """Return the weight of each token in the local loss; 0 for padding."""
        config = self.config
        split = self.encoder.grid.split
        # A patch sums its pixels: how many are valid, and how many are corrupted.
        return token_weights(
            split(views.valid_pixels.to(views.clean.dtype)).sum(dim=2),
            split(views.mask.to(views.clean.dtype)).sum(dim=2),
            config.views,
            tokens=config.local_tokens,
            threshold=config.corrupted_threshold,
            intact_weight=config.intact_weight,
            by_clip=config.average == "clip",
        )

    def _clips(self, views: Views) -> int:
        return len(views.clean) // self.config.views
