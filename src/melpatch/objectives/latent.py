"""The base class of objectives that predict what a slow teacher makes of a clip."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.data.clip import Batch
from melpatch.encoders.base import TokenEncoder
from melpatch.nn.ema import Momentum, ema_update, frozen_copy
from melpatch.nn.masking import Masking, Subset
from melpatch.objectives.base import Features, Plan
from melpatch.objectives.masked import MaskedObjective

_ALIKE = 0.01
"""Share of the targets' energy by which those of a clip differ, below which they say nothing."""


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """Settings of a masked prediction of a teacher's tokens."""

    mask: Masking.Config = field(default_factory=Masking.Config)
    """Which patches are masked."""
    target_layers: int = 0
    """How many last layers of the teacher the target averages."""
    momentum: Momentum = field(default_factory=Momentum)
    """How slowly the teacher follows."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self.target_layers >= 0, "target_layers", self.target_layers, "0 or more")


class MaskedTargets(NamedTuple):
    """What is to be predicted at the masked patches of each clip.

    Attributes:
        masked: the patches.
        targets: what the teacher makes of them.
        columns: columns of the batch's grid, by which its patches are numbered row by row.
        utterance: what is to be predicted of each clip as a whole; None if nothing is.
    """

    masked: Subset
    targets: Float[Tensor, "clip masked dim"]
    columns: int
    utterance: Float[Tensor, "clip dim"] | None = None


class LatentObjective(MaskedObjective):
    """A masked objective with a teacher, an encoder that follows the student's after every step.

    Attributes:
        teacher: the moving average of the student's encoder; never trained, and always in
            evaluation mode.
        momentum: its momentum after each step.
        steps: optimiser steps of the run.
    """

    def __init__(
        self,
        config: Any,
        front_end: LogMel,
        encoder: TokenEncoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        allowed = f"0 to {encoder.num_layers}, the layers of the encoder"
        fits = config.target_layers <= encoder.num_layers
        check(fits, "objective.target_layers", config.target_layers, allowed)
        self.masking = Masking(config.mask, encoder.grid)
        self.teacher = frozen_copy(encoder)
        self.momentum = config.momentum.over(1, 1)
        self.steps = 1

    def begin(self, plan: Plan) -> None:
        """Make the teacher a copy of the student, and fit its momentum to the run."""
        super().begin(plan)
        self.steps = plan.steps
        self.momentum = self.config.momentum.over(plan.batch_size, plan.steps)
        self.teacher.load_state_dict(self.encoder.state_dict())

    def train(self, mode: bool = True) -> "LatentObjective":
        """Set training mode; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def after_step(self, step: int) -> None:
        """Move the teacher towards the student."""
        ema_update(self.teacher, self.encoder, self.momentum(step))

    def masked_targets(self, batch: Batch, step: int) -> MaskedTargets:
        """Return the masked patches of each clip, of its first view, and their targets."""
        raise NotImplementedError

    def clip_spread(self, metrics: Mapping[str, float]) -> float:
        """Return the share of the targets' energy by which those of a clip differ.

        Args:
            metrics: of a step.
        """
        raise NotImplementedError

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a warning with a remedy if the teacher makes the same of all patches of a clip."""
        spread = self.clip_spread(metrics)
        if spread > _ALIKE:
            return None
        return (
            f"the targets of all patches of a clip are alike (they differ by {max(spread, 0):.1%} "
            "of their energy), so there is nothing left to predict; raise "
            "--objective.momentum.start, lower --lr, or look at the corpus for silent clips"
        )

    def grid_size(self, features: Features) -> tuple[int, int]:
        """Return the rows and columns of the grid of patches."""
        grid = self.encoder.grid
        return grid.rows, grid.columns(features.spectrogram.shape[-1])


def first_clip(batch: Batch) -> Batch:
    """Return a batch of the first clip alone."""
    return Batch(batch.wave[:1], batch.lengths[:1], batch.keys[:1])
