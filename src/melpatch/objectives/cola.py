"""COLA: two crops of one clip are to find each other among the crops of all clips.

Saeed, Grangier and Zeghidour 2020, "Contrastive learning of general-purpose audio representations" (ICASSP 2021, arXiv
2010.10915), and the published code. It asks nothing of its encoder but a vector per crop, so any will do.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from melpatch import distributed
from melpatch.audio.augment import noise
from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder
from melpatch.nn.batch_norm import unnoted
from melpatch.nn.info_nce import info_nce
from melpatch.nn.pooling import Pooling, pool, pooled_dim
from melpatch.nn.transformer import set_drop_path_noise
from melpatch.nn.views import random_crop
from melpatch.objectives.base import Features, Objective, ObjectiveOutput, Plan
from melpatch.rng import stream

_CROP = 1.0  # seconds, as published
_LATE, _STUCK, _ALIKE = (
    0.1,
    0.99,
    0.01,
)  # share of the run; of the loss of guessing; of the spread of tanh
_CHANCE = 2.0  # times the accuracy of guessing

Vectors = Float[Tensor, "clip dim"]


class Projections(NamedTuple):
    """What is compared of some clips."""

    anchors: Vectors
    """Projections of the first crops."""
    positives: Vectors
    """Projections of the second ones."""
    keys: Int[Tensor, " clip"]
    """The clips' keys: a clip is not told from itself, which a step may hold twice at the seam of two passes."""


