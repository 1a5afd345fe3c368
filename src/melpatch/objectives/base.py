"""The base class of training methods: a module that turns a batch into a loss.

An objective owns an encoder and the heads, decoder or teacher it needs; the loop knows no more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder, TokenEncoder
from melpatch.errors import ConfigError
from melpatch.nn.latent import LatentMaps
from melpatch.nn.transformer import set_drop_path_noise
from melpatch.registry import name_of

_FIRST_STEPS = 10
"""Steps in which nothing is called a failure, however short the run is."""


class Features(NamedTuple):
    """The encoder's input: a batch after the front end."""

    spectrogram: Float[Tensor, "clip mel frame"]
    valid: Bool[Tensor, "clip token"] | None
    """Padding mask: False for tokens of padding; None if no clip is padded."""


class Spectrograms(NamedTuple):
    """Log-mel spectrograms of a batch and their lengths."""

    spectrogram: Float[Tensor, "clip mel frame"]
    frames: Int[Tensor, " clip"]
    """Valid frames of each clip."""
    shortest: int
    """The smallest of them as a Python number, so that nothing has to wait for the device."""


class Picture(NamedTuple):
    """One clip as a masked objective handles it, in log-mel values."""

    clean: Float[Tensor, "mel frame"]
    input: Float[Tensor, "mel frame"]
    """What the encoder gets; NaN where it gets nothing."""
    masked: Bool[Tensor, "mel frame"]
    """Which pixels are masked or corrupted."""
    reconstruction: Float[Tensor, "mel frame"] | None
    """The clean spectrogram with the model's pixels where the loss covers them; None without a
    decoder."""
    start: int = 0
    """Frame of the clip's spectrogram at which the picture starts."""
    pseudo_labels: Int[Tensor, "row column"] | None = None
    """The prototype that the teacher assigns to each patch; None without a teacher."""
    latent: LatentMaps | None = None
    """Masks, targets and errors of a prediction in latent space; None for other methods."""

    @property
    def masked_is_blank(self) -> bool:
        """Whether ``input`` is NaN at exactly the masked pixels, and so shows the mask."""
        return torch.equal(self.input.isnan(), self.masked)


class Plan(NamedTuple):
    """Length and batch size of a run, from which objectives derive schedules and checks."""

    steps: int
    """Optimiser steps of the whole run."""
    batch_size: int
    """Clips per optimiser step, over all processes and accumulated batches."""
    seconds: float
    """Longest segment that a batch may hold."""
    longest_segment: float
    """Longest segment in the corpus, at most ``seconds``."""
    accumulate: int = 1
    """Batches per process and optimiser step (gradient accumulation)."""
    world_size: int = 1
    """Processes that train together."""
    fixed_input: bool = False
    """Whether each clip is the same in every epoch: neither cropped nor repeated from anywhere."""

    @property
    def micro_batch_size(self) -> int:
        """Clips in one batch of one process."""
        return self.batch_size // (self.accumulate * self.world_size)

    def is_early(self, step: int, share: float = 0.1) -> bool:
        """Return whether a healthy run may still look as if it failed.

        Args:
            step: optimiser steps done before.
            share: share of the run that counts as its beginning; ten steps do in any case.
        """
        return step < max(_FIRST_STEPS, share * self.steps)


NO_PLAN = Plan(steps=1, batch_size=1, seconds=math.inf, longest_segment=math.inf)
"""The plan of an objective that is not in training, such as that of a loaded model."""


