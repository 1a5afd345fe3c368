"""M2D: predict what a slow teacher makes of the masked patches, of which it sees nothing else.

The student encodes the visible patches, and a predictor says, at the masked places, what the
teacher makes of the masked patches alone. Neither sees what the other does, so that the target must
be worked out from context::

    z  = student(x_V)                     visible patches
    p  = predictor(z, positions)_M        at the masked places
    t  = teacher(x_M)                     masked patches only, no gradient
    L  = 2 - 2 cos(p, standardised t)     per masked token
    teacher <- m teacher + (1 - m) student

Niizumi et al. 2023, "Masked Modeling Duo" (arXiv 2210.14648) and 2024 (arXiv 2404.06095). With
``teacher_sees = "all"`` and other losses it is the audio JEPA of Riou et al. 2024 (arXiv
2405.08679), or like data2vec (Baevski et al. 2022, arXiv 2202.03555) with ``target_layers``.

With ``classification`` it is MATPAC (Quelennec et al. 2025, arXiv 2502.12031): heads h and h' map
prediction and target to classes, whose distributions shall agree too; with ``hypotheses`` MATPAC++
(arXiv 2508.12709): several predictions p_i, of which the better ones are trained::

    L  = (1 - a) L_p + a L_c
    L_p = sum_i w_i (2 - 2 cos(p_i, t))       w_i: see melpatch.nn.hypotheses
    L_c = H(h'(t), h(p_best))                 see melpatch.nn.distillation
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder, TokenEncoder
from melpatch.nn.distillation_settings import Classification
from melpatch.nn.hypotheses import Hypotheses, best_hypothesis, hypothesis_weights
from melpatch.nn.latent import (
    LatentLoss,
    instance_norm,
    latent_loss,
    latent_maps,
    mean_over,
    standardise_tokens,
    token_losses,
)
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.nn.masked import at_least_float32, masked_mean
from melpatch.nn.masking import Masking, PatchSplit
from melpatch.nn.self_distillation import SelfDistillation
from melpatch.objectives.base import Features, ObjectiveOutput, Picture, Plan
from melpatch.objectives.latent import (
    LatentConfig,
    LatentObjective,
    MaskedTargets,
    first_clip,
)
from melpatch.rng import seeded

Tokens = Float[Tensor, "clip masked dim"]

_ONE_HYPOTHESIS = 0.99
"""Share of the patches at which one hypothesis is the best, from which on the others are dead."""


class M2D(LatentObjective):
    """Masked latent prediction with a momentum teacher (section 3 of the paper).

    *Differs:* the teacher starts as a copy of the student unless ``teacher_start`` is random, as
    published; its momentum follows the length of the run unless it is given.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(LatentConfig):
        """Settings of M2D."""

        mask: Masking.Config = field(default_factory=lambda: Masking.Config(ratio=0.7))
        """Which patches are masked; the paper masks 60 or 70 %, at random."""
        decoder: MAEDecoder.Config = field(
            default_factory=lambda: MAEDecoder.Config(dim=512, depth=8, num_heads=16)
        )
        """The predictor."""
        teacher_sees: Literal["masked", "all"] = "masked"
        """Whether the teacher gets the masked patches alone, or all patches."""
        teacher_start: Literal["copy", "random"] = "copy"
        """Whether the teacher starts as a copy of the student, or at random weights of its own."""
        teacher_embeds: Literal["student", "own"] = "student"
        """Whether the teacher takes the student's embedded patches and class tokens, or has a slow
        copy of what makes them."""
        target_layers: int = 0
        """The target is the mean of the outputs of this many last layers, each standardised per
        token unless it has an instance norm; 0 takes the output after the final norm."""
        instance_norm: bool = False
        """Whether each channel of the target is first standardised over the patches that the
        teacher gets of a clip, which takes away what they have in common (EAT, data2vec)."""
        standardise: bool = True
        """Whether each target token is standardised over its channels."""
        loss: LatentLoss = "cosine"
        """Between prediction and target: 2 - 2 cos (cosine), squared error over the root of the
        width (l2), or smooth L1."""
        classification: Classification = field(default_factory=Classification)
        """Classes of the targets, which are predicted too (MATPAC)."""
        hypotheses: Hypotheses = field(default_factory=Hypotheses)
        """Several predictions of each target (MATPAC++)."""

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: TokenEncoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: M2D.Config = config
        self.decoder = MAEDecoder(config.decoder, encoder.embed_dim, encoder.num_layers)
        self.head = nn.Linear(self.decoder.dim, config.hypotheses.count * encoder.embed_dim)
        _init_heads(self.head, config.hypotheses.count)
        self.distillation = None
        if config.classification.weight:
            self.distillation = SelfDistillation(
                config.classification,
                encoder.embed_dim,
                {"class": config.classification.prototypes},
                flag="--objective.classification",
            )

    def begin(self, plan: Plan) -> None:
        """Start the teacher and its heads, and fit all schedules to the run."""
        super().begin(plan)
        if self.config.teacher_start == "random":
            with seeded(self.seed, "teacher"):
                first: Encoder = type(self.encoder)(self.encoder.config, self.encoder.grid.n_mels)
            first.to(next(self.teacher.parameters()).device)
            self.teacher.load_state_dict(first.state_dict())
        self._share_embedding()
        if self.distillation is not None:
            self.distillation.begin(plan.steps, plan.batch_size)

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the mean loss over the masked tokens of the batch, its parts, and two cosines.

        ``cosine`` is that of the predictions with the targets; ``clip_mean_cosine`` that of the
        mean target of the clip, which a prediction has to beat that tells the parts of a clip
        apart.
        """
        features = self.features(batch)
        split = self.mask_patches(batch, features, step)
        tokens = self.encoder.tokens(features.spectrogram)
        predictions = self.predictions(features, split, tokens)
        targets = self.targets(features, tokens, split)
        valid = split.masked.valid
        losses = token_losses(predictions, targets[:, :, None], self.config.loss)
        weights = hypothesis_weights(losses, self._temperature(step))
        best = best_hypothesis(predictions, losses)
        loss = mean_over((weights * losses).sum(dim=2), valid)
        clip_mean = masked_mean(targets, valid)[:, None].expand_as(targets)
        metrics = {
            "cosine": 1 - latent_loss(best.detach(), targets, valid, "cosine") / 2,
            "clip_mean_cosine": 1 - latent_loss(clip_mean, targets, valid, "cosine") / 2,
        }
        if self.config.hypotheses.count > 1:
            # How often each is the best one: a share of 0 is a head that is not trained any more.
            for number, wins in enumerate(hypothesis_weights(losses, 0.0).unbind(dim=2), start=1):
                metrics[f"best_{number}"] = mean_over(wins, valid)
        if self.distillation is not None:
            metrics["prediction"] = loss
            metrics |= self.classify(best, targets, features, split, step)
            share = self.config.classification.weight
            loss = (1 - share) * loss + share * metrics["class"]
        return ObjectiveOutput(loss, valid.sum().float(), metrics)

    def predictions(
        self, features: Features, split: PatchSplit, tokens: Float[Tensor, "clip token dim"]
    ) -> Float[Tensor, "clip masked hypothesis dim"]:
        """Return what is predicted at the masked places, by each hypothesis."""
        decoded = self.decode_masked(self.decoder, features, split, tokens)
        count = self.config.hypotheses.count
        predicted: Tensor = self.head(decoded).unflatten(2, (count, -1))
        return predicted

    def classify(
        self, best: Tokens, targets: Tokens, features: Features, split: PatchSplit, step: int
    ) -> dict[str, Tensor]:
        """Return the mean cross-entropy of the masked patches' classes, and its gauges."""
        valid = split.masked.valid
        chosen: slice | Tensor = slice(None)
        if features.valid is not None:
            chosen = valid.flatten().nonzero()[:, 0]  # waits for the device
        # A mean over the valid places.
        weights = valid.flatten()[chosen].to(targets.dtype) / valid.sum().clamp(min=1)
        assert self.distillation is not None
        return self.distillation.token_loss(
            "class",
            best.flatten(0, 1)[chosen],
            targets.flatten(0, 1)[chosen],
            weights,
            step,
        )

    @torch.no_grad()
    def targets(
        self, features: Features, tokens: Float[Tensor, "clip token dim"], split: PatchSplit
    ) -> Float[Tensor, "clip masked dim"]:
        """Return the teacher's tokens of the masked patches.

        Args:
            features: the input.
            tokens: what the student made of it before its first layer.
            split: the masked and visible patches.
        """
        config = self.config
        if config.teacher_embeds == "own":
            tokens = self.teacher.tokens(features.spectrogram)
        masked = split.masked
        sees_all = config.teacher_sees == "all"
        valid = features.valid
        takes_layers = config.target_layers > 0
        if sees_all:
            encoded = self.teacher.encode_tokens(tokens, valid, takes_layers)
        else:
            if valid is not None:
                # Of a clip too short to be masked all places are attended to: a softmax over none
                # is NaN.
                valid = masked.valid | ~masked.valid.any(dim=1, keepdim=True)
            encoded = self.teacher.encode_subset(tokens, masked, valid, takes_layers)
        layers = [encoded.patches]
        if config.target_layers:
            cls_tokens = encoded.cls.shape[1]
            layers = [layer[:, cls_tokens:] for layer in encoded.layers[-config.target_layers :]]
        if config.instance_norm:
            layers = [instance_norm(layer, valid) for layer in layers]
        elif config.target_layers:
            layers = [standardise_tokens(layer) for layer in layers]
        target = torch.stack(layers).mean(dim=0)
        if sees_all:
            target = masked.gather(target)
        if config.standardise:
            return standardise_tokens(target)
        return at_least_float32(target)

    def masked_targets(self, batch: Batch, step: int) -> MaskedTargets:
        """Return the masked patches of each clip and their targets."""
        features = self.features(batch)
        split = self.mask_patches(batch, features, step)
        tokens = self.encoder.tokens(features.spectrogram)
        targets = self.targets(features, tokens, split)
        return MaskedTargets(split.masked, targets, self.grid_size(features)[1])

    def after_step(self, step: int) -> None:
        """Move the teacher and its heads towards the student."""
        super().after_step(step)
        self._share_embedding()
        if self.distillation is not None:
            self.distillation.after_step(step)

    def clip_spread(self, metrics: Mapping[str, float]) -> float:
        """Return the share of the targets' energy by which those of a clip differ."""
        # |mean|^2 = cos^2 for unit vectors whose mean cosine with their mean is cos.
        return 1 - metrics.get("clip_mean_cosine", 0.0) ** 2

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a warning with a remedy if targets are alike, or classes or hypotheses collapse."""
        warning = super().warning(metrics, step)
        count = self.config.hypotheses.count
        wins = max(metrics.get(f"best_{number}", 0.0) for number in range(1, count + 1))
        if warning is None and wins > _ONE_HYPOTHESIS:
            return (
                f"one of {count} hypotheses is the best at {wins:.1%} of the patches, so that the "
                "others are not trained; raise --objective.hypotheses.temperature or .share"
            )
        if warning is None and self.distillation is not None:
            warning = self.distillation.warning(metrics, step)
        return warning

    def picture(self, batch: Batch, step: int) -> Picture:
        """Return the first clip with masked patches blank, and maps of its targets and errors."""
        batch = first_clip(batch)
        features = self.features(batch)
        split = self.mask_patches(batch, features, step)
        tokens = self.encoder.tokens(features.spectrogram)
        targets = self.targets(features, tokens, split)
        predictions = self.predictions(features, split, tokens)
        losses = token_losses(predictions, targets[:, :, None], self.config.loss).amin(dim=2)
        maps = latent_maps(split.masked, targets, losses, self.grid_size(features))
        return self.masked_picture(features.spectrogram, split.masked)._replace(latent=maps)

    @torch.no_grad()
    def _share_embedding(self) -> None:
        """Give the teacher the student's patch embedding, class tokens and positions."""
        if self.config.teacher_embeds == "own":
            return
        layers = self.encoder.parameter_layers()
        of_teacher = dict(self.teacher.named_parameters())
        for name, parameter in self.encoder.named_parameters():
            if layers[name] == 0:
                of_teacher[name].copy_(parameter)

    def _temperature(self, step: int) -> float:
        """Return the temperature of the hypotheses' weights at a step."""
        return self.config.hypotheses.temperature_at(step / self.steps)


@torch.no_grad()
def _init_heads(head: nn.Linear, count: int) -> None:
    """Start each of ``count`` heads in a linear layer Xavier-uniform, with a bias of 0."""
    for weight in head.weight.chunk(count):
        nn.init.xavier_uniform_(weight)
    nn.init.zeros_(head.bias)
