"""ASiT: rebuild a corrupted spectrogram, and say of each part of it what a slow teacher says who hears it whole.

Atito, Awais, Wang, Plumbley and Kittler 2022, "ASiT: Audio Spectrogram vIsion Transformer" (arXiv 2211.13189; IEEE/ACM
TASLP 32, 2024). The paper and the two published releases (April 2023, March 2024) are three methods: the paper is the
default where it speaks, the releases are settings (see melpatch.recipes.asit).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoded, Encoder
from melpatch.nn.corruption import Corruption
from melpatch.nn.ema import ema_update, frozen_copy
from melpatch.nn.heads import PatchDecoder
from melpatch.nn.self_distillation import SelfDistillation
from melpatch.nn.views import Crops, averaging_weights, random_crops
from melpatch.objectives.base import Features, Objective, ObjectiveOutput, Picture, Plan
from melpatch.rng import stream

Spectrograms = Float[Tensor, "view mel frame"]
Pixels = Bool[Tensor, "view mel frame"]

_VIEW = 0.6  # of the segment: the paper's 6 s of 10 s


class Views(NamedTuple):
    """What one step shows: the first views of all clips, then the second ones, and so on."""

    clean: Spectrograms
    """For the teacher."""
    corrupted: Spectrograms
    """The same, corrupted, for the student."""
    mask: Pixels
    """Which pixels were corrupted."""
    valid_pixels: Pixels
    """Which pixels hold sound."""
    valid: Bool[Tensor, "view token"] | None
    """Which tokens hold sound; None if all do."""
    local_crops: Features | None = None
    """Short clean pieces, for the student's class tokens only."""
    start: Int[Tensor, " view"] | None = None
    """Frame of the clip's spectrogram at which a view starts."""


