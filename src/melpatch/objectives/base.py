"""What the training loop knows of a method: a module that turns a batch into a loss.

An objective owns an encoder and whatever private heads, decoder or teacher it needs. Pretraining, fine-tuning and
distillation are the same kind of thing to the loop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.data.clip import Batch
from melpatch.encoders.base import Encoder, TokenEncoder
from melpatch.errors import ConfigError
from melpatch.nn.mae_decoder import MAEDecoder
from melpatch.nn.masking import Masking, PatchSplit, Subset
from melpatch.nn.transformer import set_drop_path_noise
from melpatch.registry import name_of


class Features(NamedTuple):
    """A batch after the front end, as the encoder takes it."""

    spectrogram: Float[Tensor, "clip mel frame"]
    valid: Bool[Tensor, "clip token"] | None


class Picture(NamedTuple):
    """One clip as a masked objective handles it, in log-mel values."""

    clean: Float[Tensor, "mel frame"]
    input: Float[Tensor, "mel frame"]
    """What the encoder gets; NaN where it gets nothing."""
    masked: Bool[Tensor, "mel frame"]
    """Which pixels are masked or corrupted."""
    reconstruction: Float[Tensor, "mel frame"] | None
    """The clean spectrogram with the pixels that the loss covers replaced by the model's; None if there are none."""
    start: int = 0
    """Frame of the clip's spectrogram at which the picture starts."""
    pseudo_labels: Int[Tensor, "row column"] | None = None
    """The prototype that the teacher assigns to each patch, if there is a teacher."""

    @property
    def masked_is_blank(self) -> bool:
        """Whether ``input`` is NaN exactly at the masked pixels, and so shows the mask by itself."""
        return torch.equal(self.input.isnan(), self.masked)


class Plan(NamedTuple):
    """What a run is going to be, so that schedules and checks can be shares of it."""

    steps: int
    """Optimiser steps in all."""
    batch_size: int
    """Clips per optimiser step, of all processes and accumulated batches."""
    seconds: float
    """Longest segment that a batch may hold."""
    longest_segment: float
    """Longest segment that the corpus has to give, at most ``seconds``."""
    accumulate: int = 1
    """Batches that a process makes a step of, one after the other."""
    world_size: int = 1
    """Processes that train together."""

    @property
    def micro_batch_size(self) -> int:
        """Clips of one batch of one process."""
        return self.batch_size // (self.accumulate * self.world_size)


@dataclass
class ObjectiveOutput:
    """One step's loss.

    Attributes:
        loss: mean over ``weight`` units, to be minimised.
        weight: number of units (hidden patches, clips, ...) behind the mean, so that averages over accumulation steps
            and processes are exact.
        metrics: further means over the same units, by name.
    """

    loss: Float[Tensor, ""]
    weight: Float[Tensor, ""]
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(nn.Module):
    """A training method on top of a front end and an encoder."""

    Config: ClassVar[type]
    needs_labels: ClassVar[bool] = False
    needs_token_encoder: ClassVar[bool] = False
    """Whether it works on patch tokens, and so trains none but a :class:`TokenEncoder`."""
    depends_on_other_clips: ClassVar[bool] = False
    """Whether a clip's loss depends on the other clips of its step (negatives) or on its partner (donors)."""
    progress_metric: ClassVar[str] = "loss"
    """The metric that falls as training succeeds, where a moving target keeps the loss itself up."""

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
        self.config, self.front_end, self.encoder, self.labels, self.seed = (
            config,
            front_end,
            encoder,
            labels,
            seed,
        )
        self.register_forward_pre_hook(_deal_chance, with_kwargs=True)

    @classmethod
    def check_encoder(cls, encoder: type) -> None:
        """Raise a ConfigError if encoders of such a class are none that this objective can train."""
        if cls.needs_token_encoder and not issubclass(encoder, TokenEncoder):
            raise ConfigError(
                f"{cls.__name__} works on patch tokens, which {name_of(encoder)} has not; leave --encoder out for a "
                "vit, or pretrain it with cola, or train it with labels"
            )

    def forward(self, batch: Batch, step: int) -> ObjectiveOutput:
        """Return the loss of a batch; all chance in it is a function of (seed, clip key, step).

        A batch may be without clips: that of a process that could read none of its own.
        """
        raise NotImplementedError

    def prepare(self, batches: Sequence[Batch], step: int) -> None:
        """Look at all batches of a step that one process makes of several, before it learns from the first one.

        Nothing by default. An objective that compares the clips of different batches notes here what the others are
        compared with; gradients are of no use to it.
        """

    def after_step(self, step: int) -> None:
        """Do what follows an optimiser step, such as moving a teacher. Nothing by default."""

    @classmethod
    def needs_pairs(cls, config: Any) -> bool:
        """Return whether clips are mixed with their partners, so that pairs have to stay together."""
        return False

    @classmethod
    def input_seconds(cls, config: Any, seconds: float) -> float:
        """Return how many seconds the encoder is given at once, where segments are so long."""
        return seconds

    def check_plan(self, plan: Plan) -> None:
        """Refuse a run that cannot be trained; nothing is changed. Everything is accepted by default.

        Raises:
            ConfigError: the run cannot be trained.
        """

    def begin(self, plan: Plan) -> None:
        """Prepare for a run: set schedules, copy the teacher. Called once by ``fit``, after the initial weights.

        Raises:
            ConfigError: :meth:`check_plan` refuses the run.
        """
        self.check_plan(plan)

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a sentence if the metrics of a step show that training fails, with what to change; else None."""
        return None

    def export_encoder(self) -> Encoder:
        """Return the encoder that users take away."""
        return self.encoder

    def picture(self, batch: Batch, step: int) -> Picture | None:
        """Return what to draw of the batch's first clip, or None if the method has nothing to show."""
        return None

    def features(self, batch: Batch) -> Features:
        """Return the normalised log-mel spectrograms of a batch and which of their tokens hold sound."""
        return self.with_valid(*self.spectrograms(batch))

    def spectrograms(
        self, batch: Batch, wave: Float[Tensor, "clip sample"] | None = None
    ) -> tuple[Float[Tensor, "clip mel frame"], Int[Tensor, " clip"], int]:
        """Return the log-mel spectrograms of a batch as the encoder wants them, the valid frames of each, and those of
        the shortest.

        Args:
            batch: the clips.
            wave: what has become of their samples, if they were changed.
        """
        spectrogram, frames = self.front_end(batch.wave if wave is None else wave, batch.lengths)
        width = spectrogram.shape[2]
        shortest = (
            width
            if self.front_end.config.padding == "legacy"
            else self.front_end.frames(batch.shortest)
        )
        return (
            self.encoder.normalise(spectrogram, frames if shortest < width else None),
            frames,
            shortest,
        )

    def with_valid(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        frames: Int[Tensor, " clip"],
        shortest: int,
    ) -> Features:
        """Return spectrograms with their valid tokens; None where no clip is padded.

        Args:
            spectrogram: of each clip.
            frames: valid ones of each clip.
            shortest: the fewest of them, known without a look at the device, which would have to be waited for.
        """
        grid = self.encoder.grid
        columns = grid.columns(spectrogram.shape[2])
        padded = grid.columns(shortest) < columns
        return Features(spectrogram, grid.valid(frames, columns) if padded else None)


