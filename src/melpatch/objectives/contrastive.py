"""The base class of objectives that find the other view of a clip among the views of all clips.

For unit vectors u of N clips in two views, where j(i) is the other view of view i's clip::

    l_i = -u_i . u_j(i) / temperature + ln sum_{k != i} exp(u_i . u_k / temperature)

and the loss is the mean over the 2 N views (:mod:`melpatch.nn.nt_xent`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.config import check
from melpatch.encoders.base import Encoder
from melpatch.nn.nt_xent import nt_xent
from melpatch.nn.projector import Projector
from melpatch.nn.view_gauges import view_gauges
from melpatch.nn.whole_step import Rows, run_shared
from melpatch.objectives.views import ViewConfig, ViewObjective

_STUCK_LOSS = 0.99
"""Share of the loss of guessing that is no learning."""
_CHANCE_FACTOR = 2.0
"""Times the accuracy of guessing that is learning, whatever the loss."""


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(ViewConfig):
    """Settings of the projector and of the loss."""

    temperature: float = 0.5
    """Temperature of the cosines."""
    hidden_dims: tuple[int, ...] = (512, 512)
    """Widths of the projector's hidden layers."""
    projection: int = 128
    """Width of the projection that is compared."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check(0 < self.temperature < math.inf, "temperature", self.temperature, "above 0")
        fits = all(width >= 1 for width in self.hidden_dims)
        check(fits, "hidden_dims", self.hidden_dims, "widths of 1 or more")
        check(self.projection >= 1, "projection", self.projection, "1 or more")


class ContrastiveObjective(ViewObjective):
    """An objective with NT-Xent among the views of all clips of a step, over all processes.

    Attributes:
        projector: the network from pooled vectors to what is compared.
    """

    config: ContrastiveConfig

    def __init__(
        self,
        config: ContrastiveConfig,
        front_end: LogMel,
        encoder: Encoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.projector = self.build_projector(config)

    def build_projector(self, config: ContrastiveConfig) -> nn.Module:
        """Return the projector, in which each view has its own batch statistics."""
        return Projector(
            self.pooled_dim, hidden=config.hidden_dims, out=config.projection, apart=True
        )

    def compare(
        self, rows: Rows, share: float, step: int
    ) -> tuple[Float[Tensor, " row"], dict[str, Float[Tensor, " row"]]]:
        """Return the loss of each clip, the share of its views that was found, and the gauges."""
        views = run_shared(self.projector, rows.features, share)
        losses, hits = nt_xent(views, rows.keys, self.config.temperature)
        gauges = {name: value.expand(len(views)) for name, value in view_gauges(views).items()}
        return losses, {"accuracy": hits, **gauges}

    def warning(self, metrics: Mapping[str, float], step: int) -> str | None:
        """Return a warning if the outputs collapse, or the loss is still that of guessing.

        Accuracy far above chance is a sign of learning, whatever the loss.
        """
        collapse = super().warning(metrics, step)
        candidates = 2 * self.plan.batch_size - 1
        guessing = math.log(candidates)
        learned = metrics.get("loss", 0.0) < _STUCK_LOSS * guessing
        if collapse or learned or self.plan.is_early(step):
            return collapse
        if metrics.get("accuracy", 0.0) > _CHANCE_FACTOR / candidates:
            return None
        return (
            f"the loss is no better than ln {candidates} = {guessing:.2f}, what guessing costs; "
            "lower --lr, lengthen --lr-warmup, or take weaker augmentations"
        )
