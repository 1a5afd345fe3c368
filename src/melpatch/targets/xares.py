"""A Python module with an encoder of X-ARES, the extensible audio representation evaluation suite.

Source: the encoder that X-ARES 0.1 loads and checks; Zhang et al. 2025 (arXiv 2505.16369).
"""

from pathlib import Path

from melpatch.export.adapter import adapter, facts_of
from melpatch.export.source import Source
from melpatch.targets.base import Target

_TEMPLATE = '''"""An encoder of X-ARES for a run of melpatch; written by melpatch $MELPATCH export --to xares."""

import melpatch
import numpy as np
import torch

RUN = $RUN
POOLING = $FRAME_POOLING


class MelpatchEncoder(torch.nn.Module):
    """Audio (clip, sample) to one vector per frame, (clip, frame, dim)."""

    sampling_rate = $SAMPLE_RATE
    output_dim = $FRAME_DIM
    hop_size_in_ms = $HOP_MS

    def __init__(self):
        super().__init__()
        self.run = melpatch.load(RUN)
        self.weights = self.run.objective  # moves with to()

    def forward(self, audio):
        """Return the frames of clips of one length; the last may hold less than a hop of sound."""
        hop = self.hop_size_in_ms / 1000
        clips = self.run.embed_each(audio, self.sampling_rate, pooling=POOLING, hop=hop)
        return torch.from_numpy(np.stack([clip.vectors for clip in clips])).to(audio.device)
'''


class Xares(Target):
    """A module for X-ARES: an encoder from waveform to frames."""

    ending = ".py"
    takes = frozenset({"pooling"})

    def write(self, source: Source, path: Path) -> list[str]:
        """Write the module; see :meth:`Target.write`."""
        facts = facts_of(source)
        hop_ms = round(1000 * facts.hop, 6)
        text = adapter(_TEMPLATE, facts, hop_ms=hop_ms, sample_rate=source.model.sample_rate)
        path.write_text(text, encoding="utf-8")
        return []
