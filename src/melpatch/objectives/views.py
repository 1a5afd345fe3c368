"""The base class of objectives that compare views of a clip.

Two views of each clip are made by random crops, augmentations and masks; the encoder makes one
vector of each; the loss compares the vectors of all clips of an optimiser step, however they are
divided into batches and processes (:mod:`melpatch.nn.whole_step`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.audio.view_augment import ViewAugment
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder
from melpatch.nn.batch_norm import unnoted
from melpatch.nn.pooling import pool, pooled_dim, require_final_tokens
from melpatch.nn.transformer import set_drop_path_noise
from melpatch.nn.views import random_crop
from melpatch.nn.whole_step import Rows, WholeStep, own_part
from melpatch.objectives.base import (
    NO_PLAN,
    Features,
    Objective,
    ObjectiveOutput,
    Plan,
    Spectrograms,
)
from melpatch.rng import stream

_COLLAPSED_STD = 0.05
"""Standard deviation of the outputs, as a share of that of random directions, that is a collapse."""


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """Settings of views and of the vector that is compared."""

    augment: ViewAugment.Config = field(default_factory=ViewAugment.Config)
    """Augmentations, drawn for each view alone."""
    crop_seconds: float | None = None
    """Length of the random crop that is each view, in seconds; none: views are whole segments."""
    max_crop_ratio: float = 1.0
    """Largest share of a clip that a crop may be, so that the crops of a short clip differ."""
    pooling: str = "mean"
    """How tokens become one vector per view, without layers."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        crop = self.crop_seconds
        fits = crop is None or 0 < crop < math.inf
        check(fits, "crop_seconds", crop, "seconds above 0, or none")
        ratio = self.max_crop_ratio
        check(0 < ratio <= 1, "max_crop_ratio", ratio, "above 0, at most 1")
        require_final_tokens(self.pooling)


