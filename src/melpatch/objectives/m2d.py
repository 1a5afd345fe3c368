"""M2D: predict what a slow teacher makes of the masked patches, of which it sees nothing else.

The student encodes the visible patches, and a predictor says, at the masked places, what the teacher
makes of the masked patches alone. Neither sees what the other does, so that the target must be worked
out from context::

    z  = student(x_V)                     visible patches
    p  = predictor(z, positions)_M        at the masked places
    t  = teacher(x_M)                     masked patches only, no gradient
    L  = 2 - 2 cos(p, standardised t)     per masked token
    teacher <- m teacher + (1 - m) student

Niizumi et al. 2023, "Masked Modeling Duo" (arXiv 2210.14648) and 2024 (arXiv 2404.06095). With
``teacher_sees = "all"`` and other losses it is the audio JEPA of Riou et al. 2024 (arXiv 2405.08679), or
like data2vec (Baevski et al. 2022, arXiv 2202.03555) with ``target_layers``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder, TokenEncoder
from melpatch.nn.ema import Momentum, ema_update, frozen_copy
from melpatch.nn.latent import LatentLoss, latent_loss, standardise_tokens
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.nn.masked import masked_mean
from melpatch.nn.masking import Masking, PatchSplit
from melpatch.nn.transformer import init_xavier
from melpatch.objectives.base import Features, MaskedObjective, ObjectiveOutput, Picture, Plan
from melpatch.rng import seeded

_COLLAPSED = 0.99
"""Mean cosine of a clip's targets with their mean from which on they say nothing."""


class M2D(MaskedObjective):
    """Masked latent prediction with a momentum teacher (section 3 of the paper).

    *Differs:* the teacher starts as a copy of the student unless ``teacher_start`` is random, as published;
    its momentum follows the length of the run unless it is given.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
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
        """Whether the teacher takes the student's embedded patches and class tokens, or has a slow copy
        of what makes them."""
        target_layers: int = 0
        """The target is the mean of the outputs of this many last layers, each standardised per token; 0
        takes the output after the final norm."""
        standardise: bool = True
        """Whether each target token is standardised over its channels."""
        loss: LatentLoss = "cosine"
        """Between prediction and target: 2 - 2 cos (cosine), squared error over the root of the width
        (l2), or smooth L1."""
        momentum: Momentum = field(default_factory=Momentum)
        """How slowly the teacher follows."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            check(self.target_layers >= 0, "target_layers", self.target_layers, "0 or more")

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
        allowed = f"0 to {encoder.num_layers}, the layers of the encoder"
        fits = config.target_layers <= encoder.num_layers
        check(fits, "objective.target_layers", config.target_layers, allowed)
        self.masking = Masking(config.mask, encoder.grid)
        self.decoder = MAEDecoder(config.decoder, encoder.embed_dim, encoder.num_layers)
        self.head = nn.Linear(self.decoder.dim, encoder.embed_dim)
        init_xavier(self.head)
        self.teacher = frozen_copy(encoder)
        self.momentum = config.momentum.over(1, 1)

    def begin(self, plan: Plan) -> None:
        """Start the teacher, and fit its momentum to the run."""
        super().begin(plan)
        self.momentum = self.config.momentum.over(plan.batch_size, plan.steps)
        first: Encoder = self.encoder
        if self.config.teacher_start == "random":
            with seeded(self.seed, "teacher"):
                first = type(self.encoder)(self.encoder.config, self.encoder.grid.n_mels)
            first.to(next(self.teacher.parameters()).device)
        self.teacher.load_state_dict(first.state_dict())
        self._share_embedding()

    def train(self, mode: bool = True) -> "M2D":
        """Set training mode; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the mean loss over the masked tokens of the batch, and two mean cosines with the targets.

        ``cosine`` is that of the predictions; ``clip_mean_cosine`` that of the mean target of the clip,
        which a prediction has to beat that tells the parts of a clip apart.
        """
        features = self.features(batch)
        split = self.mask_patches(batch, features, step)
        tokens = self.encoder.tokens(features.spectrogram)
        predictions = self.head(self.decode_masked(self.decoder, features, split, tokens))
        targets = self.targets(features, tokens, split)
        valid = split.masked.valid
        loss = latent_loss(predictions, targets, valid, self.config.loss)
        clip_mean = masked_mean(targets, valid)[:, None].expand_as(targets)
        metrics = {
            "cosine": 1 - latent_loss(predictions.detach(), targets, valid, "cosine") / 2,
            "clip_mean_cosine": 1 - latent_loss(clip_mean, targets, valid, "cosine") / 2,
        }
        return ObjectiveOutput(loss, valid.sum().float(), metrics)

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
                # Of a clip too short to be masked all places are attended to: a softmax over none is NaN.
                valid = masked.valid | ~masked.valid.any(dim=1, keepdim=True)
            encoded = self.teacher.encode_subset(tokens, masked, valid, takes_layers)
        target = encoded.patches
        if config.target_layers:
            cls_tokens = encoded.cls.shape[1]
            last = encoded.layers[-config.target_layers :]
            layers = [standardise_tokens(layer[:, cls_tokens:]) for layer in last]
            target = torch.stack(layers).mean(dim=0)
        if sees_all:
            target = masked.gather(target)
        return standardise_tokens(target) if config.standardise else target

    def after_step(self, step: int) -> None:
        """Move the teacher towards the student."""
        ema_update(self.teacher, self.encoder, self.momentum(step))
        self._share_embedding()

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a warning with a remedy if the teacher makes the same of all parts of a clip."""
        alike = metrics.get("clip_mean_cosine", 0.0)
        if alike < _COLLAPSED:
            return None
        return (
            f"the targets of all patches of a clip are alike (mean cosine {alike:.3f}), so there is "
            "nothing left to predict; raise --objective.momentum.start, lower --lr, or look at the "
            "corpus for silent clips"
        )

    def picture(self, batch: Batch, step: int) -> Picture:
        """Return the first clip with masked patches blank; what is predicted are no pixels."""
        features = self.features(batch)
        split = self.mask_patches(batch, features, step)
        return self.masked_picture(features.spectrogram, split.masked)

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
