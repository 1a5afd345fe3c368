"""SimCLR: each view of a clip is found among the views of all clips of a step; CLAR for audio.

NT-Xent (:mod:`melpatch.objectives.contrastive`) between two augmented views. Al-Tahan and
Mohsenzadeh 2021, "CLAR: Contrastive learning of auditory representations" (arXiv 2010.09542), after
Chen et al. 2020, "SimCLR" (arXiv 2002.05709). It needs one vector per view, so any encoder will do.
"""

from dataclasses import dataclass, field

from melpatch.audio.view_augment import ViewAugment
from melpatch.objectives.contrastive import ContrastiveConfig, ContrastiveObjective


class SimCLR(ContrastiveObjective):
    """NT-Xent between two augmented views (section 3 of CLAR).

    *Differs:* the spectrogram is the only input. CLAR's other branch, a network on the wave, and
    its two further channels, magnitude and phase of a transform with logarithmic frequencies, are
    left out: an encoder here takes one log-mel spectrogram, and nothing else would use them after
    pretraining. Negatives and batch statistics are those of the whole step, over all processes.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(ContrastiveConfig):
        """Settings of SimCLR."""

        augment: ViewAugment.Config = field(
            default_factory=lambda: ViewAugment.Config(fade=0.5, burst=0.25)
        )
        """Augmentations of a view; by default CLAR's best pair: fading in and out, and a stretch of
        noise, called time masking there."""