class ASiT(Objective):
    """Group-masked modelling with local and global self-distillation (section III of the paper)."""

    needs_token_encoder = True
    depends_on_other_clips = True  # corrupted blocks may come from another clip of the batch
    progress_metric = "pixel"  # the other losses hang on how sure the teacher is

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of ASiT. A loss of weight 0 is not computed, and what only it needs is not built."""

        views: int = 2
        """Random pieces of each clip that student and teacher see; more than one where the global loss is used."""
        view_seconds: float | None = None
        """Length of a view, in seconds; none: six tenths of the longest segment, as the paper's 6 s of 10 s."""
        local_crops: int = 0
        """Further short, clean pieces of each clip, for the student's side of the global loss."""
        local_crop_seconds: float = 2.0
        """Length of those, in seconds."""
        corrupt: bool = True
        """Whether the student's views are corrupted."""
        corruption: Corruption.Config = field(default_factory=Corruption.Config)
        """How they are."""
        pixel_weight: float = 1.0
        """Weight of the reconstruction loss: L1 between the rebuilt and the clean spectrogram."""
        pixels: Literal["corrupted", "all"] = "corrupted"
        """Which pixels are to be rebuilt."""
        decoder: tuple[int, ...] = (2048, 2048, 256)
        """Widths of the reconstruction head's layers before its transposed convolution."""
        decoder_last_gelu: bool = False
        """Whether a GELU follows the last of them."""
        local_weight: float = 1.0
        """Weight of the local loss: every token is to say what the teacher says of the same place of the clean view."""
        local_tokens: Literal["all", "corrupted", "separate"] = "all"
        """Which tokens it is a mean over; separate: the mean over corrupted and that over intact ones, weighed."""
        intact_weight: float = 0.5
        """With separate: share of the intact tokens' mean, 0 to 1."""
        corrupted_threshold: float = 0.0
        """Least share of a token's pixels that makes it corrupted, 0 to 1; with 0 any pixel does."""
        global_weight: float = 1.0
        """Weight of the global loss: the class token is to say what the teacher's says of another view."""
        distillation: SelfDistillation.Config = field(default_factory=SelfDistillation.Config)
        """Heads and teacher of the local and global losses."""
        average: Literal["clip", "batch"] = "clip"
        """Average tokens and pixels within each clip first, which is exact on several processes, or over the batch, as
        published; much the same where clips are of one length."""
        export: Literal["teacher", "student"] = "teacher"
        """Whose encoder users take away."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            weights = {
                name: getattr(self, f"{name}_weight") for name in ("pixel", "local", "global")
            }
            for name, weight in weights.items():
                check(0 <= weight < math.inf, f"{name}_weight", weight, "0 or more")
            check(
                any(weights.values()),
                "pixel_weight",
                0.0,
                "above 0, or another of the three weights",
            )
            least = 2 if self.global_weight else 1
            check(
                self.views >= least,
                "views",
                self.views,
                f"{least} or more with global_weight {self.global_weight:g}",
            )
            check(self.local_crops >= 0, "local_crops", self.local_crops, "0 or more")
            for name, weight in (
                ("pixels", self.pixel_weight),
                ("local_tokens", self.local_weight),
            ):
                fits = self.corrupt or not weight or getattr(self, name) == "all"
                check(fits, name, getattr(self, name), "'all' where nothing is corrupted")
            for name in ("view_seconds", "local_crop_seconds"):
                value = getattr(self, name)
                check(value is None or 0 < value < math.inf, name, value, "seconds above 0")
            for name in ("intact_weight", "corrupted_threshold"):
                check(0 <= getattr(self, name) <= 1, name, getattr(self, name), "0 to 1")
            check(min(self.decoder, default=1) >= 1, "decoder", self.decoder, "widths of 1 or more")

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
        grid, padding = encoder.grid, front_end.config.padding
        check(
            grid.stride == grid.patch,
            "encoder.stride",
            grid.stride,
            f"{grid.patch}; patches are rebuilt one by one",
        )
        check(
            padding == "masked",
            "front_end.padding",
            padding,
            "'masked', so that padding is in no loss",
        )
        cls_tokens = encoder.num_cls_tokens
        check(
            cls_tokens > 0 or not config.global_weight,
            "encoder.cls_tokens",
            cls_tokens,
            "1 or 2 with a global loss",
        )
        self.plan = Plan(steps=1, batch_size=1, seconds=math.inf, longest_segment=math.inf)
        self.corruption = Corruption(config.corruption, grid.patch) if config.corrupt else None
        self.decoder, self.distillation, self.teacher = None, None, None
        if config.pixel_weight:
            self.decoder = PatchDecoder(
                encoder.embed_dim, config.decoder, grid.pixels, last_gelu=config.decoder_last_gelu
            )
        told = tuple(name for name in ("global", "local") if getattr(config, f"{name}_weight"))
        if told:
            self.distillation = SelfDistillation(config.distillation, encoder.embed_dim, told)
            self.teacher = frozen_copy(encoder)

    @classmethod
    def needs_pairs(cls, config: Any) -> bool:
        """Return whether clips show parts of their partners."""
        return bool(config.corrupt and config.corruption.alien_probability)

    @classmethod
    def input_seconds(cls, config: Any, seconds: float) -> float:
        """Return the length of a view, in seconds."""
        return float(config.view_seconds or _VIEW * seconds)

    def check_plan(self, plan: Plan) -> None:
        """Refuse views or crops that are longer than every clip, or too short for a patch.

        Raises:
            ConfigError: a view or crop has such a length.
        """
        config, front, patch = self.config, self.front_end, self.encoder.grid.patch[1]
        least = (
            front.config.overhead + (max(patch, 2) - 1) * front.config.hop_length
        ) / front.sample_rate
        view, crop = self.input_seconds(config, plan.seconds), config.local_crop_seconds
        allowed = f"{least:g} (one patch) to {plan.longest_segment:g}, the longest segment; set it or --seconds"
        check(least <= view <= plan.longest_segment, "objective.view_seconds", view, allowed)
        allowed = f"{least:g} (one patch) to {view:g}, the length of a view"
        check(
            not config.local_crops or least <= crop <= view,
            "objective.local_crop_seconds",
            crop,
            allowed,
        )

    def begin(self, plan: Plan) -> None:
        """Make the teacher a copy of the student, and fit the schedules to the run."""
        super().begin(plan)
        self.plan = plan
        if self.distillation is not None and self.teacher is not None:
            self.distillation.begin(plan.steps, plan.batch_size)
            self.teacher.load_state_dict(self.encoder.state_dict())

    def train(self, mode: bool = True) -> "ASiT":
        """Set training mode; the teacher stays as it is in use."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the weighted sum of the losses, a mean over clips (section III-D)."""
        return self.losses(self.views(batch, step), step)

    def views(self, batch: Batch, step: int) -> Views:
        """Crops the views and crops of a batch, and corrupt the views (section III-A)."""
        grid, spectrogram = self.encoder.grid, self.features(batch).spectrogram
        clean, own, start = self._cut("view", self.config.views, spectrogram, batch, step)
        shortest = self.front_end.frames(batch.shortest)
        clean, valid = self.with_valid(clean, own, shortest)
        if grid.partial == "drop":  # frames that are in no patch are not corrupted
            own = torch.minimum(own, (own // grid.patch[1]).clamp(min=1) * grid.patch[1])
        inside = (torch.arange(clean.shape[2], device=own.device) < own[:, None, None]).expand_as(
            clean
        )
        seen, hidden = self._corrupt(clean, own, batch, step)
        crops = None
        if self.config.local_crops and self.config.global_weight:
            crops = self.with_valid(
                *self._cut("crop", self.config.local_crops, spectrogram, batch, step)[:2], shortest
            )
        return Views(clean, seen, hidden, inside, valid, crops, start)

    def losses(self, views: Views, step: int) -> ObjectiveOutput:
        """Return the losses of views; their weighted sum is the loss."""
        said, told = self.encoder(views.corrupted, views.valid), self._tell(views)
        metrics = self.reconstruction_loss(views, said)
        if self.distillation is not None and told is not None:
            if self.config.local_weight:
                metrics |= self.local_loss(self.distillation, views, said, told, step)
            if self.config.global_weight:
                metrics |= self.global_loss(self.distillation, views, said, told, step)
        weights = {
            name: getattr(self.config, f"{name}_weight") for name in ("pixel", "local", "global")
        }
        loss = torch.stack(
            [weight * metrics[name] for name, weight in weights.items() if weight]
        ).sum()
        return ObjectiveOutput(loss, loss.new_full((), self._clips(views)), metrics)

    def reconstruction_loss(self, views: Views, said: Encoded) -> dict[str, Tensor]:
        """Return the L1 distance of the rebuilt pixels to the clean ones (equation 1)."""
        if self.decoder is None:
            return {}
        grid = self.encoder.grid
        wanted = views.mask if self.config.pixels == "corrupted" else views.valid_pixels
        weights = self._averaging_weights(grid.split(wanted.to(views.clean.dtype))).flatten(0, 1)
        chosen = (weights > 0).any(dim=1).nonzero()[:, 0]  # once: the device has to be waited for
        tokens, clean = (
            said.patches.flatten(0, 1)[chosen],
            grid.split(views.clean).flatten(0, 1)[chosen],
        )
        error = self.decoder(tokens).to(clean.dtype) - clean
        return {"pixel": (weights[chosen] * error.abs()).sum() / self._clips(views)}

    def local_loss(
        self, distillation: SelfDistillation, views: Views, said: Encoded, told: Encoded, step: int
    ) -> dict[str, Tensor]:
        """Return the local loss: cross-entropy of each token with the teacher's at the same place (equation 6).

        *Differs:* over all tokens by default, as in both releases; the paper's equation takes the corrupted ones.
        """
        weights = self._token_weights(views).flatten() / self._clips(views)
        everywhere = (
            self.config.local_tokens == "all" and views.valid is None
        )  # then no device has to say where
        chosen = slice(None) if everywhere else weights.nonzero()[:, 0]
        said_there, told_there = (tokens.patches.flatten(0, 1)[chosen] for tokens in (said, told))
        return distillation.token_loss("local", said_there, told_there, weights[chosen], step)

    def global_loss(
        self, distillation: SelfDistillation, views: Views, said: Encoded, told: Encoded, step: int
    ) -> dict[str, Tensor]:
        """Return the global loss: cross-entropy of class tokens with the teacher's of the other views (equation 5)."""
        cls = (
            said.cls
            if views.local_crops is None
            else torch.cat([said.cls, self.encoder(*views.local_crops).cls])
        )
        clips = self._clips(views)
        sizes = [(len(rows) // max(1, clips), clips, rows.shape[2]) for rows in (cls, told.cls)]
        said_by, told_by = (
            rows.mean(dim=1).view(size) for rows, size in zip((cls, told.cls), sizes, strict=True)
        )
        return distillation.view_loss("global", said_by, told_by, step)

    def after_step(self, step: int) -> None:
        """Move the teacher towards the student."""
        if self.distillation is not None and self.teacher is not None:
            self.distillation.after_step(step)
            ema_update(self.teacher, self.encoder, self.distillation.momentum_at(step))

    def export_encoder(self) -> Encoder:
        """Return the teacher's encoder, or the student's where that is asked for or there is no teacher."""
        return (
            self.encoder
            if self.teacher is None or self.config.export == "student"
            else self.teacher
        )

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a sentence if self-distillation has collapsed."""
        return None if self.distillation is None else self.distillation.warning(metrics, step)

    def picture(self, batch: Batch, step: int) -> Picture:
        """Return the first clip's first view, clean, corrupted and rebuilt, with the teacher's class of each patch."""
        views, grid = self.views(batch, step), self.encoder.grid
        clean, seen, hidden, inside = (
            one[:1] for one in (views.clean, views.corrupted, views.mask, views.valid_pixels)
        )
        valid, frames = None if views.valid is None else views.valid[:1], int(inside[0, 0].sum())
        rebuilt, classes, show = None, None, self.front_end.denormalise
        if self.decoder is not None:
            pixels = grid.join(
                self.decoder(self.encoder(seen, valid).patches).to(clean.dtype), clean.shape[2]
            )
            wanted = hidden if self.config.pixels == "corrupted" else inside
            rebuilt = show(torch.where(wanted, pixels, clean))[0, :, :frames].detach()
        if self.distillation is not None and self.teacher is not None and self.config.local_weight:
            choice = self.distillation.logits("local", self.teacher(clean, valid).patches)[
                0
            ].argmax(dim=-1)
            classes = choice.view(grid.rows, -1)[:, : math.ceil(frames / grid.patch[1])]
        clean, seen = (show(stage)[0, :, :frames] for stage in (clean, seen))
        start = 0 if views.start is None else int(views.start[0])
        return Picture(clean, seen, hidden[0, :, :frames], rebuilt, start, classes)

    def _cut(
        self, purpose: str, count: int, spectrogram: Spectrograms, batch: Batch, step: int
    ) -> Crops:
        """Return so many pieces of every clip."""
        rate, segment = self.front_end.sample_rate, self.plan.seconds
        if math.isinf(segment):  # a loaded run has no plan
            segment = batch.wave.shape[1] / rate
        seconds = (
            self.config.local_crop_seconds
            if purpose == "crop"
            else self.input_seconds(self.config, segment)
        )
        width = self.front_end.frames(round(seconds * rate))
        states = (
            stream(self.seed, f"{purpose} {number}", batch.keys, step) for number in range(count)
        )
        pieces = random_crops(states, spectrogram, self.front_end.frames(batch.lengths), width)
        grid, frames = self.encoder.grid, pieces.spectrogram.shape[2]
        whole_patches = grid.columns(frames) * grid.patch[1]
        return pieces._replace(spectrogram=F.pad(pieces.spectrogram, (0, whole_patches - frames)))

    def _corrupt(
        self, clean: Spectrograms, own: Int[Tensor, " view"], batch: Batch, step: int
    ) -> tuple[Spectrograms, Pixels]:
        """Return the views corrupted, each time with blocks of its own, and which pixels were."""
        if self.corruption is None:
            return clean, torch.zeros_like(clean, dtype=torch.bool)
        count, whose, silence = (
            self.config.views,
            (batch.keys, batch.partners),
            self.front_end.silence,
        )
        done = [
            self.corruption(
                view,
                frames,
                *whose,
                seed=self.seed,
                step=step,
                purpose=f"corruption {number}",
                silence=silence,
            )
            for number, (view, frames) in enumerate(
                zip(clean.chunk(count), own.chunk(count), strict=True)
            )
        ]
        return torch.cat([one.spectrogram for one in done]), torch.cat([one.mask for one in done])

    @torch.no_grad()
    def _tell(self, views: Views) -> Encoded | None:
        """Return what the teacher makes of the clean views, all in one batch."""
        return None if self.teacher is None else self.teacher(views.clean, views.valid)

    def _token_weights(self, views: Views) -> Float[Tensor, "view token"]:
        """Return the weight of each token in the local loss; 0 for those that are not in it, padding among them."""
        config, split, dtype = self.config, self.encoder.grid.split, views.clean.dtype
        inside = split(views.valid_pixels.to(dtype)).sum(dim=2)
        if config.local_tokens == "all":
            return self._averaging_weights((inside > 0).to(dtype))
        hidden = split(views.mask.to(dtype)).sum(dim=2)
        corrupted = (hidden > 0) & (hidden >= config.corrupted_threshold * inside)
        weights = self._averaging_weights(corrupted.to(dtype))
        if config.local_tokens == "corrupted":
            return weights
        intact = self._averaging_weights(((inside > 0) & ~corrupted).to(dtype))
        # Again, for clips that have tokens of one kind only.
        return self._averaging_weights(
            config.intact_weight * intact + (1 - config.intact_weight) * weights
        )

    def _averaging_weights(self, chosen: Float[Tensor, "view ..."]) -> Float[Tensor, "view ..."]:
        return averaging_weights(chosen, self.config.views, by_clip=self.config.average == "clip")

    def _clips(self, views: Views) -> int:
        return len(views.clean) // self.config.views
