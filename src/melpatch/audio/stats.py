"""Mean and standard deviation of a corpus's log-mel values, by which its spectrograms are normalised."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.errors import DataError


def measure(log_mel: LogMel, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Return the mean and standard deviation of the log-mel values over all valid frames, for ``mean`` and ``std``.

    One pass, summed in float64, so that neither batch size nor padding matters.

    *Differs:* the script published with SSAST averages the standard deviations of batches, padding included.

    Args:
        log_mel: the front end; its own ``mean`` and ``std`` do not matter.
        batches: pairs of waves (clip, sample) and lengths in samples (clip).

    Raises:
        DataError: there is no clip.
    """
    count, total, squares = 0, 0.0, 0.0
    for wave, lengths in batches:
        normalised, _ = log_mel(
            wave, lengths
        )  # near mean 0 and deviation 1, where the sums lose the least
        valid = (
            torch.arange(normalised.shape[2], device=wave.device) < log_mel.frames(lengths)[:, None]
        )
        values = normalised.mT[valid].double()
        count, total, squares = (
            count + values.numel(),
            total + values.sum().item(),
            squares + values.square().sum().item(),
        )
    if count == 0:
        raise DataError("no clip to measure; give a folder or manifest that holds sound")
    mean, spread = total / count, log_mel.config.scale * log_mel.config.std
    return mean * spread + log_mel.config.mean, math.sqrt(
        max(0.0, squares / count - mean**2)
    ) * spread
