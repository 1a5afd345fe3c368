"""SimCLR: each view of a clip is found among the views of all clips of a step; CLAR for audio.

For unit vectors u of N clips in two views, where j(i) is the other view of view i's clip::

    l_i = -u_i . u_j(i) / temperature + ln sum_{k != i} exp(u_i . u_k / temperature)

and the loss is the mean over the 2 N views.

Al-Tahan and Mohsenzadeh 2021, "CLAR: Contrastive learning of auditory representations" (arXiv
2010.09542), after Chen et al. 2020, "SimCLR" (arXiv 2002.05709). It needs one vector per view, so
any encoder will do.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from melpatch.audio.logmel import LogMel
from melpatch.audio.view_augment import ViewAugment
from melpatch.config import check
from melpatch.encoders.base import Encoder
from melpatch.nn.nt_xent import nt_xent
from melpatch.nn.projector import Projector
from melpatch.nn.view_gauges import view_gauges
from melpatch.nn.whole_step import Rows, run_shared
from melpatch.objectives.views import PATIENCE, ViewConfig, ViewObjective

_STUCK_LOSS = 0.99
"""Share of the loss of guessing that is no learning."""
_CHANCE_FACTOR = 2.0
"""Times the accuracy of guessing that is learning, whatever the loss."""


class SimCLR(ViewObjective):
    """NT-Xent between two augmented views (section 3 of CLAR).

    *Differs:* the spectrogram is the only input. CLAR's other branch, a network on the wave, and its
    two further channels, magnitude and phase of a transform with logarithmic frequencies, are left
    out: an encoder here takes one log-mel spectrogram, and nothing else would use them after
    pretraining. Negatives and batch statistics are those of the whole step, over all processes.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ViewConfig):
        """Settings of SimCLR."""

        augment: ViewAugment.Config = field(
            default_factory=lambda: ViewAugment.Config(fade=0.5, burst=0.25)
        )
        """Augmentations of a view; by default CLAR's best pair: fading in and out, and a stretch of
        noise, called time masking there."""
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

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: Encoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: SimCLR.Config = config
        self.projector = self.build_projector(config)

    def build_projector(self, config: Config) -> nn.Module:
        """Return the network from pooled vectors to what is compared; each view has its own norms."""
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
        early = step < PATIENCE * self.plan.steps
        if collapse or early or metrics.get("loss", 0.0) < _STUCK_LOSS * guessing:
            return collapse
        if metrics.get("accuracy", 0.0) > _CHANCE_FACTOR / candidates:
            return None
        return (
            f"the loss is no better than ln {candidates} = {guessing:.2f}, what guessing costs; "
            "lower --lr, lengthen --lr-warmup, or take weaker augmentations"
        )
