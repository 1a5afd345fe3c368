"""EAT: many masked views of a clip predict what a slow teacher makes of the whole clip, in one pass.

With the MLP outputs Y_l of the teacher's L layers for the whole clip, IN the instance norm over the
clip's tokens and LN the LayerNorm over channels, both without gain::

    T   = LN(mean_l IN(Y_l))                                    target of every patch
    L_p = mean over masked patches of |p - T|^2 / sqrt(D)       p: a convolutional decoder's output
    L_u = mean over views of |c - mean_patches T|^2 / sqrt(D)   c: the student's class token
    L   = L_p + utterance_weight * L_u

Chen et al. 2024, "EAT: Self-supervised pre-training with efficient audio transformer" (arXiv 2401.03497),
after data2vec 2.0 (Baevski et al. 2022, arXiv 2212.07525).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import TokenEncoder
from melpatch.nn.conv_decoder import ConvDecoder
from melpatch.nn.ema import Momentum, ema_update, frozen_copy
from melpatch.nn.latent import latent_loss
from melpatch.nn.masked import at_least_float32, masked_mean
from melpatch.nn.masking import Masking, PatchSplit, Subset
from melpatch.nn.transformer import MOST_VIEWS
from melpatch.objectives.base import Features, MaskedObjective, ObjectiveOutput, Picture, Plan
from melpatch.rng import normal, stream

_EPS = 1e-5
"""Of the norms of the target, as published."""
_COLLAPSED = 0.01
"""Share of the targets' energy by which those of a clip differ, below which they say nothing."""


class Targets(NamedTuple):
    """What the teacher makes of clips."""

    patches: Float[Tensor, "clip token dim"]
    """Of every patch."""
    utterance: Float[Tensor, "clip dim"]
    """Of the clip as a whole."""