class COLA(Objective):
    """Contrastive learning of clips (section 2 of the paper)."""

    depends_on_other_clips = True  # the other clips are the negatives

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of COLA."""

        crop_seconds: float | None = None
        """Length of a crop, in seconds; none: 1 s as published, but at most max_crop_ratio of the longest segment."""
        max_crop_ratio: float = 0.5
        """Largest share of a clip that a crop may be, so that the two crops of a short one mostly differ; published: 1,
        with which the two crops of a clip no longer than a crop are the same."""
        noise_snr_db: float | None = None
        """Ratio of a clip to the white noise added to it for its second crop, in dB; none adds none. The published
        option, a deviation of 0.001 on waves of unit energy, is 8 dB in clips of 10 s."""
        pooling: Pooling = "mean"
        """Tokens to the vector of a crop; published, on a convolutional net: max."""
        projection: int = 512
        """Length of the vectors that are compared."""
        similarity: Literal["bilinear", "cosine"] = "bilinear"
        """How they are compared: through a matrix that is learned, or by their angle."""
        init: Literal["identity", "random"] = "identity"
        """What that matrix starts as: a plain product of the vectors, or normal numbers of deviation 0.05, as
        published, with which clips take longer to be told apart."""
        temperature: float = 0.2
        """What the cosine is divided by."""
        symmetric: bool = False
        """Let the second crops look for the first ones too, and take the mean; published: one way only."""
        negatives: Literal["batch", "processes"] = "processes"
        """Whose crops are told apart: those of one batch of one process, or those of the whole step, of all processes
        and accumulated batches, which are then encoded twice."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            crop, snr = self.crop_seconds, self.noise_snr_db
            check(
                crop is None or 0 < crop < math.inf,
                "crop_seconds",
                crop,
                "seconds above 0, or none",
            )
            check(
                0 < self.max_crop_ratio <= 1,
                "max_crop_ratio",
                self.max_crop_ratio,
                "above 0, at most 1",
            )
            check(
                snr is None or math.isfinite(snr),
                "noise_snr_db",
                snr,
                "a finite number of dB, or none",
            )
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
        padding = front_end.config.padding
        check(
            padding == "masked",
            "front_end.padding",
            padding,
            "'masked', so that no crop is padding",
        )
        self.plan = Plan(steps=1, batch_size=1, seconds=math.inf, longest_segment=math.inf)
        self.others: deque[Projections] = (
            deque()
        )  # what the batches of the step that are to come are compared with
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
        return float(config.crop_seconds or min(_CROP, config.max_crop_ratio * seconds))

    def check_plan(self, plan: Plan) -> None:
        """Refuse crops longer than every clip or too short for a patch, and batches without negatives.

        Raises:
            ConfigError: one of these holds.
        """
        front, patch = self.front_end.config, self.encoder.grid.patch[1]
        least = (front.overhead + (patch - 1) * front.hop_length) / front.sample_rate
        crop = self.input_seconds(self.config, plan.seconds)
        allowed = f"{least:g} (one patch) to {plan.longest_segment:g}, the longest segment; set it or --seconds"
        check(least <= crop <= plan.longest_segment, "objective.crop_seconds", crop, allowed)
        shares = 1 if self.config.negatives == "processes" else plan.accumulate * plan.world_size
        allowed = f"{2 * shares} or more, since other clips are what a clip is told from"
        check(plan.batch_size >= 2 * shares, "batch_size", plan.batch_size, allowed)

    def begin(self, plan: Plan) -> None:
        """Note the length of the segments and of the run."""
        super().begin(plan)
        self.plan = plan

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the mean over clips of -ln softmax of the similarity of a clip's crops among all (equation 1).

        Metrics: ``accuracy``, the share of first crops whose own second crop is the most similar, and ``spread``, the
        standard deviation over the clips of what is compared: near 0, the encoder says the same of all.
        """
        own = Projections(*self.embed(self.crops(batch, step)), batch.keys)
        others = (
            self.others.popleft() if self.others else _but(0, [own, *self._of_other_processes(own)])
        )
        loss, hit = self.compare(own, others)
        mine, count = loss[: len(batch)].sum(), max(1, len(batch))
        # What the others' clips lose hangs on these ones too, but is theirs to tell.
        taught = loss.sum() - (loss.sum() - mine).detach()
        anchors = torch.cat([own.anchors.detach(), others.anchors])
        found = hit[: len(batch)].to(loss.dtype).sum()
        metrics = {"accuracy": found / count, "spread": anchors.std(dim=0, correction=0).mean()}
        return ObjectiveOutput(taught / count, taught.new_full((), len(batch)), metrics)

    def prepare(self, batches: Sequence[Batch], step: int) -> None:
        """Encode all batches of the step, so that each can be compared with the others.

        Gradients are exact: each batch brings those of the whole step's loss by its own clips. Source: gradient caching
        (Gao et al. 2021, arXiv 2101.06983).
        """
        self.others.clear()
        if self.config.negatives == "batch":
            return
        own = []
        with unnoted(self):  # a batch is to be noted once, when it is learned from
            for batch in batches:
                set_drop_path_noise(self, self.seed, batch.keys, step)
                own.append(Projections(*self.embed(self.crops(batch, step)), batch.keys))
        theirs = self._of_other_processes(Projections(*map(torch.cat, zip(*own, strict=True))))
        self.others.extend(_but(number, [*own, *theirs]) for number in range(len(own)))

    def _of_other_processes(self, own: Projections) -> list[Projections]:
        """Return what the other processes compare at the same time."""
        if self.config.negatives == "batch":
            return []
        found = zip(*(distributed.all_gather_rows(part.detach()) for part in own), strict=True)
        return [
            Projections(*parts)
            for number, parts in enumerate(found)
            if number != distributed.rank()
        ]

    def crops(self, batch: Batch, step: int) -> Features:
        """Return the first crops of all clips, then the second ones, each cut from anywhere in its clip.

        Of a short clip a crop is its largest share, but a patch at least. Clips are cut as spectrograms, which without
        noise are computed once. *Differs:* the published code fills short clips up with silence, and adds the noise
        after the cut, of one deviation for clips of all lengths.
        """
        first, frames, shortest = self.spectrograms(batch)
        second, ratio = first, self.config.noise_snr_db
        if ratio is not None:
            state = stream(self.seed, "noise", batch.keys, step)
            second = self.spectrograms(
                batch, noise(batch.wave, batch.lengths, state, (ratio, ratio))
            )[0]
        rate, segment = self.front_end.sample_rate, self.plan.seconds
        if math.isinf(segment):  # a loaded run has no plan
            segment = batch.wave.shape[1] / rate
        width = self.front_end.frames(round(self.input_seconds(self.config, segment) * rate))
        share, least = (
            (whole * self.config.max_crop_ratio).ceil().long().clamp(min=self.encoder.grid.patch[1])
            for whole in (frames, torch.tensor([shortest]))
        )
        anchor, positive = (
            random_crop(
                stream(self.seed, purpose, batch.keys, step), spectrogram, frames, width, share
            )
            for purpose, spectrogram in (("anchor", first), ("positive", second))
        )
        return self.with_valid(
            torch.cat([anchor.spectrogram, positive.spectrogram]),
            torch.cat([anchor.frames, positive.frames]),
            min(shortest, int(least)),
        )

    def embed(self, crops: Features) -> tuple[Vectors, Vectors]:
        """Return the projections of the first and the second crops, in float32 at least, from -1 to 1."""
        encoded = self.encoder(crops.spectrogram, crops.valid)
        pooled = pool(
            encoded.patches, encoded.cls, crops.valid, self.encoder.grid.rows, self.config.pooling
        )
        with torch.autocast(
            pooled.device.type, enabled=False
        ):  # sums of so many products are large: float32
            anchors, positives = self.projection(pooled).chunk(2)
        return anchors, positives

    def compare(
        self, own: Projections, others: Projections
    ) -> tuple[Float[Tensor, " any"], Bool[Tensor, " any"]]:
        """Return the loss of each clip, one's own first, and whether its first crop found its second one."""
        anchors, positives, keys = (torch.cat(parts) for parts in zip(own, others, strict=True))
        with torch.autocast(anchors.device.type, enabled=False):  # as in embed
            if self.config.similarity == "bilinear":
                # The matrix learns from its product with one's own crops; the others bring theirs.
                asked = torch.cat(
                    [own.anchors @ self.bilinear, others.anchors @ self.bilinear.detach()]
                )
            else:
                asked, positives = (
                    F.normalize(anchors, dim=1) / self.config.temperature,
                    F.normalize(positives, dim=1),
                )
            alike = (keys[:, None] == keys) & ~torch.eye(
                len(keys), dtype=torch.bool, device=keys.device
            )
            items = asked[None], positives[None], torch.ones_like(keys, dtype=torch.bool)[None]
            loss, hit = info_nce(*items, alike=alike[None])
            if self.config.symmetric:
                loss = (loss + info_nce(*items, axis="predictions", alike=alike[None])[0]) / 2
        return loss[0], hit[0]

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return in words that clips are still not told apart after a tenth of the run; else None.

        Crops that are found far more often than by chance are learned from, whatever the loss: through a bilinear
        similarity, a few that are surely mistaken cost more than guessing does.
        """
        together, cure = (
            self._together(self.plan),
            "a lower --lr, a longer --lr-warmup or --objective.similarity cosine",
        )
        guessing = math.log(max(together, 1))
        if step < _LATE * self.plan.steps or metrics.get("loss", 0.0) < _STUCK * guessing:
            return None
        if metrics.get("spread", 1.0) < _ALIKE:  # then anything is found, as all are alike
            return f"collapse: all clips have the same embedding; try {cure}"
        if metrics.get("accuracy", 0.0) > _CHANCE / max(together, 1):
            return None
        return f"the loss is no better than ln {together} = {guessing:.2f}, what guessing costs; try {cure}"

    def _together(self, plan: Plan) -> int:
        """Return how many clips are told apart at once."""
        return plan.batch_size if self.config.negatives == "processes" else plan.micro_batch_size


def _but(number: int, parts: Sequence[Projections]) -> Projections:
    """Return what is compared of all parts but one, out of the gradient's reach."""
    rest = [part for at, part in enumerate(parts) if at != number] or [
        Projections(*(one[:0] for one in parts[number]))
    ]
    return Projections(*(torch.cat(columns).detach() for columns in zip(*rest, strict=True)))
