"""Classification: supervised training of a pooled encoder and a linear head on labelled clips."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from melpatch.audio.augment import Augment
from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoded, Encoder, TokenEncoder
from melpatch.errors import ConfigError
from melpatch.nn.heads import linear_head, standardised_head
from melpatch.nn.masking import Masking, Subset
from melpatch.nn.pooling import LayerOutputs, Pooling, pool, pooled_dim
from melpatch.nn.token_heads import AttentiveHead, PrototypeHead, TokenHead
from melpatch.objectives.base import Features, Objective, ObjectiveOutput
from melpatch.objectives.trained_part import TrainedPart

Selection = Literal["auto", "standard", "accuracy", "balanced_accuracy", "macro_f1", "mAP"]


class Classify(Objective):
    """Supervised training of an encoder and a LayerNorm + linear head, single-label or multi-label.

    Source: the fine-tuning of AST and SSAST (Gong et al. 2022, section 3.1, and the published
    code); mixed layers and the head with a projection are those of SUPERB (Yang et al. 2021, arXiv
    2105.01051, section 2, and its published code). *Differs*: no token of padding is pooled, and
    cross-entropy takes soft targets, so that it goes with mixup (the published code truncates
    them).
    """

    needs_labels = True
    class_weights: Tensor | None

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of classification."""

        pooling: str = "frequency"
        """Tokens to vector, see melpatch.nn.pooling: mean of all, cls (a CNN14's embedding), max,
        frequency (the mean over time with rows kept), or others such as rows+mean+std."""
        layers: Literal["last", "mix"] = "last"
        """Tokens after the encoder's last norm, or the sum of all blocks' outputs before it, with
        learned weights that start equal and always sum to one. "mix" needs an encoder of patch
        tokens."""
        projection: int = 0
        """Width of a linear layer that each token goes through before the pooling; the head after
        it then has no LayerNorm. 0 has neither: LayerNorm and a linear layer after the pooling."""
        head: Literal["normed", "linear", "standardised", "attentive", "prototype"] = "normed"
        """What a vector without projection goes through before the linear layer: LayerNorm
        (normed), nothing (linear, as in PANNs), or the means and deviations of the training clips,
        as in a linear probe (standardised). Or a head that takes all tokens instead of a vector:
        attention of a learned query (attentive), or the nearest tokens to learned prototypes of
        each class (prototype)."""
        head_norm_eps: float = 1e-5
        """Epsilon of the LayerNorm of head = normed."""
        attentive_heads: int = 16
        """Attention heads of head = attentive; must divide the width of the tokens."""
        prototypes: int = 20
        """Prototypes per class of head = prototype."""
        recordings: Literal["windows", "whole"] = "windows"
        """Recordings longer than the input: the mean of the probabilities of their windows, or one
        answer for the whole recording, as in a probe."""
        multi_label: bool = False
        """Several labels per clip instead of one. Set from the data."""
        loss: Literal["auto", "softmax", "sigmoid"] = "auto"
        """Cross-entropy over the labels (softmax), or a binary one for each label (sigmoid); auto
        takes softmax where a clip has one label, sigmoid where it has several."""
        label_smoothing: float = 0.0
        """Share of the target spread over all labels, in [0, 1); softmax only."""
        loss_weights: Literal["equal", "sqrt", "balanced", "auto"] = "equal"
        """Weight of a class in the loss: equal, or by the number of its training clips n: 1 /
        sqrt(n) (sqrt) or 1 / n (balanced), with a mean of 1 over the labels of the training clips;
        auto is balanced for a linear probe where a clip has one label, equal for a whole network."""
        class_weights: tuple[float, ...] = ()
        """Weights of the classes in the order of labels, instead of loss_weights, which sets them
        from the data. Softmax: of a clip's loss; sigmoid: of the clips that have the label."""
        select_by: Selection = "standard"
        """What chooses the weights that are kept, on validation clips: accuracy, balanced_accuracy,
        macro_f1 or mAP. standard is accuracy, or mAP where clips have several labels; auto is the
        same, but balanced accuracy where the classes differ much in size."""
        patch_out: float = 0.0
        """Share of a clip's patches that the encoder does not get in training, in [0, 1): faster,
        less overfitting. Needs an encoder of patch tokens."""
        frozen: bool = False
        """Train the head alone; the encoder stays as it was loaded."""
        trained_layers: int | None = None
        """Train the last layers of the encoder alone, this many, with its final norm and the head:
        faster, and less to overfit where labels are few. None trains all of it."""
        augment: Augment.Config = field(default_factory=Augment.Config)
        """Changes made to the training clips."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            pooling = Pooling.parse(self.pooling)
            fits = self.layers == "last" or not (pooling.layers or pooling.takes_input)
            allowed = "no layers and no input, since layers = 'mix' takes all layers"
            check(fits, "pooling", self.pooling, allowed)
            check(self.projection >= 0, "projection", self.projection, "0 for none, or a width")
            check(
                0 <= self.label_smoothing < 1,
                "label_smoothing",
                self.label_smoothing,
                "0 to below 1",
            )
            check(0 <= self.patch_out < 1, "patch_out", self.patch_out, "0 to below 1")
            for name in ("attentive_heads", "prototypes"):
                check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
            check(self.head_norm_eps > 0, "head_norm_eps", self.head_norm_eps, "above 0")
            if self.head in ("attentive", "prototype"):
                why = f"since head = {self.head} takes all tokens of the last layer"
                check(not self.projection, "projection", self.projection, f"0, {why}")
                fits = not (pooling.layers or pooling.takes_input)
                check(fits, "pooling", self.pooling, f"no layers and no input, {why}")
            fits = self.recordings == "windows" or (self.layers == "last" and not self.projection)
            allowed = "windows where layers are mixed or tokens projected"
            check(fits, "recordings", self.recordings, allowed)
            fits = not (self.multi_label and self.loss == "softmax")
            check(fits, "loss", self.loss, "auto or sigmoid, since clips have several labels")
            fits = all(weight >= 0 for weight in self.class_weights)
            fits = fits and (not self.class_weights or max(self.class_weights) > 0)
            check(fits, "class_weights", self.class_weights, "0 or more, and one above 0")
            fits = not self.multi_label or self.select_by in ("auto", "standard", "mAP")
            check(fits, "select_by", self.select_by, "auto or mAP, since clips have several labels")

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: Encoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: Classify.Config = config
        if len(labels) < 2 and not (config.multi_label and labels):
            raise ConfigError(
                f"labels = {list(labels)}: a classifier needs two or more; "
                "give a corpus that has them"
            )
        fits = config.patch_out == 0 or isinstance(encoder, TokenEncoder)
        check(
            fits,
            "objective.patch_out",
            config.patch_out,
            "0, since this encoder takes spectrograms only as a whole",
        )
        fits = config.layers == "last" or isinstance(encoder, TokenEncoder)
        check(
            fits,
            "objective.layers",
            config.layers,
            "'last', since the blocks of this encoder differ in width",
        )
        self.mix = None
        if config.layers == "mix":
            # Softmax of zeros: all layers start with the same weight.
            self.mix = nn.Parameter(torch.zeros(encoder.num_layers))
        self.pooling = Pooling.parse(config.pooling)
        encoder.require_pooling(self.pooling)
        fits = not self.pooling.layers or isinstance(encoder, TokenEncoder)
        allowed = "no layers, since the layers of this encoder differ in width"
        check(fits, "objective.pooling", config.pooling, allowed)
        token_dim = encoder.pooled_channels(self.pooling)
        pooled = pooled_dim(config.projection or token_dim, encoder.grid.rows, self.pooling)
        self.vector_dim = pooled
        self.projection = None
        self.head: nn.Module
        if config.projection:
            self.projection = nn.Linear(token_dim, config.projection)
            self.head = nn.Linear(pooled, len(labels))
        else:
            self.head = self._new_head(encoder.embed_dim)
        self.trained_part = TrainedPart(encoder, config.frozen, config.trained_layers)
        self._set_class_weights()
        self.augment = Augment(config.augment)
        self.patch_out = None
        if config.patch_out:
            self.patch_out = Masking(Masking.Config(ratio=config.patch_out), encoder.grid)

    def _new_head(self, embed_dim: int) -> nn.Module:
        """Return the head, if no projection comes before the pooling."""
        config = self.config
        labels = len(self.labels)
        match config.head:
            case "attentive":
                return AttentiveHead(embed_dim, config.attentive_heads, labels)
            case "prototype":
                return PrototypeHead(embed_dim, config.prototypes, labels)
            case "standardised":
                return standardised_head(self.vector_dim, labels)
            case "linear":
                return nn.Linear(self.vector_dim, labels)
            case "normed":
                return linear_head(self.vector_dim, labels, config.head_norm_eps)

    def _set_class_weights(self) -> None:
        """Set the weight of each class in the loss, which is no state of the run but a setting."""
        given = self.config.class_weights
        fits = not given or len(given) == len(self.labels)
        allowed = f"{len(self.labels)} numbers, one per class in the order of labels"
        check(fits, "objective.class_weights", given, allowed)
        weights = None
        if given:
            weights = torch.tensor(given, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    @classmethod
    def clips_together(cls, config: Any) -> int:
        """Return how many clips are mixed: pairs if there is mixup."""
        return 2 if config.augment.mixup_rate else 1

    def train(self, mode: bool = True) -> "Classify":
        """Set training mode; what is frozen of the encoder stays in evaluation mode."""
        super().train(mode)
        self.trained_part.train(mode)
        return self

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the mean loss over the clips of an augmented batch, and the accuracy."""
        if batch.targets is None:
            raise ConfigError(
                "a classifier was given clips without labels; give a corpus that has them"
            )
        # Augmentations are drawn by clip key, seed and step; mixup takes the clip's partner.
        draws = batch.keys, batch.partners, self.seed, step
        wave, targets = self.augment.wave(batch.wave, batch.lengths, batch.targets, *draws)
        spectrogram, frames, shortest = self.spectrograms(batch, wave)
        spectrogram, targets = self.augment.spectrogram(spectrogram, frames, targets, *draws)
        assert targets is not None  # since batch.targets is not
        features = self.with_valid(spectrogram, frames, shortest)
        if self.training and self.patch_out is not None:
            logits = self.partial_logits(features, batch.keys, step)
        else:
            logits = self.logits(features)
        loss = self._loss(logits, targets)
        # A clip counts as right if its best label is one of its own, before mixup.
        best = logits.argmax(dim=1, keepdim=True)
        accuracy = (batch.targets.gather(1, best) > 0).to(loss.dtype).mean()
        return ObjectiveOutput(loss, loss.new_full((), len(batch)), {"accuracy": accuracy})

    def _loss(
        self, logits: Float[Tensor, "clip label"], targets: Float[Tensor, "clip label"]
    ) -> Float[Tensor, ""]:
        """Return the mean loss over clips; weights of classes do not change what it is a mean over."""
        weights = self.class_weights
        if self.config.multi_label or self.config.loss == "sigmoid":
            return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weights)
        smoothing = self.config.label_smoothing
        if weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=smoothing)
        losses = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        # A mixed clip weighs what its labels do; smoothing spreads none of that to other classes.
        return (losses * (targets @ weights)).mean()

    def logits(self, features: Features) -> Float[Tensor, "clip label"]:
        """Return float32 logits, before softmax or sigmoid."""
        encoded = self.encoder(*features, layers=self.takes_layers)
        return self.logits_of(encoded, features)

    def logits_of(self, encoded: Encoded, features: Features) -> Float[Tensor, "clip label"]:
        """Return the logits of encoded clips, with the layers that :attr:`takes_layers` asks for."""
        return self._scores(self._to_pool(encoded, features), features.valid)

    def partial_logits(
        self, features: Features, keys: Int[Tensor, " clip"], step: int
    ) -> Float[Tensor, "clip label"]:
        """Return the logits of clips, of which the encoder gets a random part of the patches.

        Only the patches that are left are pooled.

        Source: unstructured patch-out of Koutini et al. 2022 (PaSST, arXiv 2110.05069), section 3.
        """
        assert isinstance(self.encoder, TokenEncoder)
        assert self.patch_out is not None
        spectrogram, valid = features
        columns = self.encoder.grid.columns(spectrogram.shape[2])
        split = self.patch_out(keys, columns, valid, seed=self.seed, step=step, purpose="patch-out")
        visible = split.visible
        attended = None if valid is None else visible.valid
        tokens = self.encoder.tokens(spectrogram)
        encoded = self.encoder.encode_subset(tokens, visible, attended, self.takes_layers)
        encoded = self._to_pool(encoded, features, visible)
        # Pooling by frequency needs the whole grid: the rest of it is 0, and not pooled.
        empty = encoded.patches.new_zeros(*tokens.shape[:2], encoded.patches.shape[2])
        whole = encoded._replace(patches=visible.scatter(encoded.patches, empty))
        return self._scores(whole, visible.as_mask(tokens.shape[1]))

    def _to_pool(
        self, encoded: Encoded, features: Features, visible: Subset | None = None
    ) -> Encoded:
        """Return the tokens that are pooled, of visible patches or of all: mixed and projected."""
        statistics = self.encoder.input_statistics(features.spectrogram, self.pooling)
        if statistics is not None and visible is not None:
            statistics = visible.gather(statistics)
        patches, cls = encoded.pooled_tokens(self.pooling, statistics)
        if self.mix is not None:
            # sum_l softmax(mix)_l * layer_l; class tokens come first in a layer.
            weights = self.mix.softmax(0)
            parts = [weight * layer for weight, layer in zip(weights, encoded.layers, strict=True)]
            mixed = torch.stack(parts).sum(dim=0)
            patches = mixed[:, cls.shape[1] :]
            cls = mixed[:, : cls.shape[1]]
        if self.projection is not None:
            patches = self.projection(patches)
            cls = self.projection(cls)
        return Encoded(patches, cls, ())

    def _scores(
        self, encoded: Encoded, valid: Bool[Tensor, "clip token"] | None
    ) -> Float[Tensor, "clip label"]:
        if isinstance(self.head, TokenHead):
            logits: Tensor = self.head(encoded.patches, valid)
            return logits
        pooled = self._pooled(encoded, valid)
        scores: Tensor = self.head(pooled)
        return scores.to(pooled.dtype)

    def _pooled(
        self, encoded: Encoded, valid: Bool[Tensor, "clip token"] | None
    ) -> Float[Tensor, "clip dim"]:
        rows = self.encoder.grid.rows
        return pool(encoded.patches, encoded.cls, valid, rows, self.pooling)

    @property
    def takes_layers(self) -> LayerOutputs:
        """Which outputs of layers are needed besides the tokens after the final norm."""
        return self.mix is not None or self.pooling.layer_outputs

    def probabilities(self, batch: Batch) -> Float[Tensor, "clip label"]:
        """Return the probability of each label: they sum to one unless the task is multi-label.

        With a sigmoid loss and one label per clip, it is the probability of each label given that
        exactly one is right. With independent answers, that of label k is proportional to
        sigmoid(s_k) times the product of 1 - sigmoid(s_j) over all other labels j. This is exp(s_k)
        times a factor common to all labels, hence a softmax too.
        """
        return self._probabilities(self.logits(self.features(batch)))

    @property
    def takes_tokens(self) -> bool:
        """Whether the head takes all tokens, so that there is no vector behind its answers."""
        return isinstance(self.head, TokenHead)

    def probabilities_and_vectors(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "clip label"], Float[Tensor, "clip dim"]]:
        """Return the probability of each label, and the vectors from which the head tells them.

        Not for a head that takes tokens.
        """
        logits, vectors = self.logits_and_vectors(self.features(batch))
        return self._probabilities(logits), vectors

    def logits_and_vectors(
        self, features: Features
    ) -> tuple[Float[Tensor, "clip label"], Float[Tensor, "clip dim"]]:
        """Return logits, and the pooled vectors, from which a head that takes no tokens tells the labels."""
        encoded = self.encoder(*features, layers=self.takes_layers)
        tokens = self._to_pool(encoded, features)
        return self._scores(tokens, features.valid), self._pooled(tokens, features.valid)

    def token_summaries(self, batch: Batch) -> Float[Tensor, "clip summary"]:
        """Return what a head that takes tokens keeps of each clip, see :class:`melpatch.nn.token_heads.TokenHead`."""
        assert isinstance(self.head, TokenHead)
        features = self.features(batch)
        encoded = self.encoder(features.spectrogram, features.valid)
        return self.head.summarise(encoded.patches, features.valid)

    def join_summaries(
        self, first: Float[Tensor, "clip summary"], second: Float[Tensor, "clip summary"]
    ) -> Float[Tensor, "clip summary"]:
        """Return the summaries of both stretches of recordings."""
        assert isinstance(self.head, TokenHead)
        return self.head.join(first, second)

    def classify_summary(
        self, summary: Float[Tensor, "clip summary"]
    ) -> Float[Tensor, "clip label"]:
        """Return the probability of each label for summaries that were joined over whole recordings."""
        assert isinstance(self.head, TokenHead)
        return self._probabilities(self.head.logits(summary))

    def classify(self, vectors: Float[Tensor, "clip dim"]) -> Float[Tensor, "clip label"]:
        """Return the probability of each label for vectors that were pooled over whole recordings."""
        logits: Tensor = self.head(vectors)
        return self._probabilities(logits.to(vectors.dtype))

    def _probabilities(self, logits: Float[Tensor, "clip label"]) -> Float[Tensor, "clip label"]:
        if self.config.multi_label:
            return logits.sigmoid()
        return logits.softmax(dim=1)
