"""BYOL: predict of one view of a clip what a slow teacher makes of the other view.

For the equations see :mod:`melpatch.objectives.bootstrap`. For audio it is BYOL-A (Niizumi et al.
2021, arXiv 2103.06695, and 2023, arXiv 2204.07402), two augmentations of one piece, and ATST-Clip
(Li et al. 2022, arXiv 2204.12076, and 2024, arXiv 2306.04186), two crops of a clip and half the
sum. It needs one vector per view, so any encoder will do.
"""

from dataclasses import dataclass, field

import torch

from melpatch.audio.view_augment import ViewAugment
from melpatch.data.clip import Batch
from melpatch.nn.whole_step import Rows
from melpatch.objectives.bootstrap import BootstrapConfig, BootstrapObjective


class BYOL(BootstrapObjective):
    """Prediction of a momentum teacher's projection of the other view of a clip.

    *Differs:* batch norms of the heads have the statistics of the whole step, over all processes
    and accumulated batches; those of a convolutional encoder see both views together. Partners are
    mixed as energies, and drawn from the clip's batch instead of a bank of earlier clips. BYOL-A's
    second standardisation of each batch, after the augmentations, is left out.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(BootstrapConfig):
        """Settings of BYOL."""

        augment: ViewAugment.Config = field(
            default_factory=lambda: ViewAugment.Config(
                mix=0.2, crop_mels=(0.6, 1.5), crop_frames=(0.6, 1.5), fader=1.0
            )
        )
        """Augmentations of a view, those of BYOL-A v2 by default: mixing with a partner, random
        resize crop and a linear fader."""

    def encode(self, batch: Batch, step: int) -> Rows:
        """Return the student's vectors of both views of each clip, then the teacher's."""
        both = self.both_views(batch, step)
        student = self.pooled(both, self.encoder).chunk(2)
        with torch.no_grad():
            teacher = self.pooled(both, self.teacher).chunk(2)
        return Rows(torch.stack([*student, *teacher], dim=1), batch.keys)
