"""A folder for EVAR: a representation of its class BaseAudioRepr, and its settings.

Copy ``ar_melpatch.py`` into EVAR's folder ``evar/`` and ``melpatch.yaml`` into ``config/``, and add
``import evar.ar_melpatch`` to its ``lineareval.py``.

Source: nttcslab/eval-audio-repr, the benchmark of Niizumi et al. 2022 (arXiv 2204.07402) and of
M2D.
"""

from pathlib import Path

from melpatch.export.adapter import adapter, facts_of
from melpatch.export.source import Source
from melpatch.targets.base import Target

_MODULE = "ar_melpatch.py"
_SETTINGS = "melpatch.yaml"
_TEMPLATE = '''"""EVAR's class for a run of melpatch; written by melpatch $MELPATCH export --to evar.

It belongs into the folder evar/, and "import evar.ar_melpatch" into lineareval.py.
"""

import melpatch
import numpy as np
import torch
from evar.ar_base import BaseAudioRepr

POOLING = $POOLING
FRAME_POOLING = $FRAME_POOLING
HOP = $HOP  # seconds between frames


class AR_Melpatch(BaseAudioRepr):
    """The frozen encoder of a run, which needs no statistics of the task."""

    def __init__(self, cfg):
        super().__init__(cfg=cfg)
        self.run = melpatch.load(cfg.weight_file)
        self.weights = self.run.objective  # moves with to()

    def forward(self, batch_audio):
        """Return one vector per clip, (clip, dim), of audio (clip, sample)."""
        vectors = self.run.embed_each(batch_audio, self.cfg.sample_rate, pooling=POOLING)
        return torch.from_numpy(np.stack([*vectors])).to(batch_audio.device)

    def encode_frames(self, batch_audio):
        """Return vectors along the clips, (clip, dim, frame)."""
        rate = self.cfg.sample_rate
        clips = self.run.embed_each(batch_audio, rate, pooling=FRAME_POOLING, hop=HOP)
        frames = torch.from_numpy(np.stack([clip.vectors for clip in clips]))
        return frames.transpose(1, 2).to(batch_audio.device)
'''
_CONFIG = """# Settings of EVAR for a run of melpatch; written by melpatch $MELPATCH export --to evar.
audio_repr: ar_melpatch.AR_Melpatch
weight_file: $RUN
feature_d: $DIM
sample_rate: $SAMPLE_RATE
n_fft: $N_FFT
window_size: $WINDOW
hop_size: $HOP_SIZE
n_mels: $N_MELS

# Training of the linear layer, as EVAR has it for other transformers.
batch_size: 128
lr_lineareval: 0.0003
report_per_epochs: 20
early_stop_epochs: 20
"""


class Evar(Target):
    """A folder for EVAR: a class of frozen representations and its settings."""

    files = frozenset({_MODULE, _SETTINGS})
    takes = frozenset({"pooling"})

    def write(self, source: Source, path: Path) -> list[str]:
        """Write the two files; see :meth:`Target.write`."""
        facts = facts_of(source)
        front_end = source.model.config.front_end
        settings = adapter(
            _CONFIG,
            facts,
            sample_rate=front_end.sample_rate,
            n_fft=front_end.n_fft,
            window=front_end.win_length,
            hop_size=front_end.hop_length,
            n_mels=front_end.n_mels,
        )
        path.mkdir(parents=True)
        (path / _MODULE).write_text(adapter(_TEMPLATE, facts), encoding="utf-8")
        (path / _SETTINGS).write_text(settings, encoding="utf-8")
        return ["EVAR computes on one GPU with this class: set CUDA_VISIBLE_DEVICES=0"]
