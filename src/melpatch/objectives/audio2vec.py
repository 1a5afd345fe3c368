"""Audio2Vec: slices of a spectrogram tell of their neighbours, or how far apart they are.

Short slices of a clip lie side by side, with a small gap between them; each becomes a vector::

    cbow          the middle slice is reconstructed from the vectors of its neighbours
    skip_gram     the neighbours are reconstructed from the vector of the middle slice
    temporal_gap  two slices from anywhere: their distance is estimated, as a share of the clip

Reconstructions are compared by squared error, the share d and its estimate e by cross-entropy,
-d ln e - (1 - d) ln(1 - e). Tagliasacchi et al. 2019, "Self-supervised audio representation
learning for mobile devices" (arXiv 1905.11796). It needs one vector per slice, so any encoder will
do.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder
from melpatch.nn.masked import at_least_float32
from melpatch.nn.pooling import pool, pooled_dim, require_final_tokens
from melpatch.objectives.base import NO_PLAN, Objective, ObjectiveOutput, Plan
from melpatch.rng import stream, uniform_bits

_GAP_HIDDEN = 64  # width of the network that estimates the distance

PerClip = Float[Tensor, " clip"]


class Slices(NamedTuple):
    """Slices of each clip, in the order of time but for ``temporal_gap``."""

    spectrogram: Float[Tensor, "clip slice mel frame"]
    """Zero past the frames of a slice."""
    frames: Int[Tensor, " clip"]
    """Frames of each slice of a clip, fewer than the width where the clip is short."""
    start: Int[Tensor, "clip slice"]
    """Frame of the clip at which each slice starts."""
    clip_frames: Int[Tensor, " clip"]
    """Frames of each clip."""
    usable: Bool[Tensor, " clip"]
    """False for a clip that is too short for its slices; it has no loss."""
    shortest: int
    """The smallest number of ``frames``, known without waiting for the device."""


class Audio2Vec(Objective):
    """Reconstruction of spectrogram slices from their neighbours' vectors (section 3 of the paper).

    *Differs:* the decoder is a network of one hidden layer, there a mirrored encoder of
    convolutions (for ``skip_gram`` one per neighbour); the slices of a short clip are shortened.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of Audio2Vec."""

        pretext: Literal["cbow", "skip_gram", "temporal_gap"] = "cbow"
        """What is predicted: the middle slice, its neighbours, or the distance of two slices."""
        slice_seconds: float = 0.25
        """Longest slice, in seconds; published: about 1."""
        neighbours: int = 1
        """Neighbours on either side of the middle slice."""
        gap_frames: int = 2
        """Frames between neighbouring slices, whose windows of the front end overlap otherwise."""
        pooling: str = "mean"
        """How tokens become one vector per slice, without layers."""
        embedding: int = 128
        """Width of a slice's vector, of which the reconstructions are made; published: 128."""
        hidden_dim: int = 512
        """Width of the decoder's hidden layer."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            fits = 0 < self.slice_seconds < math.inf
            check(fits, "slice_seconds", self.slice_seconds, "seconds above 0")
            for name in ("neighbours", "embedding", "hidden_dim"):
                check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
            check(self.gap_frames >= 0, "gap_frames", self.gap_frames, "0 or more")
            require_final_tokens(self.pooling)

        @property
        def slices(self) -> int:
            """Slices of a clip."""
            return 2 if self.pretext == "temporal_gap" else 2 * self.neighbours + 1

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: Encoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: Audio2Vec.Config = config
        self.require_masked_padding("so that no slice is padding")
        self.plan = NO_PLAN
        self.width = front_end.frames(round(config.slice_seconds * front_end.sample_rate))
        self.least = encoder.grid.patch[1]
        pooled = pooled_dim(encoder.embed_dim, encoder.grid.rows, config.pooling)
        self.embedding = nn.Linear(pooled, config.embedding)
        pixels = self.width * encoder.grid.n_mels
        around = 2 * config.neighbours
        match config.pretext:
            case "cbow":
                self.decoder = _mlp(around * config.embedding, config.hidden_dim, pixels)
            case "skip_gram":
                self.decoder = _mlp(config.embedding, config.hidden_dim, around * pixels)
            case "temporal_gap":
                self.decoder = _mlp(2 * config.embedding, _GAP_HIDDEN, 1)

    @classmethod
    def input_seconds(cls, config: Any, seconds: float) -> float:
        """Return the length of a slice, in seconds."""
        return float(min(config.slice_seconds, seconds))

    def check_plan(self, plan: Plan) -> None:
        """Refuse slices shorter than a patch, and segments too short for the slices of a clip.

        Raises:
            ConfigError: they are.
        """
        least = self.shortest_seconds(self.least)
        seconds = self.config.slice_seconds
        allowed = f"{least:g} (one patch) or more"
        check(self.width >= self.least, "objective.slice_seconds", seconds, allowed)
        needed = self.least_seconds(plan)
        allowed = (
            f"{needed:g} or more, for {self.config.slices} slices of a patch; or fewer neighbours"
        )
        longest = plan.longest_segment
        check(longest >= needed, "seconds", longest, allowed)

    def begin(self, plan: Plan) -> None:
        """Note the length of the run."""
        super().begin(plan)
        self.plan = plan

    def least_seconds(self, plan: Plan) -> float:
        """Return the length of the shortest clip with room for its slices, in seconds."""
        return self.shortest_seconds(self.config.slices * self.least)

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the mean loss of the clips that are long enough, and what a constant would cost.

        ``constant`` is the loss of the mean of each slice in place of its reconstruction; for
        ``temporal_gap`` it is that of one half. ``error`` is the mean error of the distance.
        """
        slices = self.cut(batch, step)
        vectors = self.embed(slices)
        if self.config.pretext == "temporal_gap":
            losses, metrics = self.estimate_distance(vectors, slices)
        else:
            losses, metrics = self.reconstruct(vectors, slices)
        weight = slices.usable.sum()
        means = {
            name: (values * slices.usable).sum() / weight.clamp(min=1)
            for name, values in {"loss": losses, **metrics}.items()
        }
        return ObjectiveOutput(means.pop("loss"), weight.to(losses.dtype), means)

    def cut(self, batch: Batch, step: int) -> Slices:
        """Return the slices of each clip, from a place drawn for clip and step."""
        number = self.config.slices
        spectrogram, frames, shortest = self.spectrograms(batch)
        own = self._slice_frames(frames)
        if self.config.pretext == "temporal_gap":
            start = self._draw(batch, step, frames - own, number)
        else:
            gaps = number - 1
            gap = ((frames - number * own) // gaps).clamp(0, self.config.gap_frames)
            free = frames - number * own - gaps * gap
            place = torch.arange(number, device=frames.device)
            start = self._draw(batch, step, free, 1) + place * (own + gap)[:, None]
        index = start[..., None] + torch.arange(self.width, device=frames.device)
        index = index.clamp(max=spectrogram.shape[2] - 1).flatten(1)
        cut = spectrogram.gather(2, index[:, None].expand(-1, spectrogram.shape[1], -1))
        cut = cut.reshape(*cut.shape[:2], number, self.width).transpose(1, 2)
        cut = cut.masked_fill(~self._inside(own)[:, None, None], 0.0)
        usable = frames >= number * self.least
        least = int(self._slice_frames(torch.tensor(shortest)))
        return Slices(cut, own, start, frames, usable, least)

    def embed(self, slices: Slices) -> Float[Tensor, "clip slice dim"]:
        """Return the vector of each slice, in float32 at least."""
        clips, number = slices.spectrogram.shape[:2]
        # The first slice of every clip, then the second ones, as for drop path.
        images = slices.spectrogram.transpose(0, 1).flatten(0, 1)
        features = self.with_valid(images, slices.frames.repeat(number), slices.shortest)
        encoded = self.encoder(*features)
        rows = self.encoder.grid.rows
        pooled = pool(encoded.patches, encoded.cls, features.valid, rows, self.config.pooling)
        vectors: Tensor = self.embedding(pooled)
        size = (number, clips, self.config.embedding)
        return at_least_float32(vectors).view(size).transpose(0, 1)

    def reconstruct(
        self, vectors: Float[Tensor, "clip slice dim"], slices: Slices
    ) -> tuple[PerClip, dict[str, PerClip]]:
        """Return the mean squared error of each clip, and that of constant slices."""
        middle = self.config.neighbours
        around = [place for place in range(self.config.slices) if place != middle]
        chosen = ([middle], around) if self.config.pretext == "skip_gram" else (around, [middle])
        source, target = chosen
        wanted = at_least_float32(slices.spectrogram[:, target])
        predicted = self.decoder(vectors[:, source].flatten(1))
        predicted = at_least_float32(predicted).view(wanted.shape)
        inside = self._inside(slices.frames)[:, None, None]
        pixels = slices.frames * len(target) * wanted.shape[2]
        mean = wanted.sum(dim=(2, 3), keepdim=True) * len(target) / pixels[:, None, None, None]
        squares = [((guess - wanted).square() * inside) for guess in (predicted, mean)]
        losses, constant = (square.sum(dim=(1, 2, 3)) / pixels for square in squares)
        return losses, {"constant": constant}

    def estimate_distance(
        self, vectors: Float[Tensor, "clip slice dim"], slices: Slices
    ) -> tuple[PerClip, dict[str, PerClip]]:
        """Return the cross-entropy of each clip's distance, that of one half, and the error."""
        logits = at_least_float32(self.decoder(vectors.flatten(1)))[:, 0]
        wanted = distances(slices).to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        error = (logits.sigmoid() - wanted).abs().detach()
        return losses, {"constant": torch.full_like(error, math.log(2.0)), "error": error}

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a warning with a remedy if a constant predicts as well after a tenth of the run."""
        if self.plan.is_early(step) or metrics.get("loss", 0.0) < metrics.get("constant", math.inf):
            return None
        return (
            "the predictions are no better than constants; raise --lr, or take shorter slices "
            "(--objective.slice-seconds), of which neighbours tell more"
        )

    def _slice_frames(self, frames: Int[Tensor, "*clip"]) -> Int[Tensor, "*clip"]:
        """Return the frames of each slice of clips with this many frames."""
        number = self.config.slices
        gaps = 0
        if self.config.pretext != "temporal_gap":
            gaps = (number - 1) * self.config.gap_frames
        own: Tensor = (frames - gaps) // number
        return own.clamp(self.least, self.width)

    def _draw(
        self, batch: Batch, step: int, last: Int[Tensor, " clip"], number: int
    ) -> Int[Tensor, "clip number"]:
        """Return whole numbers from 0 to each clip's last one, each equally likely."""
        bits = uniform_bits(stream(self.seed, "slices", batch.keys, step), number)
        # floor(uniform * places), exactly, without float64
        return (bits * (last.clamp(min=0) + 1)[:, None]) >> 24

    def _inside(self, frames: Int[Tensor, " clip"]) -> Bool[Tensor, "clip frame"]:
        return torch.arange(self.width, device=frames.device) < frames[:, None]


def distances(slices: Slices) -> PerClip:
    """Return the distance of each clip's first two slices, as a share of the largest possible."""
    furthest = (slices.clip_frames - slices.frames).clamp(min=1)
    return (slices.start[:, 0] - slices.start[:, 1]).abs() / furthest


def _mlp(ins: int, hidden: int, outs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(ins, hidden), nn.ReLU(), nn.Linear(hidden, outs))