class EAT(MaskedObjective):
    """Masked latent prediction from many views, with a loss per patch and one per clip (section 3).

    *Differs:* the squares that stay visible do not thin out at the edges of the grid, as the published
    drawing does; padding is in no norm, mean or loss; a clip's utterance loss counts as often as it has
    masked patches, which is the same for clips of one length.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of EAT."""

        mask: Masking.Config = field(
            default_factory=lambda: Masking.Config(kind="inverse_block", ratio=0.8)
        )
        """Which patches are masked in a view; the paper keeps squares of 5 x 5 visible, a fifth in all."""
        views: int = 16
        """Masked views of each clip. Each costs a pass of the student over its visible patches, and of the
        decoder over the grid; the teacher passes once."""
        decoder: ConvDecoder.Config = field(default_factory=ConvDecoder.Config)
        """The network that predicts the masked patches."""
        noise: float = 0.01
        """Standard deviation of what stands at masked places of the decoder's input."""
        target: Literal["mlp", "blocks"] = "mlp"
        """What is predicted of each layer: what its MLP adds, or its output."""
        target_layers: int = 0
        """How many last layers are averaged; 0 for all."""
        utterance_weight: float = 192.0
        """Weight of the utterance loss beside the patch loss. 192 is the published one: there the loss is a
        sum over the 192 views of a process. data2vec 2.0 has 0.01 per view."""
        utterance_target: Literal["normed", "raw"] = "normed"
        """The mean of the patches' targets; or the mean of the layers before the instance norm, which
        takes most of it away."""
        momentum: Momentum = field(default_factory=Momentum)
        """How slowly the teacher follows."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            check(1 <= self.views <= MOST_VIEWS, "views", self.views, f"1 to {MOST_VIEWS}")
            check(self.noise >= 0, "noise", self.noise, "0 or more")
            check(self.target_layers >= 0, "target_layers", self.target_layers, "0 or more")
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
        fits = config.target_layers <= encoder.num_layers
        check(fits, "objective.target_layers", config.target_layers, allowed)
        allowed = "0 for an encoder without class token; set --encoder.cls-tokens 1"
        fits = config.utterance_weight == 0 or encoder.num_cls_tokens > 0
        check(fits, "objective.utterance_weight", config.utterance_weight, allowed)
        has_mlps = type(encoder).mlp_outputs is not TokenEncoder.mlp_outputs
        fits = has_mlps or config.target == "blocks"
        allowed = "blocks, since the layers of this encoder have no MLP of their own"
        check(fits, "objective.target", config.target, allowed)
        self.masking = Masking(config.mask, encoder.grid)
        self.decoder = ConvDecoder(config.decoder, encoder.embed_dim)
        self.teacher = frozen_copy(encoder)
        self.momentum = config.momentum.over(1, 1)

    def begin(self, plan: Plan) -> None:
        """Make the teacher a copy of the student, and fit its momentum to the run."""
        super().begin(plan)
        self.momentum = self.config.momentum.over(plan.batch_size, plan.steps)
        self.teacher.load_state_dict(self.encoder.state_dict())

    def train(self, mode: bool = True) -> "EAT":
        """Set training mode; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the loss over the masked patches of all views, and its parts.

        ``clip_mean`` is the patch loss of a prediction that is the mean target of the view, which one
        has to stay below that tells the parts of a clip apart.
        """
        config = self.config
        features = self.features(batch)
        targets = self.targets(features)
        split = self.mask_views(batch, features, step)
        empty = self.noise(batch, features, step)
        predictions, cls = self.predict(features, split, empty)
        # The first views of all clips, then the second views, and so on.
        patches = targets.patches.repeat(config.views, 1, 1)
        valid = split.masked.valid
        wanted = split.masked.gather(patches)
        loss = latent_loss(predictions, wanted, valid, "l2")
        clip_mean = masked_mean(wanted, valid)[:, None].expand_as(wanted)
        metrics = {"patch": loss, "clip_mean": latent_loss(clip_mean, wanted, valid, "l2")}
        if config.utterance_weight:
            utterance = self.utterance_loss(cls, targets.utterance, split)
            metrics["utterance"] = utterance
            loss = loss + config.utterance_weight * utterance
        return ObjectiveOutput(loss, valid.sum().float(), metrics)

    def mask_views(self, batch: Batch, features: Features, step: int) -> PatchSplit:
        """Return the masked and visible patches of all views: the first ones of all clips, then the second ones."""
        views = [
            self.mask_patches(batch, features, step, f"mask {view}")
            for view in range(self.config.views)
        ]
        return PatchSplit(
            _joined([view.masked for view in views]), _joined([view.visible for view in views])
        )

    def predict(
        self, features: Features, split: PatchSplit, empty: Float[Tensor, "view token dim"]
    ) -> tuple[Float[Tensor, "view masked dim"], Float[Tensor, "view cls dim"]]:
        """Return the decoder's tokens of the masked patches of all views, and the student's class tokens.

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
        decoded = self.decoder(seen, self._size(features), valid)
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
        tokens = self.teacher.tokens(features.spectrogram)
        valid = features.valid
        if self.config.target == "mlp":
            layers = self.teacher.mlp_outputs(tokens, valid)
        else:
            encoded = self.teacher.encode_tokens(tokens, valid, layers=True)
            layers = tuple(layer[:, encoded.cls.shape[1] :] for layer in encoded.layers)
        # All of them for 0.
        layers = layers[-self.config.target_layers :]
        normed = torch.stack([instance_norm(layer, valid) for layer in layers]).mean(dim=0)
        dim = (normed.shape[2],)
        patches = F.layer_norm(normed, dim, eps=_EPS)
        if self.config.utterance_target == "normed":
            return Targets(patches, masked_mean(patches, valid))
        means = torch.stack([masked_mean(layer, valid) for layer in layers]).mean(dim=0)
        return Targets(patches, F.layer_norm(means, dim, eps=_EPS))

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a warning with a remedy if the teacher makes the same of all patches of a clip."""
        # A target's energy is sqrt(D): its channels have variance 1.
        share = metrics.get("clip_mean", math.inf) / self.encoder.embed_dim**0.5
        if share > _COLLAPSED:
            return None
        return (
            f"the targets of all patches of a clip are alike (they differ by {share:.2g} of their "
            "energy), so there is nothing left to predict; raise --objective.momentum.start, lower "
            "--lr, or look at the corpus for silent clips"
        )

    def after_step(self, step: int) -> None:
        """Move the teacher towards the student."""
        ema_update(self.teacher, self.encoder, self.momentum(step))

    def picture(self, batch: Batch, step: int) -> Picture:
        """Return the first clip with the masked patches of its first view blank."""
        features = self.features(batch)
        split = self.mask_patches(batch, features, step, "mask 0")
        return self.masked_picture(features.spectrogram, split.masked)

    def noise(self, batch: Batch, features: Features, step: int) -> Float[Tensor, "view token dim"]:
        """Return what stands at masked places: of each view its own, and the same whatever the padding."""
        rows, columns = self._size(features)
        dim = self.encoder.embed_dim
        states = [
            stream(self.seed, f"decoder noise {view}", batch.keys, step)
            for view in range(self.config.views)
        ]
        # Column by column, so that a longer grid begins with the same numbers.
        drawn = normal(torch.cat(states), columns, rows, dim)
        return self.config.noise * drawn.transpose(1, 2).flatten(1, 2)

    def _size(self, features: Features) -> tuple[int, int]:
        """Return the rows and columns of the grid."""
        grid = self.encoder.grid
        return grid.rows, grid.columns(features.spectrogram.shape[-1])


def instance_norm(
    tokens: Float[Tensor, "clip token dim"], valid: Bool[Tensor, "clip token"] | None
) -> Float[Tensor, "clip token dim"]:
    """Return tokens with mean 0 and variance 1 of each channel over the valid tokens of a clip."""
    tokens = at_least_float32(tokens)
    centred = tokens - masked_mean(tokens, valid)[:, None]
    variance = masked_mean(centred.square(), valid)[:, None]
    return centred * (variance + _EPS).rsqrt()


def _joined(views: list[Subset]) -> Subset:
    """Return the subsets of all views as one, view after view."""
    return Subset(
        torch.cat([view.indices for view in views]), torch.cat([view.valid for view in views])
    )
