"""Mixtures of the energies of two clips, given their log-mel spectrograms."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.rng import uniform

Spectrogram = Float[Tensor, "clip mel frame"]
PerClip = Int[Tensor, " clip"]


def mix_energies(
    spectrogram: Spectrogram,
    frames: PerClip,
    partners: PerClip,
    state: PerClip,
    most: float,
    front_end: LogMel,
) -> Spectrogram:
    """Mix the energies of clips with those of their partners: ln((1 - a) e^x + a e^z).

    The share a is uniform from 0 to ``most`` for each clip. Past its end a partner is silent. A
    clip that is its own partner stays as it is.

    Source: BYOL for Audio (Niizumi et al. 2021, arXiv 2103.06695).
    *Differs:* there x and z are normalised values, so that how much of the partner is heard depends
    on the corpus's standard deviation; here they are the logarithms of energies. There the partner
    is an earlier piece of the run, here it is a clip of the batch.

    Args:
        spectrogram: normalised by the front end; padding is returned as it is.
        frames: valid frames of each clip.
        partners: row of each clip's partner.
        state: one stream per clip.
        most: largest share of the partner.
        front_end: knows the normalisation.
    """
    config = front_end.config
    # Nepers of energy in a unit of the spectrogram. The mean cancels out.
    unit = config.scale * config.std
    if config.spectrum == "magnitude":
        unit = 2.0 * unit
    frame = torch.arange(spectrogram.shape[2], device=frames.device)
    other = spectrogram[partners]
    other = other.where(frame < frames[partners][:, None, None], front_end.silence)
    share = (most * uniform(state, 1)[:, :, None]).to(spectrogram.dtype)
    own = unit * spectrogram + torch.log1p(-share)
    # ln(0) is -inf, which adds nothing.
    mixed = torch.logaddexp(own, unit * other + share.log()) / unit
    has_partner = partners != torch.arange(len(partners), device=partners.device)
    changes = has_partner[:, None, None] & (frame < frames[:, None, None])
    return torch.where(changes, mixed, spectrogram)