def _deal_chance(objective: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    batch, step = (*arguments, *(named[name] for name in ("batch", "step") if name in named))
    set_drop_path_noise(objective, objective.seed, batch.keys, step)


class MaskedObjective(Objective):
    """An objective that hides patches and has them told or rebuilt."""

    needs_token_encoder = True
    encoder: TokenEncoder
    masking: Masking

    def mask_patches(
        self, batch: Batch, features: Features, step: int, purpose: str = "mask"
    ) -> PatchSplit:
        """Choose the patches to hide; padding is never among them."""
        width = self.encoder.grid.columns(features.spectrogram.shape[-1])
        return self.masking(
            batch.keys, features.valid, width, seed=self.seed, step=step, purpose=purpose
        )

    def decode_masked(
        self, decoder: MAEDecoder, features: Features, masked: PatchSplit
    ) -> Float[Tensor, "clip hidden dim"]:
        """Return a decoder's tokens of the hidden patches, where the encoder is given the visible ones only."""
        grid, visible, valid = self.encoder.grid, masked.visible, features.valid
        tokens = visible.gather(self.encoder.tokens(features.spectrogram))
        seen = self.encoder.encode_tokens(tokens, None if valid is None else visible.valid)
        size = (grid.rows, grid.columns(features.spectrogram.shape[-1]))
        return masked.masked.gather(decoder(seen.patches, seen.cls, visible, size, valid))

    def check_plan(self, plan: Plan) -> None:
        """Refuse overlapping patches, and segments in which no patch would be visible, or none masked."""
        self.masking.check_window(self._window_frames(plan))

    def begin(self, plan: Plan) -> None:
        """Note how many patches the longest segment has."""
        super().begin(plan)
        self.masking.begin(self._window_frames(plan))

    def _window_frames(self, plan: Plan) -> int:
        """Return the frames of the longest segment, padding of the front end included."""
        frames = self.front_end.frames(round(plan.seconds * self.front_end.sample_rate))
        return self.front_end.config.target_frames or frames

    def reconstruction_picture(
        self,
        spectrogram: Float[Tensor, "clip mel frame"],
        hidden: Subset,
        rebuilt: Float[Tensor, "clip hidden pixel"],
    ) -> Picture:
        """Return the first of some spectrograms, the same with its hidden patches blank, and with them rebuilt."""
        grid, frames = self.encoder.grid, spectrogram.shape[-1]
        patches = grid.split(spectrogram)
        blank = hidden.scatter(torch.full_like(rebuilt, torch.nan).to(patches.dtype), patches)
        stages = (patches, blank, hidden.scatter(rebuilt.to(patches.dtype), patches))
        clean, seen, filled = (
            self.front_end.denormalise(grid.join(one, frames))[0].detach() for one in stages
        )
        return Picture(clean, seen, seen.isnan(), filled)
