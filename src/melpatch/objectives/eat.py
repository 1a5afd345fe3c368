"""EAT: many masked views of a clip predict what a slow teacher makes of the whole clip.

With the MLP outputs Y_l of the teacher's L layers for the whole clip, IN the instance norm over the
clip's tokens and LN the LayerNorm over channels, both without gain::

    T   = LN(mean_l IN(Y_l))                                    target of every patch
    L_p = mean over masked patches of |p - T|^2 / sqrt(D)       p: a convolutional decoder's output
    L_u = mean over views of |c - mean_patches T|^2 / sqrt(D)   c: the student's class token
    L   = L_p + utterance_weight * L_u

Chen et al. 2024, "EAT: Self-supervised pre-training with efficient audio transformer" (arXiv
2401.03497), after data2vec 2.0 (Baevski et al. 2022, arXiv 2212.07525).

With ``mixtures`` it is SSLAM (Alex et al. 2025, arXiv 2506.12222): each clip is trained on mixed
with its partner too, and what is predicted from the mixture shall keep both sources::

    R   = mean of the clip's and the partner's targets, where both sound; else the clip's
    L_r = mean over masked patches of mixtures of |p - R|^2 / sqrt(D)
    L   = L_p + utterance_weight * L_u + retention_weight * L_r
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import TokenEncoder
from melpatch.machine import memory_bytes
from melpatch.nn.conv_decoder import ConvDecoder
from melpatch.nn.latent import (
    TARGET_EPS,
    latent_loss,
    latent_maps,
    layer_target,
    token_losses,
)
from melpatch.nn.masked import masked_mean
from melpatch.nn.masking import Masking, PatchSplit, join_splits
from melpatch.nn.mixtures import Mixture, Mixtures, mix
from melpatch.nn.transformer import MOST_VIEWS
from melpatch.objectives.base import Features, ObjectiveOutput, Picture, Plan, Spectrograms
from melpatch.objectives.latent import (
    LatentConfig,
    LatentObjective,
    MaskedTargets,
    first_clip,
)
from melpatch.rng import normal, stream

Tokens = Float[Tensor, "clip token dim"]
Valid = Bool[Tensor, "clip token"]


class Targets(NamedTuple):
    """What the teacher makes of clips."""

    patches: Float[Tensor, "clip token dim"]
    """Of every patch."""
    utterance: Float[Tensor, "clip dim"]
    """Of the clip as a whole."""


class EAT(LatentObjective):
    """Masked latent prediction from many views, with a loss per patch and one per clip (section 3).

    *Differs:* the squares that stay visible do not thin out at the edges of the grid, as those of
    the published drawing do (``inverse_block_legacy``); padding is in no norm, mean or loss; a
    clip's utterance loss counts as often as it has masked patches, which is the same for clips of
    one length.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(LatentConfig):
        """Settings of EAT."""

        mask: Masking.Config = field(
            default_factory=lambda: Masking.Config(kind="inverse_block", ratio=0.8)
        )
        """Which patches are masked in a view; the paper keeps squares of 5 x 5 visible, a fifth in
        all."""
        views: int = 16
        """Masked views of each clip. Each costs a pass of the student over its visible patches, and
        of the decoder over the grid; the teacher passes once."""
        decoder: ConvDecoder.Config = field(default_factory=ConvDecoder.Config)
        """The network that predicts the masked patches."""
        noise: float = 0.01
        """Standard deviation of what stands at masked places of the decoder's input."""
        target: Literal["mlp", "blocks"] = "mlp"
        """What is predicted of each layer: what its MLP adds, or its output."""
        target_layers: int = 0
        """How many last layers are averaged; 0 for all."""
        utterance_weight: float = 192.0
        """Weight of the utterance loss beside the patch loss. 192 is the published one: there the
        loss is a sum over the 192 views of a process. data2vec 2.0 has 0.01 per view."""
        utterance_target: Literal["normed", "raw"] = "normed"
        """The mean of the patches' targets; or the mean of the layers before the instance norm,
        which takes most of it away."""
        utterance_layers: int = 0
        """How many last layers the utterance target averages; 0 for those of the patches. 1 in
        SSLAM."""
        mixtures: Mixtures = field(default_factory=Mixtures)
        """Mixtures with partners, of which both sources are predicted (SSLAM)."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            super().__post_init__()
            most = MOST_VIEWS // 2 if self.mixtures.use else MOST_VIEWS
            check(1 <= self.views <= most, "views", self.views, f"1 to {most}")
            check(self.noise >= 0, "noise", self.noise, "0 or more")
            layers = self.utterance_layers
            check(layers >= 0, "utterance_layers", layers, "0 or more")
            weight = self.utterance_weight
            check(weight >= 0, "utterance_weight", weight, "0 or more")

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: TokenEncoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: EAT.Config = config
        allowed = f"0 to {encoder.num_layers}, the layers of the encoder"
        fits = config.utterance_layers <= encoder.num_layers
        check(fits, "objective.utterance_layers", config.utterance_layers, allowed)
        allowed = "0 for an encoder without class token"
        if hasattr(encoder.config, "cls_tokens"):
            allowed += "; set --encoder.cls-tokens 1"
        fits = config.utterance_weight == 0 or encoder.num_cls_tokens > 0
        check(fits, "objective.utterance_weight", config.utterance_weight, allowed)
        has_mlps = type(encoder).mlp_outputs is not TokenEncoder.mlp_outputs
        fits = has_mlps or config.target == "blocks"
        allowed = "blocks, since the layers of this encoder have no MLP of their own"
        check(fits, "objective.target", config.target, allowed)
        self.decoder = ConvDecoder(config.decoder, encoder.embed_dim)

    @classmethod
    def clips_together(cls, config: Any) -> int:
        """Return how many clips are mixed: pairs, if any."""
        return 2 if config.mixtures.use else 1

    def check_plan(self, plan: Plan) -> None:
        """Refuse masks that do not fit the segments, and views that cannot fit into memory.

        Raises:
            ConfigError: they do not.
        """
        super().check_plan(plan)
        memory = memory_bytes()
        if torch.cuda.is_available():
            memory = torch.cuda.mem_get_info()[1]
        if memory is None:
            return
        # Two bytes for what encoder and decoder keep of a view: more is kept, and in more bytes,
        # but never less.
        tokens = self.encoder.grid.count(self._window_frames(plan))
        visible = tokens - self.masking.masked_of(tokens, tokens)
        values = self.encoder.least_values(visible) + self.decoder.least_values(tokens)
        sets = 2 if self.config.mixtures.use else 1
        view = 2 * sets * plan.micro_batch_size * values
        allowed = (
            f"1 to {memory // view}, since a view of {plan.micro_batch_size} clips takes "
            f"{view / 2**30:.2g} GiB or more of {memory / 2**30:.2g}; or a smaller --batch-size, "
            "shorter --seconds, or --accumulate"
        )
        check(self.config.views * view <= memory, "objective.views", self.config.views, allowed)

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the loss over the masked patches of all views, and its parts.

        ``clip_mean`` is the patch loss of a prediction that is the mean target of the view, which
        one has to stay below that tells the parts of a clip apart.
        """
        config = self.config
        spectrograms = self.spectrograms(batch)
        clips = self.with_valid(*spectrograms)
        views = self.mask_views(batch, clips, step)
        inputs = clips
        mixture = None
        if config.mixtures.use:
            mixture = self.mixture(batch, spectrograms, step)
            inputs = _with_mixtures(clips, mixture)
        # Each view of the clips is followed by the same view of their mixtures.
        sets = 2 if config.mixtures.use else 1
        split = join_splits([view for view in views for _ in range(sets)])
        predictions, cls = self.predict(inputs, split, self.noise(batch, clips, step, sets))
        targets = self.targets(inputs)
        valid = split.masked.valid
        wanted = split.masked.gather(targets.patches.repeat(config.views, 1, 1))
        loss = latent_loss(predictions, wanted, valid, "l2")
        clip_mean = masked_mean(wanted, valid)[:, None].expand_as(wanted)
        metrics = {"patch": loss, "clip_mean": latent_loss(clip_mean, wanted, valid, "l2")}
        if config.utterance_weight:
            metrics["utterance"] = self.utterance_loss(cls, targets.utterance, split)
            loss = loss + config.utterance_weight * metrics["utterance"]
        if mixture is not None:
            own = targets.patches[: len(batch)]
            sources = self.source_targets(batch, clips, mixture, own)
            metrics["retention"] = self.retention_loss(predictions, sources, join_splits(views))
            loss = loss + config.mixtures.retention_weight * metrics["retention"]
        return ObjectiveOutput(loss, valid.sum().float(), metrics)

    def mask_views(self, batch: Batch, features: Features, step: int) -> list[PatchSplit]:
        """Return the masked and visible patches of each view."""
        return [
            self.mask_patches(batch, features, step, f"mask {view}")
            for view in range(self.config.views)
        ]

    def mixture(self, batch: Batch, spectrograms: Spectrograms, step: int) -> Mixture:
        """Return the clips mixed with their partners."""
        frames = spectrograms.frames
        if self.front_end.config.padding == "legacy":  # silence counts as sound
            frames = torch.full_like(frames, spectrograms.spectrogram.shape[2])
        state = stream(self.seed, "alone", batch.keys, step)
        share = self.config.mixtures.alone
        grid = self.encoder.grid
        return mix(spectrograms.spectrogram, frames, batch.partners, state, grid, share)

    def predict(
        self, features: Features, split: PatchSplit, empty: Float[Tensor, "view token dim"]
    ) -> tuple[Float[Tensor, "view masked dim"], Float[Tensor, "view cls dim"]]:
        """Return the decoder's tokens of the masked patches of all views, and the class tokens.

        Args:
            features: the input.
            split: the masked and visible patches of all views.
            empty: what the decoder gets at masked places.
        """
        views = self.config.views
        tokens = self.encoder.tokens(features.spectrogram).repeat(views, 1, 1)
        attended = None
        valid = None
        if features.valid is not None:
            attended = split.visible.valid
            valid = features.valid.repeat(views, 1)
        encoded = self.encoder.encode_subset(tokens, split.visible, attended)
        seen = split.visible.scatter(encoded.patches, empty.to(encoded.patches.dtype))
        decoded = self.decoder(seen, self.grid_size(features), valid)
        return split.masked.gather(decoded), encoded.cls

    def utterance_loss(
        self,
        cls: Float[Tensor, "view cls dim"],
        target: Float[Tensor, "clip dim"],
        split: PatchSplit,
    ) -> Float[Tensor, ""]:
        """Return the mean utterance loss; a view counts as often as it has masked patches."""
        target = target.repeat(self.config.views, 1)[:, None]
        valid = split.masked.valid
        # One token per masked patch, all alike, so that both losses are means over the same units.
        shape = (*valid.shape, target.shape[2])
        first = cls[:, :1].expand(shape)
        return latent_loss(first, target.expand(shape), valid, "l2")

    @torch.no_grad()
    def targets(self, features: Features) -> Targets:
        """Return what the teacher makes of whole clips."""
        config = self.config
        valid = features.valid
        layers = self.teacher_layers(self.teacher.tokens(features.spectrogram), valid)
        patches = layer_target(layers[-config.target_layers :], valid)
        last = layers[-(config.utterance_layers or config.target_layers) :]
        if config.utterance_target == "raw":
            means = torch.stack([masked_mean(layer, valid) for layer in last]).mean(dim=0)
            return Targets(patches, F.layer_norm(means, means.shape[1:], eps=TARGET_EPS))
        whole = patches
        if config.utterance_layers:
            whole = layer_target(last, valid)
        return Targets(patches, masked_mean(whole, valid))

    def teacher_layers(self, tokens: Tokens, valid: Valid | None) -> tuple[Tensor, ...]:
        """Return what the target is made of: the patches of every layer of the teacher."""
        if self.config.target == "mlp":
            return self.teacher.mlp_outputs(tokens, valid)
        encoded = self.teacher.encode_tokens(tokens, valid, layers=True)
        return tuple(layer[:, encoded.cls.shape[1] :] for layer in encoded.layers)

    @torch.no_grad()
    def source_targets(
        self, batch: Batch, clips: Features, mixture: Mixture, own: Tokens
    ) -> Tokens:
        """Return the mean target of clip and partner where both sound, else the clip's.

        The teacher gets of the partner what sounds in the mixture alone, at its places.

        Args:
            batch: the clips.
            clips: the unmixed input.
            mixture: the clips with their partners.
            own: targets of the unmixed clips.
        """
        mixed = mixture.mixed
        tokens = self.teacher.tokens(clips.spectrogram)[batch.partners]
        # Without a partner all places are attended to: a softmax over none is NaN.
        attended = mixed | ~mixed.any(dim=1, keepdim=True)
        layers = self.teacher_layers(tokens, attended)
        partner = layer_target(layers[-self.config.target_layers :], attended)
        return torch.where(mixed[..., None], (own + partner) / 2, own)

    def retention_loss(
        self, predictions: Float[Tensor, "view masked dim"], sources: Tokens, split: PatchSplit
    ) -> Float[Tensor, ""]:
        """Return the loss of the mixtures' predictions to the targets of their sources.

        Args:
            predictions: of all views of clips and mixtures.
            sources: see :meth:`source_targets`.
            split: the masked patches of all views of the clips.
        """
        views = self.config.views
        by_set = predictions.view(views, 2, -1, *predictions.shape[1:])
        of_mixtures = by_set[:, 1].flatten(0, 1)
        wanted = split.masked.gather(sources.repeat(views, 1, 1))
        return latent_loss(of_mixtures, wanted, split.masked.valid, "l2")

    def masked_targets(self, batch: Batch, step: int) -> MaskedTargets:
        """Return the masked patches of the first view of each clip and their targets."""
        features = self.features(batch)
        masked = self.mask_patches(batch, features, step, "mask 0").masked
        targets = self.targets(features)
        utterance = None
        if self.config.utterance_weight:
            utterance = targets.utterance
        columns = self.grid_size(features)[1]
        return MaskedTargets(masked, masked.gather(targets.patches), columns, utterance)

    def clip_spread(self, metrics: Mapping[str, float]) -> float:
        """Return the share of the targets' energy by which those of a clip differ."""
        # A target's energy is sqrt(D): its channels have variance 1.
        return metrics.get("clip_mean", math.inf) / math.sqrt(self.encoder.embed_dim)

    def picture(self, batch: Batch, step: int) -> Picture:
        """Return the first view of the first clip, and maps of all views' masks and errors."""
        batch = first_clip(batch)
        features = self.features(batch)
        views = self.mask_views(batch, features, step)
        split = join_splits(views)
        predictions, _ = self.predict(features, split, self.noise(batch, features, step))
        patches = self.targets(features).patches.repeat(self.config.views, 1, 1)
        targets = split.masked.gather(patches)
        losses = token_losses(predictions, targets, "l2")
        maps = latent_maps(split.masked, targets, losses, self.grid_size(features))
        return self.masked_picture(features.spectrogram, views[0].masked)._replace(latent=maps)

    def noise(
        self, batch: Batch, features: Features, step: int, sets: int = 1
    ) -> Float[Tensor, "view token dim"]:
        """Return what stands at masked places, drawn for each view, whatever the padding."""
        rows, columns = self.grid_size(features)
        dim = self.encoder.embed_dim
        states = [
            stream(self.seed, f"decoder noise {view}", batch.keys, step)
            for view in range(self.config.views * sets)
        ]
        # Column by column, so that a longer grid begins with the same numbers.
        drawn = normal(torch.cat(states), columns, rows, dim)
        return self.config.noise * drawn.transpose(1, 2).flatten(1, 2)


def _with_mixtures(clips: Features, mixture: Mixture) -> Features:
    """Return the clips and, after them, their mixtures, which are as long."""
    valid = clips.valid
    if valid is not None:
        valid = valid.repeat(2, 1)
    return Features(torch.cat([clips.spectrogram, mixture.spectrogram]), valid)
