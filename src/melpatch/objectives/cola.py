"""COLA: contrastive learning that matches two crops of a clip among the crops of all clips.

Saeed, Grangier and Zeghidour 2020, "Contrastive learning of general-purpose audio representations"
(ICASSP 2021, arXiv 2010.10915), and the published code. It needs one vector per crop, so any
encoder will do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from melpatch.audio.augment import noise
from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder
from melpatch.nn.batch_norm import unnoted
from melpatch.nn.info_nce import info_nce
from melpatch.nn.pooling import pool, pooled_dim, require_final_tokens
from melpatch.nn.transformer import set_drop_path_noise
from melpatch.nn.views import Crops, random_crop
from melpatch.nn.whole_step import Rows, WholeStep, own_part
from melpatch.objectives.base import NO_PLAN, Features, Objective, ObjectiveOutput, Plan
from melpatch.rng import stream

_CROP_SECONDS = 1.0  # as published

# When training counts as failing: with this share of the loss of guessing, embeddings of less than
# this standard deviation (they lie in -1 to 1), and less than this many times the accuracy of
# guessing.
_STUCK_LOSS = 0.99
_COLLAPSED_STD = 0.01
_CHANCE_FACTOR = 2.0


class COLA(Objective):
    """Contrastive learning of clips (section 2 of the paper)."""

    depends_on_other_clips = True  # the other clips are the negatives

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of COLA."""

        crop_seconds: float | None = None
        """Length of a crop, in seconds; none: 1 s as published, but at most max_crop_ratio of the
        longest segment."""
        max_crop_ratio: float = 0.5
        """Largest share of a clip that a crop may be, so that the two crops of a short clip mostly
        differ. Published: 1, with which both crops of a clip shorter than a crop are the whole
        clip."""
        noise_snr_db: float | None = None
        """Signal-to-noise ratio of white noise added to a clip for its second crop, in dB; none
        adds none. The published option, a deviation of 0.001 on waves of unit energy, is 8 dB in
        clips of 10 s."""
        pooling: str = "mean"
        """How tokens become one vector per crop, without layers; published, on a convolutional network: max."""
        projection: int = 512
        """Width of the projection that is compared."""
        similarity: Literal["bilinear", "cosine"] = "bilinear"
        """Similarity of two projections: through a learned matrix, or the cosine."""
        init: Literal["identity", "random"] = "identity"
        """Initial matrix: the identity, a plain dot product; or normal with deviation 0.05, as
        published, which learns more slowly."""
        temperature: float = 0.2
        """Temperature of the cosine."""
        symmetric: bool = False
        """Average the loss over both directions, from first to second crop and back; published: one
        way."""
        negatives: Literal["batch", "processes"] = "processes"
        """Negatives: the clips of one batch of one process, or those of the whole step, of all
        processes and accumulated batches, which are then encoded twice."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            crop = self.crop_seconds
            fits = crop is None or 0 < crop < math.inf
            check(fits, "crop_seconds", crop, "seconds above 0, or none")
            require_final_tokens(self.pooling)
            ratio = self.max_crop_ratio
            check(0 < ratio <= 1, "max_crop_ratio", ratio, "above 0, at most 1")
            snr = self.noise_snr_db
            fits = snr is None or math.isfinite(snr)
            check(fits, "noise_snr_db", snr, "a finite number of dB, or none")
            check(self.projection >= 1, "projection", self.projection, "1 or more")
            check(0 < self.temperature < math.inf, "temperature", self.temperature, "above 0")

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: Encoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: COLA.Config = config
        self.require_masked_padding("so that no crop is padding")
        self.plan = NO_PLAN
        self.step_rows = WholeStep()
        pooled = pooled_dim(encoder.embed_dim, encoder.grid.rows, config.pooling)
        self.projection = nn.Sequential(
            nn.Linear(pooled, config.projection), nn.LayerNorm(config.projection), nn.Tanh()
        )
        if config.similarity == "bilinear":
            self.bilinear = nn.Parameter(torch.eye(config.projection))
            if config.init == "random":
                nn.init.normal_(self.bilinear, std=0.05)

    @classmethod
    def input_seconds(cls, config: Any, seconds: float) -> float:
        """Return the length of a crop, in seconds."""
        return float(config.crop_seconds or min(_CROP_SECONDS, config.max_crop_ratio * seconds))

    def check_plan(self, plan: Plan) -> None:
        """Refuse crops of unusable length, and batches without negatives.

        Raises:
            ConfigError: a crop is longer than every clip or shorter than a patch, or a batch of one
                clip is compared with itself only.
        """
        least = self.shortest_seconds(self.encoder.grid.patch[1])
        longest = plan.longest_segment
        crop = self.input_seconds(self.config, plan.seconds)
        allowed = f"{least:g} (one patch) to {longest:g}, the longest segment; set it or --seconds"
        check(least <= crop <= longest, "objective.crop_seconds", crop, allowed)
        # With negatives from all processes the step is one large batch.
        batches = 1
        if self.config.negatives == "batch":
            batches = plan.accumulate * plan.world_size
        allowed = f"{2 * batches} or more, since other clips are the negatives"
        check(plan.batch_size >= 2 * batches, "batch_size", plan.batch_size, allowed)

    def begin(self, plan: Plan) -> None:
        """Note the length of the segments and of the run."""
        super().begin(plan)
        self.plan = plan

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the mean over clips of -ln softmax(similarity of own crops) (equation 1).

        Metrics: ``accuracy``, the share of first crops whose own second crop is the most similar,
        and ``spread``, the standard deviation of the projections over the clips: near 0, the
        encoder has collapsed.
        """
        own = len(batch)
        count = max(1, own)
        rows = self.project(batch, step)
        if self.config.negatives == "processes":
            rows = self.step_rows.join(rows)
        losses, hits = self.compare(rows, own)
        metrics = {
            "accuracy": hits[:own].to(losses.dtype).sum() / count,
            "spread": rows.features[:, 0].detach().std(dim=0, correction=0).mean(),
        }
        loss = own_part(losses, own) / count
        return ObjectiveOutput(loss, loss.new_full((), own), metrics)

    def prepare(self, batches: Sequence[Batch], step: int) -> None:
        """Encode all batches of the step without gradient, as negatives of each other."""
        if self.config.negatives == "batch":
            return
        own = []
        with unnoted(self):  # batch norms note a batch once, when it is trained on
            for batch in batches:
                set_drop_path_noise(self, self.seed, batch.keys, step)
                own.append(self.project(batch, step))
        self.step_rows.prepare(own)

    def project(self, batch: Batch, step: int) -> Rows:
        """Return the projections of both crops of each clip."""
        return Rows(self.embed(self.crops(batch, step)), batch.keys)

    def crops(self, batch: Batch, step: int) -> Features:
        """Return the first crops of all clips, then the second ones; see :meth:`crop_pairs`."""
        anchor, positive, shortest = self.crop_pairs(batch, step)
        return self.with_valid(
            torch.cat([anchor.spectrogram, positive.spectrogram]),
            torch.cat([anchor.frames, positive.frames]),
            shortest,
        )

    def crop_pairs(self, batch: Batch, step: int) -> tuple[Crops, Crops, int]:
        """Return two crops of each clip, each cut at a random place, and the fewest frames of one.

        The crop of a short clip is ``max_crop_ratio`` of it, but at least a patch. Crops are cut
        from spectrograms, which are computed once per clip unless there is noise. *Differs:* the
        published code pads short clips with silence, and adds the noise after the crop, of one
        deviation for clips of all lengths.
        """
        clean, frames, shortest = self.spectrograms(batch)
        noisy = clean
        snr = self.config.noise_snr_db
        if snr is not None:
            state = stream(self.seed, "noise", batch.keys, step)
            noisy = self.spectrograms(
                batch, noise(batch.wave, batch.lengths, state, (snr, snr))
            ).spectrogram
        segment = self.segment_seconds(batch, self.plan)
        seconds = self.input_seconds(self.config, segment)
        width = self.front_end.frames(round(seconds * self.front_end.sample_rate))
        most = self._most_frames(frames)
        anchor_state = stream(self.seed, "anchor", batch.keys, step)
        positive_state = stream(self.seed, "positive", batch.keys, step)
        anchor = random_crop(anchor_state, clean, frames, width, most)
        positive = random_crop(positive_state, noisy, frames, width, most)
        return anchor, positive, min(shortest, int(self._most_frames(torch.tensor([shortest]))))

    def view_pictures(self, batch: Batch, step: int) -> dict[str, Float[Tensor, "mel _frame"]]:
        """Return log-mel spectrograms of the batch's first clip and of its two crops, by name."""
        anchor, positive, _ = self.crop_pairs(batch, step)
        clip = self.spectrograms(batch)
        pictures = {
            "clip": (clip.spectrogram, clip.frames),
            "crop 1": (anchor.spectrogram, anchor.frames),
            "crop 2": (positive.spectrogram, positive.frames),
        }
        return {
            name: self.front_end.denormalise(spectrogram[0, :, : int(frames[0])])
            for name, (spectrogram, frames) in pictures.items()
        }

    def _most_frames(self, frames: Int[Tensor, " clip"]) -> Int[Tensor, " clip"]:
        """Return how many frames a crop of each clip may have."""
        most = (frames * self.config.max_crop_ratio).ceil().long()
        return most.clamp(min=self.encoder.grid.patch[1])

    def embed(self, crops: Features) -> Float[Tensor, "clip crop dim"]:
        """Return the projections of first and second crops, from -1 to 1, in float32 at least."""
        encoded = self.encoder(crops.spectrogram, crops.valid)
        rows = self.encoder.grid.rows
        pooled = pool(encoded.patches, encoded.cls, crops.valid, rows, self.config.pooling)
        # Dot products of hundreds of numbers are too large for bfloat16.
        with torch.autocast(pooled.device.type, enabled=False):
            anchors, positives = self.projection(pooled).chunk(2)
        return torch.stack([anchors, positives], dim=1)

    def compare(self, rows: Rows, own: int) -> tuple[Float[Tensor, " any"], Bool[Tensor, " any"]]:
        """Return the loss of each clip, and whether its crops found each other.

        Args:
            rows: projections of all clips that are compared, own ones first.
            own: how many clips are own.
        """
        anchors, positives = rows.features.unbind(dim=1)
        keys = rows.keys
        with torch.autocast(anchors.device.type, enabled=False):  # as in embed
            if self.config.similarity == "bilinear":
                # The matrix gets its gradient through the batch's own crops; other batches
                # contribute theirs.
                fixed = self.bilinear.detach()
                queries = torch.cat([anchors[:own] @ self.bilinear, anchors[own:] @ fixed])
            else:
                queries = F.normalize(anchors, dim=1) / self.config.temperature
                positives = F.normalize(positives, dim=1)
            # A second copy of the same clip is no negative.
            itself = torch.eye(len(keys), dtype=torch.bool, device=keys.device)
            same_clip = (keys[:, None] == keys) & ~itself
            valid = torch.ones_like(keys, dtype=torch.bool)
            items = (queries[None], positives[None], valid[None])
            loss, hit = info_nce(*items, ignore=same_clip[None])
            if self.config.symmetric:
                back, _ = info_nce(*items, axis="predictions", ignore=same_clip[None])
                loss = (loss + back) / 2
        return loss[0], hit[0]

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a warning if the loss is still that of guessing after a tenth of the run.

        Accuracy far above chance is a sign of learning, whatever the loss: through a bilinear
        similarity, a few confident mistakes cost more than guessing does.
        """
        compared = self._compared_clips(self.plan)
        guessing = math.log(max(compared, 1))
        remedy = "a lower --lr, a longer --lr-warmup or --objective.similarity cosine"
        if self.plan.is_early(step) or metrics.get("loss", 0.0) < _STUCK_LOSS * guessing:
            return None
        # First, since among equal embeddings any is the most similar.
        if metrics.get("spread", 1.0) < _COLLAPSED_STD:
            return f"collapse: all clips have the same embedding; try {remedy}"
        if metrics.get("accuracy", 0.0) > _CHANCE_FACTOR / max(compared, 1):
            return None
        return (
            f"the loss is no better than ln {compared} = {guessing:.2f}, what guessing costs; try "
            f"{remedy}"
        )

    def _compared_clips(self, plan: Plan) -> int:
        """Return among how many clips each one is found."""
        if self.config.negatives == "processes":
            return plan.batch_size
        return plan.micro_batch_size
