"""Audio Barlow Twins: two views of a clip agree in every output, and outputs are not redundant.

For projections z of N clips in two views, each standardised over the clips::

    C_ij = (1 / N) sum_n z1_ni z2_nj
    L    = sum_i (1 - C_ii)^2 + redundancy * sum_{i != j} C_ij^2

Anton et al. 2022, "Audio Barlow Twins" (arXiv 2209.14345), after Zbontar et al. 2021 (arXiv
2103.03230). It needs one vector per view, so any encoder will do.
"""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.audio.view_augment import ViewAugment
from melpatch.config import check
from melpatch.encoders.base import Encoder
from melpatch.nn.cross_correlation import cross_correlation_loss
from melpatch.nn.projector import Projector
from melpatch.nn.view_gauges import view_gauges
from melpatch.nn.whole_step import Rows, run_shared
from melpatch.objectives.views import ViewConfig, ViewObjective


class BarlowTwins(ViewObjective):
    """Redundancy reduction between two views (section 2 of the paper).

    *Differs:* the correlations are those of the whole step, over all processes and accumulated
    batches; the released code divides by the clips of one process and sums over them.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ViewConfig):
        """Settings of Audio Barlow Twins."""

        augment: ViewAugment.Config = field(
            default_factory=lambda: ViewAugment.Config(
                mix=0.2, crop_mels=(0.6, 1.5), crop_frames=(0.6, 1.5), fader=1.0
            )
        )
        """Augmentations of a view, those of BYOL-A v2 by default: mixing with a partner, random
        resize crop and a linear fader."""
        hidden_dim: int = 2048
        """Width of the projector's hidden layer; published: 8192."""
        projection: int = 256
        """Outputs that are correlated; published: 256 in ablations, 1048 in full runs."""
        redundancy: float = 0.005
        """Weight of the correlations of different outputs."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            super().__post_init__()
            for name in ("hidden_dim", "projection"):
                check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
            check(self.redundancy >= 0, "redundancy", self.redundancy, "0 or more")

    def __init__(
        self,
        config: Config,
        front_end: LogMel,
        encoder: Encoder,
        labels: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(config, front_end, encoder, labels, seed)
        self.config: BarlowTwins.Config = config
        self.projector = Projector(
            self.pooled_dim, hidden=(config.hidden_dim,), out=config.projection, apart=True
        )

    def compare(
        self, rows: Rows, share: float, step: int
    ) -> tuple[Float[Tensor, " row"], dict[str, Float[Tensor, " row"]]]:
        """Return the loss of the step, the same for each clip, its two terms and the gauges."""
        views = run_shared(self.projector, rows.features, share)
        invariance, redundancy = cross_correlation_loss(views)
        loss = invariance + self.config.redundancy * redundancy
        metrics = {"invariance": invariance, "redundancy": redundancy, **view_gauges(views)}
        every_row = {name: value.detach().expand(len(views)) for name, value in metrics.items()}
        return loss.expand(len(views)), every_row