@dataclass
class ObjectiveOutput:
    """The loss of one batch.

    Attributes:
        loss: mean over ``weight`` units, to be minimised.
        weight: number of units (masked patches, clips, ...) in the mean, for exact sums of batches.
        metrics: further means over the same units, by name.
    """

    loss: Float[Tensor, ""]
    weight: Float[Tensor, ""]
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module):
    """A training method: a loss on top of a front end and an encoder.

    A method of one's own needs a ``Config`` and a ``forward``; all else has a default::

        class Denoise(Objective):
            \"\"\"Reconstruct the log-mel spectrogram from a noisy one.\"\"\"

            needs_token_encoder = True

            @dataclass(frozen=True, kw_only=True)
            class Config:
                noise: float = 0.5
                \"\"\"Standard deviation of the added noise.\"\"\"

            def __init__(self, config, front_end, encoder, labels=(), seed=0):
                super().__init__(config, front_end, encoder, labels, seed)
                self.head = nn.Linear(encoder.embed_dim, encoder.grid.pixels)

            def forward(self, batch, step):
                clean, valid = self.features(batch)
                state = stream(self.seed, "noise", batch.keys, step)  # melpatch.rng
                noise = self.config.noise * normal(state, *clean.shape[1:])
                patches = self.head(self.encoder(clean + noise, valid).patches)
                loss = F.mse_loss(patches, self.encoder.grid.split(clean))
                return ObjectiveOutput(loss, loss.new_full((), len(batch)), {"mse": loss})

    Random numbers come from :mod:`melpatch.rng`, keyed by seed, purpose, clip and step.

    Attributes:
        config: the settings, a ``Config`` nested in the class.
        front_end: waveforms to log-mel spectrograms.
        encoder: the network that is trained.
        labels: names of the classes; empty in self-supervised training.
        seed: seed of all random numbers.
    """

    Config: ClassVar[type]
    needs_labels: ClassVar[bool] = False
    """Whether it trains on labelled clips."""
    needs_token_encoder: ClassVar[bool] = False
    """Whether it works on patch tokens, and so needs a :class:`TokenEncoder`."""
    depends_on_other_clips: ClassVar[bool] = False
    """Whether a clip's loss depends on other clips of its step, as negatives or as donors."""
    progress_metric: ClassVar[str] = "loss"
    """The metric that falls as training succeeds; not the loss where a moving target raises it."""

    def __init__(
        self,
        config: Any,
        front_end: LogMel,
        encoder: Encoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.check_encoder(type(encoder))
        self.config = config
        self.front_end = front_end
        self.encoder = encoder
        self.labels = labels
        self.seed = seed
        self.register_forward_pre_hook(_set_drop_path_noise, with_kwargs=True)

    @property
    def wave_rate(self) -> int:
        """Sampling rate of the batches that are trained on, in Hz; by default the front end's."""
        return self.front_end.sample_rate

    @classmethod
    def check_encoder(cls, encoder: type) -> None:
        """Raise a ConfigError if this objective cannot train encoders of such a class."""
        if cls.needs_token_encoder and not issubclass(encoder, TokenEncoder):
            raise ConfigError(
                f"{cls.__name__} works on patch tokens, which {name_of(encoder)} does not have; "
                "leave --encoder out for a vit, or pretrain it with cola, or train it with labels"
            )

    def require_masked_padding(self, reason: str) -> None:
        """Raise a ConfigError unless padding is known to the encoder.

        Args:
            reason: what that is good for, such as ``so that no crop is padding``.
        """
        padding = self.front_end.config.padding
        check(padding == "masked", "front_end.padding", padding, f"'masked', {reason}")

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the loss of a batch; its random numbers are a function of (seed, clip key, step).

        A batch may be empty: that of a process none of whose clips could be read.
        """
        raise NotImplementedError

    def prepare(self, batches: Sequence[Batch], step: int) -> None:
        """See all batches of a step before the first of them is trained on; by default, do nothing.

        Called only when a process accumulates several batches per step. An objective that compares
        clips of different batches collects its negatives here. Gradients are not needed.
        """

    def after_step(self, step: int) -> None:
        """Act after an optimiser step, such as updating a teacher; does nothing by default."""

    @classmethod
    def clips_together(cls, config: Any) -> int:
        """Return how many clips must stay in one batch, since they may be mixed with each other.

        Returns:
            1; 2 if each is mixed with the other one of its pair; 4 if with one of the next pair,
            too, see :meth:`melpatch.data.clip.Batch.partners_of`.
        """
        return 1

    def least_seconds(self, plan: Plan) -> float:
        """Return the length of the shortest clip that teaches something; 0 if all do."""
        return 0.0

    @classmethod
    def input_seconds(cls, config: Any, seconds: float) -> float:
        """Return the length of the encoder's input, in seconds, for segments of ``seconds``."""
        return seconds

    def check_plan(self, plan: Plan) -> None:
        """Refuse a run that cannot be trained, and change nothing; by default, accept all runs.

        Raises:
            ConfigError: the run cannot be trained.
        """

    def begin(self, plan: Plan) -> None:
        """Prepare for a run: set schedules, copy the teacher.

        Called once by ``fit``, after the initial weights are loaded.

        Raises:
            ConfigError: :meth:`check_plan` refuses the run.
        """
        self.check_plan(plan)

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a warning with a remedy if the metrics show that training fails; else None."""
        return None

    def export_encoder(self) -> Encoder:
        """Return the encoder that is kept after pretraining."""
        return self.encoder

    def picture(self, batch: Batch, step: int) -> Picture | None:
        """Return a picture of the batch's first clip, or None if the method has none."""
        return None

    def view_pictures(self, batch: Batch, step: int) -> dict[str, Float[Tensor, "mel _frame"]]:
        """Return log-mel spectrograms of the batch's first clip and of its views, by name.

        By default, there are none.
        """
        return {}

    def features(self, batch: Batch) -> Features:
        """Return the normalised log-mel spectrograms of a batch and their padding mask."""
        return self.with_valid(*self.spectrograms(batch))

    def segment_seconds(self, batch: Batch, plan: Plan) -> float:
        """Return the longest segment of the run, in seconds; without a plan, that of the batch."""
        if math.isinf(plan.seconds):
            return batch.wave.shape[1] / self.front_end.sample_rate
        return plan.seconds

    def shortest_seconds(self, frames: int) -> float:
        """Return the length of the shortest audio that has this many frames, in seconds."""
        front_end = self.front_end.config
        # The first frame takes a whole window, each further frame a hop.
        samples = front_end.overhead + (frames - 1) * front_end.hop_length
        return samples / front_end.sample_rate

    def log_mel(
        self, batch: Batch, wave: Float[Tensor, "clip sample"] | None = None
    ) -> Spectrograms:
        """Return the log-mel spectrograms of a batch, as the front end makes them.

        Args:
            batch: the clips.
            wave: their augmented waveforms; None for those of the batch.
        """
        if wave is None:
            wave = batch.wave
        spectrogram, frames = self.front_end(wave, batch.lengths)
        if self.front_end.config.padding == "legacy":  # silence counts as sound
            shortest = spectrogram.shape[2]
        else:
            shortest = self.front_end.frames(batch.shortest)
        return Spectrograms(spectrogram, frames, shortest)

    def normalised(self, log_mel: Spectrograms) -> Spectrograms:
        """Return log-mel spectrograms normalised as the encoder needs them."""
        spectrogram, frames, shortest = log_mel
        padded = shortest < spectrogram.shape[2]
        spectrogram = self.encoder.normalise(spectrogram, frames if padded else None)
        return log_mel._replace(spectrogram=spectrogram)

    def spectrograms(
        self, batch: Batch, wave: Float[Tensor, "clip sample"] | None = None
    ) -> Spectrograms:
        """Return the log-mel spectrograms of a batch, normalised as the encoder needs them.

        Args:
            batch: the clips.
            wave: their augmented waveforms; None for those of the batch.
        """
        return self.normalised(self.log_mel(batch, wave))

    def with_valid(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        frames: Int[Tensor, " clip"],
        shortest: int,
    ) -> Features:
        """Return spectrograms with their padding mask, which is None if no clip is padded.

        Args:
            spectrogram: one per clip.
            frames: valid frames of each clip.
            shortest: the smallest of them, known without waiting for the device.
        """
        grid = self.encoder.grid
        columns = grid.columns(spectrogram.shape[2])
        # Without padding attention needs no mask, and is faster.
        padded = grid.columns(shortest) < columns
        if not padded:
            return Features(spectrogram, None)
        return Features(spectrogram, grid.valid(frames, columns))


def _set_drop_path_noise(
    objective: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> None:
    """Draw the random numbers of all drop paths before ``forward``, outside torch.compile."""
    named = [keywords[name] for name in ("batch", "step") if name in keywords]
    batch, step = (*arguments, *named)
    set_drop_path_noise(objective, objective.seed, batch.keys, step)
