"""Statistics of a spectrogram, without a network: what embeddings have to beat."""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.fft import dct
from torch import Tensor

from melpatch.audio.logmel import LogMel
from melpatch.config import to_dict
from melpatch.data.clip import Batch
from melpatch.default_dtype import float32_by_default
from melpatch.errors import ConfigError
from melpatch.evaluation.frozen_features import hash_values
from melpatch.inference.network import summaries_of
from melpatch.nn.pooling import Pooling

POOLING = "rows+mean+std+segments=4"
"""Mean and deviation of every row in four segments of a clip: a page of NumPy."""

_MOST_MELS = 64
_COEFFICIENTS = 20

Kind = Literal["log-mel", "MFCC"]


class SpectrogramStatistics:
    """The log-mel spectrogram of a run's front end, in 64 bins or fewer, or its cepstrum.

    The cepstrum is the first 20 coefficients of the orthonormal DCT-II over the mel bins.

    A :class:`melpatch.evaluation.frozen_features.FeatureSource`, whose tokens are single values,
    one row per mel bin or coefficient and one column per frame.

    Args:
        kind: log-mel spectrogram or MFCC.
        front_end: of the run, whose rate, frames and range of frequencies are taken.
        device: where to compute.
    """

    def __init__(self, kind: Kind, front_end: LogMel.Config, device: torch.device) -> None:
        n_mels = min(_MOST_MELS, front_end.n_mels)
        # Without normalisation, so that floors of one corpus are the same for all its runs.
        config = replace(
            front_end,
            n_mels=n_mels,
            mean=0.0,
            std=1.0,
            scale=1.0,
            padding="masked",
            target_frames=None,
        )
        self.front_end = LogMel(config).to(device)
        self.device = device
        self.fingerprint = hash_values([kind, to_dict(config)])
        self._transform: Tensor | None = None
        if kind == "MFCC":
            matrix = dct(np.eye(n_mels), norm="ortho", axis=0)[:_COEFFICIENTS]
            self._transform = torch.tensor(matrix, dtype=torch.float32, device=device)

    @property
    def sample_rate(self) -> int:
        """Rate of the samples, in Hz."""
        return self.front_end.sample_rate

    @property
    def grid_rows(self) -> int:
        """Mel bins or coefficients."""
        rows = self.front_end.config.n_mels
        return rows if self._transform is None else min(rows, _COEFFICIENTS)

    @property
    def embed_dim(self) -> int:
        """Each token is a single value."""
        return 1

    def resolve_pooling(self, how: str) -> Pooling:
        """Return a pooling by its spelling.

        Raises:
            ConfigError: there is none, or it needs layers or class tokens.
        """
        pooling = Pooling.parse(how)
        pooling.require(0, 0)
        return pooling

    @float32_by_default()
    @torch.inference_mode()
    def summaries(
        self, batch: Batch, pooling: Pooling
    ) -> list[Float[np.ndarray, "stretch field channel"]]:
        """Return each window's summaries, see :class:`melpatch.inference.pooled.PooledRecording`."""
        batch = batch.to(self.device)
        spectrogram, frames = self.front_end(batch.wave, batch.lengths)
        if self._transform is not None:
            spectrogram = self._transform @ spectrogram
        tokens = spectrogram.flatten(1)[..., None]
        inside = (
            torch.arange(spectrogram.shape[2], device=self.device) < frames.clamp(min=1)[:, None]
        )
        valid = inside[:, None].expand(spectrogram.shape).flatten(1)
        return summaries_of(tokens, tokens[:, :0], valid, self.grid_rows, pooling)

    def tokens(self, batch: Batch) -> list[Float[np.ndarray, "token dim"]]:
        """Raise ConfigError: statistics have no tokens that a probe could attend to."""
        raise ConfigError("the statistics of a spectrogram have no tokens; give a probe of vectors")
