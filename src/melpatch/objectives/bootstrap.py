"""The base class of objectives that predict a slow teacher's output for the other view (BYOL).

For views a and b, with student s and teacher t, each an encoder and a projector::

    L = d(predictor(s(a)), t(b)) + d(predictor(s(b)), t(a))    d(p, z) = 2 - 2 cos(p, z)
    teacher <- m teacher + (1 - m) student

Source: Grill et al. 2020, "Bootstrap your own latent" (arXiv 2006.07733).
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.encoders.base import Encoder
from melpatch.nn.ema import Momentum, ema_update, frozen_copy
from melpatch.nn.masked import at_least_float32
from melpatch.nn.projector import Projector
from melpatch.nn.view_gauges import view_gauges
from melpatch.nn.whole_step import Rows, run_shared
from melpatch.objectives.base import Plan
from melpatch.objectives.views import ViewConfig, ViewObjective

Views = Float[Tensor, "row 2 dim"]


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig(ViewConfig):
    """Settings of student, teacher and the comparison of their outputs."""

    hidden_dim: int = 4096
    """Width of the hidden layer of projector and predictor; published: 4096."""
    projection: int = 256
    """Outputs that are compared; published: 256."""
    head_bias: bool = False
    """Whether the linear layers of projector and predictor have biases (BYOL-A)."""
    apart: bool = False
    """Whether each view has batch statistics of its own in the heads (BYOL-A), or both views
    share them (ATST)."""
    directions: Literal["mean", "sum"] = "mean"
    """Mean of both directions, 2 at random (ATST), or their sum, 4 at random (BYOL-A)."""
    momentum: Momentum = field(default_factory=Momentum)
    """How slowly the teacher follows."""
    keep: Literal["student", "teacher"] = "student"
    """Whose encoder is kept after training: the student's (BYOL-A), or the teacher's (ATST)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        for name in ("hidden_dim", "projection"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")


class BootstrapObjective(ViewObjective):
    """An objective with a momentum teacher, whose projection of the other view is predicted.

    As published, the teacher is in training mode while the student is: its batch norms normalise
    with the statistics of the step, and drop path and dropout act in it too. A method of one's own
    needs :meth:`encode`, whose rows hold the student's vectors of both views, then the teacher's.

    Attributes:
        teacher: the moving average of the student's encoder; never trained.
        teacher_projector: the moving average of the student's projector.
        momentum: of both, after each step.
    """

    def __init__(
        self,
        config: Any,
        front_end: LogMel,
        encoder: Encoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.projector = self._head(self.pooled_dim)
        self.predictor = self._head(config.projection)
        self.teacher = frozen_copy(encoder)
        self.teacher_projector = frozen_copy(self.projector)
        self.momentum = config.momentum.over(1, 1)

    def _head(self, dim: int) -> Projector:
        config = self.config
        return Projector(
            dim,
            hidden=(config.hidden_dim,),
            out=config.projection,
            bias=config.head_bias,
            last_bias=config.head_bias,
            apart=config.apart,
        )

    def begin(self, plan: Plan) -> None:
        """Make the teacher a copy of the student, and fit its momentum to the run."""
        super().begin(plan)
        self.momentum = self.config.momentum.over(plan.batch_size, plan.steps)
        self.teacher.load_state_dict(self.encoder.state_dict())
        self.teacher_projector.load_state_dict(self.projector.state_dict())

    def compare(
        self, rows: Rows, share: float, step: int
    ) -> tuple[Float[Tensor, " row"], dict[str, Float[Tensor, " row"]]]:
        """Return the loss of each row and, the same for all rows, the gauges.

        ``target_std`` is to the teacher's projections what ``output_std`` is to the predictions.
        """
        student, teacher = rows.features.chunk(2, dim=1)
        projections = run_shared(self.projector, student, share)
        predictions = run_shared(self.predictor, projections, share)
        with torch.no_grad():
            targets = self.teacher_projector(teacher)
        losses = crossed_loss(predictions, targets)
        if self.config.directions == "mean":
            losses = losses / 2
        gauges = view_gauges(predictions)
        gauges["target_std"] = view_gauges(targets)["output_std"]
        return losses, {name: value.expand(len(losses)) for name, value in gauges.items()}

    def after_step(self, step: int) -> None:
        """Move the teacher towards the student."""
        momentum = self.momentum(step)
        ema_update(self.teacher, self.encoder, momentum)
        ema_update(self.teacher_projector, self.projector, momentum)

    def export_encoder(self) -> Encoder:
        """Return the encoder that is kept after pretraining; see ``keep``."""
        return self.teacher if self.config.keep == "teacher" else self.encoder


def crossed_loss(predictions: Views, targets: Views) -> Float[Tensor, " row"]:
    """Return the sum of 2 - 2 cos of each prediction with the target of the other view, 0 to 8."""
    unit = F.normalize(at_least_float32(predictions), dim=2)
    other = F.normalize(at_least_float32(targets), dim=2).flip(1)
    return (2 - 2 * (unit * other).sum(dim=2)).sum(dim=1)