class ViewObjective(Objective):
    """An objective that compares two views of each clip with those of all clips of a step.

    A method of one's own needs :meth:`compare`, and :meth:`encode` where other vectors than pooled
    ones of two views are compared.

    Attributes:
        augment: the augmentations of views.
        step_rows: the vectors of the other batches and processes of the step.
        pooled_dim: width of a pooled vector.
        plan: length and batch size of the run.
    """

    depends_on_other_clips = True
    least_clips = 2
    """Clips that a step needs at least."""

    def __init__(
        self,
        config: Any,
        front_end: LogMel,
        encoder: Encoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.require_masked_padding("so that no view is padding")
        self.augment = ViewAugment(config.augment, front_end)
        self.step_rows = WholeStep()
        self.pooled_dim = pooled_dim(encoder.embed_dim, encoder.grid.rows, config.pooling)
        self.plan = NO_PLAN

    @classmethod
    def input_seconds(cls, config: Any, seconds: float) -> float:
        """Return the length of a view, in seconds."""
        if config.crop_seconds is None:
            return seconds
        return float(min(config.crop_seconds, config.max_crop_ratio * seconds))

    @classmethod
    def clips_together(cls, config: Any) -> int:
        """Return how many clips are mixed: fours, if any, since each view has another partner."""
        return 4 if config.augment.mix > 0 else 1

    def check_plan(self, plan: Plan) -> None:
        """Refuse crops of unusable length, and steps of too few clips.

        Raises:
            ConfigError: a crop is longer than every clip or shorter than a patch, or a step holds
                fewer clips than the loss compares.
        """
        crop = self.config.crop_seconds
        if crop is not None:
            least = self.shortest_seconds(self.encoder.grid.patch[1])
            longest = plan.longest_segment
            allowed = f"{least:g} (one patch) to {longest:g}, the longest segment"
            check(least <= crop <= longest, "objective.crop_seconds", crop, allowed)
        allowed = f"{self.least_clips} or more, since clips are compared with each other"
        check(plan.batch_size >= self.least_clips, "batch_size", plan.batch_size, allowed)

    def begin(self, plan: Plan) -> None:
        """Note the length of the segments and of the run."""
        super().begin(plan)
        self.plan = plan

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the mean loss of the batch's rows, and the gauges of the whole step."""
        return self.compared(self.encode(batch, step), step)

    def compared(self, own: Rows, step: int) -> ObjectiveOutput:
        """Return the mean loss of the batch's rows among those of the whole step.

        Args:
            own: what :meth:`encode` returned.
            step: optimiser steps done before.
        """
        rows = self.step_rows.join(own)
        count = len(own.keys)
        losses, metrics = self.compare(rows, count / max(1, len(rows.keys)), step)
        loss = own_part(losses, count) / max(1, count)
        means = {name: values[:count].sum() / max(1, count) for name, values in metrics.items()}
        return ObjectiveOutput(loss, loss.new_full((), count), means)

    def prepare(self, batches: Sequence[Batch], step: int) -> None:
        """Encode all batches of the step without gradient, to be compared with each other."""
        own = []
        with unnoted(self):  # batch norms note a batch once, when it is trained on
            for batch in batches:
                set_drop_path_noise(self, self.seed, batch.keys, step)
                own.append(self.encode(batch, step))
        self.step_rows.prepare(own)

    def compare(
        self, rows: Rows, share: float, step: int
    ) -> tuple[Float[Tensor, " row"], dict[str, Float[Tensor, " row"]]]:
        """Return the loss and the metrics of each row of the whole step.

        Args:
            rows: vectors of the whole step, own ones first; those of others have no gradient.
            share: own rows as a share of all, for :func:`melpatch.nn.whole_step.run_shared`.
            step: optimiser steps done before.
        """
        raise NotImplementedError

    def encode(self, batch: Batch, step: int) -> Rows:
        """Return a vector of each view of each clip; by default both views in one pass."""
        first, second = self.pooled(self.both_views(batch, step), self.encoder).chunk(2)
        return Rows(torch.stack([first, second], dim=1), batch.keys)

    def both_views(self, batch: Batch, step: int) -> Features:
        """Return the first views of all clips, then the second ones."""
        views = [self.view(batch, step, number) for number in range(2)]
        return self.with_valid(
            torch.cat([view.spectrogram for view in views]),
            torch.cat([view.frames for view in views]),
            min(view.shortest for view in views),
        )

    def pooled(self, features: Features, encoder: Encoder) -> Float[Tensor, "clip dim"]:
        """Return the pooled vector that an encoder makes of each input, in float32 at least."""
        encoded = encoder(features.spectrogram, features.valid)
        rows = encoder.grid.rows
        return pool(encoded.patches, encoded.cls, features.valid, rows, self.config.pooling)

    def view(self, batch: Batch, step: int, number: int) -> Spectrograms:
        """Return one view of each clip: augmented wave, random crop, augmented spectrogram.

        Args:
            batch: the clips.
            step: optimiser steps done before.
            number: of the view, from 0.
        """
        wave = self.augment.wave(
            batch.wave, batch.lengths, batch.keys, seed=self.seed, step=step, view=number
        )
        spectrogram, frames, shortest = self.log_mel(batch, wave)
        if self.config.crop_seconds is not None:
            segment = self.segment_seconds(batch, self.plan)
            seconds = self.input_seconds(self.config, segment)
            width = self.front_end.frames(round(seconds * self.front_end.sample_rate))
            most = self._most_frames(frames)
            state = stream(self.seed, f"view {number}/crop", batch.keys, step)
            spectrogram, frames, _ = random_crop(state, spectrogram, frames, width, most)
            shortest = min(int(self._most_frames(torch.tensor(shortest))), shortest, width)
        spectrogram = self.augment.spectrogram(
            spectrogram,
            frames,
            batch.partners_of(number),
            batch.keys,
            seed=self.seed,
            step=step,
            view=number,
        )
        return self.normalised(Spectrograms(spectrogram, frames, shortest))

    def view_pictures(self, batch: Batch, step: int) -> dict[str, Float[Tensor, "mel _frame"]]:
        """Return log-mel spectrograms of the batch's first clip and of its views, by name."""
        pictures = {"clip": self.spectrograms(batch)}
        for number in range(2):
            pictures[f"view {number + 1}"] = self.view(batch, step, number)
        return {
            name: self.front_end.denormalise(spectrogram[0, :, : int(frames[0])])
            for name, (spectrogram, frames, _) in pictures.items()
        }

    def _most_frames(self, frames: Int[Tensor, "*clip"]) -> Int[Tensor, "*clip"]:
        """Return how many frames a crop of each clip may have."""
        most: Tensor = (frames * self.config.max_crop_ratio).ceil().long()
        return most.clamp(min=self.encoder.grid.patch[1])

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a warning with a remedy if all clips have the same outputs."""
        if self.plan.is_early(step):
            return None
        std = metrics.get("output_std", 1.0)
        if std >= _COLLAPSED_STD:
            return None
        return (
            f"collapse: the outputs of all clips are alike (their std is {std:.1%} of that of random "
            "directions); lower --lr, lengthen --lr-warmup, or use larger batches"
        )
