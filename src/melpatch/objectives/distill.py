"""Distillation: a small encoder learns to say what a trained one, its teacher, says of a clip.

The teacher is frozen and hears the whole clip, at its own front end and sampling rate. The student
predicts what the teacher makes of it through a projection for each kind of target, which is thrown
away afterwards::

    pooled    one vector per clip
    tokens    the teacher's tokens after its final norm
    layers    the teacher's tokens after the layers named, all from the student's last tokens
    labels    the probabilities of a classifier, at a temperature

    L = sum_k weight_k * mean over clips (mean over tokens loss(projection_k(s), (t_k - m) / d))

m and d are mean and deviation of each channel of a target over the corpus, so that 1 - MSE is the
share of the teacher's variance that the student explains. Tokens are compared in time: the finer
columns of one of the two are averaged over the coarser ones of the other, and rows of patches are
averaged unless both have the same number (:mod:`melpatch.nn.columns`).

Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network" (arXiv 1503.02531):
soft labels. Romero et al. 2015, "FitNets" (arXiv 1412.6550): features through a projection. Chang,
Yang and Lee 2022, "DistilHuBERT" (arXiv 2110.01900): several layers from the last one. Wei et al.
2022 (arXiv 2205.14141): standardised features as targets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from jaxtyping import Float
from torch import Tensor, nn

from melpatch import registry
from melpatch.audio.logmel import LogMel
from melpatch.audio.resampling import resample
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder, TokenEncoder
from melpatch.errors import ConfigError
from melpatch.nn.columns import Columns, columns_of, in_common
from melpatch.nn.latent import LatentLoss, token_losses
from melpatch.nn.masked import at_least_float32
from melpatch.nn.masking import Masking
from melpatch.nn.pooling import Pooling, pool, pooled_dim
from melpatch.nn.soft_labels import agreement, soft_label_losses
from melpatch.nn.target_heads import (
    Predicted,
    TargetHead,
    mean_of_clips,
    over_clips,
    projection,
)
from melpatch.objectives.base import NO_PLAN, Objective, ObjectiveOutput, Plan
from melpatch.objectives.teacher import Heard, Memory, Teacher, TeacherConfig, timing

# When training counts as failing: after this share of the run, with less of the variance explained.
_PATIENCE = 0.25
_LEAST_EXPLAINED = 0.02


class Distill(Objective):
    """Distillation of a trained encoder or classifier into an encoder of any kind.

    Attributes:
        teacher: the network that teaches; handed in by :meth:`learn_from`.
        heads: predict each kind of the teacher's features.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of distillation."""

        teacher: str = ""
        """Who teaches: a run folder, a weight file, a folder of Hugging Face or hf:owner/name, as
        for --init; a fine-tuned classifier too."""
        network: Annotated[TeacherConfig | None, tyro.conf.Suppress] = None
        """What the teacher is, which is read from it."""
        pooled: float = 1.0
        """Weight of the loss of the teacher's vector of a clip; 0 for none."""
        tokens: float = 1.0
        """Weight of the loss of the teacher's tokens, column by column; 0 for none."""
        layers: tuple[int, ...] = ()
        """Layers of the teacher, from 1, whose tokens are predicted too, as 4 8 12."""
        layer_weight: float = 1.0
        """Weight of the loss of these layers, of their mean."""
        labels: float = 0.0
        """Weight of the loss of the teacher's soft labels, if it is a classifier; 0 for none."""
        temperature: float = 2.0
        """Divisor of the logits of teacher and student in the soft labels; larger ones are softer."""
        loss: LatentLoss = "mse"
        """Between prediction and standardised target: mean square (mse), smooth L1, cosine, or l2."""
        hidden: int = 0
        """Width of a hidden layer in the projections; 0 for a linear map."""
        pooling: str = "mean"
        """How the student's tokens become the vector that predicts the teacher's, and its labels."""
        teacher_pooling: str | None = None
        """How the teacher's tokens become its vector; none: as its classifier does, or their mean."""
        patch_out: float = 0.0
        """Share of a clip's patches that the student does not get in training, in [0, 1). Needs an
        encoder of patch tokens."""

        cache_mib: int = 0
        """Memory for what the teacher makes of clips, in MiB, so that it hears a clip once and not
        in each epoch; 0 for none. Needs --seconds as long as the longest clip, and --short-clips
        pad."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            check(self.cache_mib >= 0, "cache_mib", self.cache_mib, "0 or more")
            for name in ("pooled", "tokens", "layer_weight", "labels"):
                check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
            of_layers = self.layer_weight * len(self.layers)
            some = self.pooled + self.tokens + self.labels + of_layers > 0
            check(some, "pooled", self.pooled, "above 0, or one of tokens, layers and labels")
            check(min(self.layers, default=1) >= 1, "layers", self.layers, "numbers from 1")
            once = len(set(self.layers)) == len(self.layers)
            check(once, "layers", self.layers, "each layer once")
            check(self.temperature > 0, "temperature", self.temperature, "above 0")
            check(self.hidden >= 0, "hidden", self.hidden, "0 for none, or a width")
            check(0 <= self.patch_out < 1, "patch_out", self.patch_out, "0 to below 1")
            for name in ("pooling", "teacher_pooling"):
                spelled = getattr(self, name)
                fits = spelled is None or not Pooling.parse(spelled).layers
                check(fits, name, spelled, "no layers; see --objective.layers")
            fits = not Pooling.parse(self.pooling).takes_input
            check(fits, "pooling", self.pooling, "no input, which no student has to learn")

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: Encoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: Distill.Config = config
        self.plan = NO_PLAN
        self.teacher: Teacher | None = None
        self.memory = Memory(config.cache_mib << 20)
        self.network = config.network or _like(front_end, encoder, config.teacher_pooling)
        self._check_layers()
        encoder.require_pooling(Pooling.parse(config.pooling))
        own = encoder.embed_dim
        pooled = pooled_dim(own, encoder.grid.rows, config.pooling)
        self.heads: dict[str, TargetHead] = {}
        for name, width in self._widths().items():
            given = pooled if name == "pooled" else own
            self.heads[name] = TargetHead(given, config.hidden, width)
        self.target_heads = nn.ModuleDict(self.heads)
        self.label_head = None
        if config.labels:
            self.label_head = projection(pooled, config.hidden, len(self.network.labels))
        self.patch_out = None
        if config.patch_out:
            fits = isinstance(encoder, TokenEncoder)
            allowed = "0, since this encoder takes spectrograms only as a whole"
            check(fits, "objective.patch_out", config.patch_out, allowed)
            self.patch_out = Masking(Masking.Config(ratio=config.patch_out), encoder.grid)

    def _check_layers(self) -> None:
        count = len(self.network.layer_dims)
        fits = max(self.config.layers, default=1) <= count
        check(fits, "objective.layers", self.config.layers, f"1 to {count}, those of the teacher")
        fits = not self.config.labels or len(self.network.labels) > 0
        allowed = "0, since the teacher is no classifier; fine-tune it first (melpatch finetune)"
        check(fits, "objective.labels", self.config.labels, allowed)

    def _widths(self) -> dict[str, int]:
        """Return the channels of each kind of features that has a weight."""
        config, network = self.config, self.network
        widths = {}
        if config.pooled:
            widths["pooled"] = network.vector_dim
        if config.tokens:
            widths["tokens"] = network.token_dim
        if config.layer_weight:
            widths |= {
                f"layer_{number}": network.layer_dims[number - 1] for number in config.layers
            }
        return widths

    @property
    def wave_rate(self) -> int:
        """Sampling rate of the batches: the higher one of student and teacher."""
        return max(self.front_end.sample_rate, self.network.front_end.sample_rate)

    def learn_from(self, teacher: Teacher) -> None:
        """Take a teacher, whose settings are those of the objective."""
        device = next(self.parameters()).device
        teacher.apply(lambda value: value.to(device))
        self.teacher = teacher

    def begin(self, plan: Plan) -> None:
        """Note the length of the run."""
        super().begin(plan)
        self.plan = plan
        self.require_teacher()

    def check_plan(self, plan: Plan) -> None:
        """Refuse segments that are longer than the teacher hears, and a cache of changing ones.

        Raises:
            ConfigError: the settings have such.
        """
        cache = self.config.cache_mib
        allowed = (
            "0, since each epoch takes another part of longer clips, and repeats shorter ones from "
            "another place; or --seconds as long as the longest clip, with --short-clips pad"
        )
        check(not cache or plan.fixed_input, "objective.cache_mib", cache, allowed)
        most = self.network.longest
        allowed = f"up to {most:g}, the most that the teacher hears at once"
        check(plan.longest_segment <= most, "seconds", plan.seconds, allowed)

    def require_teacher(self) -> Teacher:
        """Return the teacher; one at random weights if the settings name none.

        Raises:
            ConfigError: the settings name one, and it was not handed in.
        """
        if self.teacher is None:
            if self.config.teacher:
                raise ConfigError(
                    f"objective.teacher = {self.config.teacher}: not opened; hand it in with "
                    "melpatch.workflows.teacher.hand_in before training"
                )
            with torch.device(next(self.parameters()).device):
                teacher = Teacher(self.network)
            dtype = next(self.parameters()).dtype
            teacher.apply(lambda value: value.to(dtype) if value.is_floating_point() else value)
            self.teacher = teacher
        return self.teacher

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Distill":
        # A move to a device, or another precision, is one of the teacher too.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.teacher is not None:
            self.teacher.apply(fn)
        return self

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the weighted loss, a mean over clips.

        Metrics: the loss of each kind of target if there are several; ``explained``, the share of
        the teacher's variance that the predictions explain; ``target_variance``, that of the
        standardised targets, near 1; ``agreement``, the share of clips whose best label is the
        teacher's.
        """
        heard = self.hear(batch)
        vector, columns = self.encode(batch, step)
        losses = {}
        explained = []
        variance = []
        for name, of in self.predicted(heard, vector, columns).items():
            head = self.heads[name]
            losses[name] = over_clips(token_losses(*of[:2], self.config.loss), of.valid)
            explained.append(1 - head.unexplained(of, self.config.loss))
            variance.append(head.variance(of))
        metrics: dict[str, Tensor] = {}
        if explained:
            metrics["explained"] = torch.stack(explained).mean()
            metrics["target_variance"] = torch.stack(variance).mean()
        if self.label_head is not None:
            assert heard.logits is not None
            logits = at_least_float32(self.label_head(vector))
            several = self.network.objective.multi_label
            soft = soft_label_losses(logits, heard.logits, self.config.temperature, several)
            losses["labels"] = mean_of_clips(soft)
            metrics["agreement"] = mean_of_clips(agreement(logits, heard.logits, several))
        loss = torch.stack([self._weight(name) * value for name, value in losses.items()]).sum()
        if len(losses) > 1:
            metrics |= {f"loss_{name}": value for name, value in losses.items()}
        return ObjectiveOutput(loss, loss.new_full((), len(batch)), metrics)

    def hear(self, batch: Batch) -> Heard:
        """Return what the teacher makes of a batch at :attr:`wave_rate`."""
        if self.config.cache_mib and len(batch):
            return self.memory.recall(batch, self._hear)
        return self._hear(batch)

    def _hear(self, batch: Batch) -> Heard:
        config = self.config
        layers = config.layers if config.layer_weight else ()
        return self.require_teacher().hear(batch, self.wave_rate, config.teacher_pooling, layers)

    def encode(self, batch: Batch, step: int) -> tuple[Float[Tensor, "clip dim"], Columns]:
        """Return the student's vector of each clip and its tokens; in training without some patches."""
        own_rate = self.front_end.sample_rate
        wave, lengths = resample(batch.wave, batch.lengths, self.wave_rate, own_rate)
        own = Batch(wave, lengths, batch.keys)
        own.shortest = -(-batch.shortest * own_rate // self.wave_rate)
        spectrogram, valid = self.features(own)
        grid = self.encoder.grid
        if self.training and self.patch_out is not None:
            assert isinstance(self.encoder, TokenEncoder)
            columns = grid.columns(spectrogram.shape[2])
            split = self.patch_out(
                batch.keys, columns, valid, seed=self.seed, step=step, purpose="patch-out"
            )
            visible = split.visible
            attended = None if valid is None else visible.valid
            tokens = self.encoder.tokens(spectrogram)
            encoded = self.encoder.encode_subset(tokens, visible, attended)
            # Tokens return to their places; the others are 0 and count for nothing.
            empty = encoded.patches.new_zeros(*tokens.shape[:2], encoded.patches.shape[2])
            patches = visible.scatter(encoded.patches, empty)
            valid = visible.as_mask(tokens.shape[1])
        else:
            encoded = self.encoder(spectrogram, valid)
            patches = encoded.patches
        vector = pool(patches, encoded.cls, valid, grid.rows, self.config.pooling)
        return vector, columns_of(patches, valid, grid.rows, timing(self.front_end.config, grid))

    def predicted(
        self, heard: Heard, vector: Float[Tensor, "clip dim"], columns: Columns
    ) -> dict[str, Predicted]:
        """Return prediction and standardised target of each kind but the labels.

        Args:
            heard: what the teacher made of the clips.
            vector: the student's vectors.
            columns: the student's tokens.
        """
        predicted = {}
        for name, theirs in self.features_of(heard).items():
            if isinstance(theirs, Columns):
                ours, theirs = in_common(columns, theirs)
                given = ours.values.flatten(1, 2)
                values = theirs.values.flatten(1, 2)
                valid = ours.valid.flatten(1)
            else:
                given = vector[:, None]
                values = theirs[:, None]
                valid = torch.ones_like(values[..., 0], dtype=torch.bool)
            head = self.heads[name]
            predicted[name] = Predicted(head(given), head.standardise(values), valid)
        return predicted

    def features_of(self, heard: Heard) -> dict[str, Columns | Tensor]:
        """Return what is predicted of what the teacher heard, by the name of its head."""
        named: dict[str, Columns | Tensor] = {"pooled": heard.vector, "tokens": heard.tokens}
        for number, layer in zip(self.config.layers, heard.layers, strict=False):
            named[f"layer_{number}"] = layer
        return {name: value for name, value in named.items() if name in self.heads}

    def standardise_by(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Set mean and deviation of each channel of the targets; channels that never vary have 0."""
        for name, (mean, std) in statistics.items():
            self.heads[name].standardise_by(mean, std)

    def _weight(self, name: str) -> float:
        if name.startswith("layer_"):
            return self.config.layer_weight / len(self.config.layers)
        weight: float = getattr(self.config, name)
        return weight

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a warning if a quarter of the run has explained next to nothing of the teacher."""
        explained = metrics.get("explained", 1.0)
        if self.plan.is_early(step, _PATIENCE) or explained > _LEAST_EXPLAINED:
            return None
        return (
            f"the student explains {max(explained, 0.0):.1%} of the teacher's variance, no more than "
            "its mean does; try a higher --lr, a longer run or a larger --size, less "
            "--objective.patch-out, or look whether the teacher suits this sound"
        )


def _like(front_end: LogMel, encoder: Encoder, pooling: str | None) -> TeacherConfig:
    """Return the settings of a teacher like the student, which is at random weights."""
    how = Pooling.parse(pooling or "mean")
    return TeacherConfig(
        front_end=front_end.config,
        encoder=encoder.config,
        objective=registry.find("objectives", "encoder_only").Config(),
        longest=float("inf"),
        vector_dim=pooled_dim(encoder.pooled_channels(how), encoder.grid.rows, how),
        token_dim=encoder.embed_dim,
        layer_dims=(encoder.embed_dim,) * encoder.num_layers,
    )
