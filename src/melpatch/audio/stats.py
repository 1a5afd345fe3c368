"""Mean and standard deviation of a corpus's log-mel values, used to normalise its spectrograms."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.errors import DataError


def measure(log_mel: LogMel, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Return the mean and standard deviation of the log-mel values over all valid frames.

    These are the ``mean`` and ``std`` of :class:`LogMel.Config`. They are computed in one pass with
    float64 sums, so neither batch size nor padding matters.

    *Differs:* the script published with SSAST averages the standard deviations of batches, padding
    included.

    Args:
        log_mel: the front end; its own ``mean`` and ``std`` do not affect the result.
        batches: pairs of waves (clip, sample) and lengths in samples (clip).

    Raises:
        DataError: there is no clip.
    """
    count = 0
    total = 0.0
    squares = 0.0
    for wave, lengths in batches:
        # The sums run over normalised values: near mean 0 and deviation 1 they lose the least.
        normalised, _ = log_mel(wave, lengths)
        frames = torch.arange(normalised.shape[2], device=wave.device)
        valid = frames < log_mel.frames(lengths)[:, None]
        # Apple's GPUs have no float64, so the values are widened on the CPU.
        values = normalised.mT[valid].cpu().double()
        count += values.numel()
        total += values.sum().item()
        squares += values.square().sum().item()
    if count == 0:
        raise DataError("no clip to measure; give a folder or manifest that contains audio files")

    # Undo the normalisation: log_mel = normalised * spread + config.mean.
    mean = total / count
    deviation = math.sqrt(max(0.0, squares / count - mean**2))
    spread = log_mel.config.scale * log_mel.config.std
    return mean * spread + log_mel.config.mean, deviation * spread
