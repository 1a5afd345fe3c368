"""A Python module with the API of HEAR, which its validator and its evaluation load.

Source: the API of HEAR 2021, hearbenchmark.com/hear-api.html.

*Differs:* frames are as long as a column of patches, which is mostly more than the 50 ms that HEAR
suggests for the transcription of music.
"""

from pathlib import Path

from melpatch.export.adapter import adapter, facts_of
from melpatch.export.source import Source
from melpatch.targets.base import Target

_RATES = (16000, 22050, 32000, 44100, 48000)
"""Rates at which the data of HEAR exist, in Hz."""
_SUGGESTED_HOP = 0.05
_TEMPLATE = '''"""The API of HEAR for a run of melpatch; written by melpatch $MELPATCH export --to hear."""

import melpatch
import numpy as np
import torch

RUN = $RUN
"""The run folder; load_model takes another path of it."""
POOLING = $POOLING
FRAME_POOLING = $FRAME_POOLING
HOP = $HOP  # seconds between frames


class Model(torch.nn.Module):
    """The run, with the attributes that HEAR asks for."""

    sample_rate = $SAMPLE_RATE  # melpatch resamples to the run's own rate
    scene_embedding_size = $DIM
    timestamp_embedding_size = $FRAME_DIM

    def __init__(self, run):
        super().__init__()
        self.run = melpatch.load(run)
        self.weights = self.run.objective  # moves with to()


def load_model(model_file_path=""):
    """Return the model of a run folder, by default RUN."""
    return Model(model_file_path or RUN)


def get_scene_embeddings(audio, model):
    """Return one vector per sound, (sound, dim), of audio (sound, sample)."""
    vectors = model.run.embed_each(audio, model.sample_rate, pooling=POOLING)
    return torch.from_numpy(np.stack([*vectors])).to(audio.device)


def get_timestamp_embeddings(audio, model):
    """Return vectors (sound, frame, dim) and their middles (sound, frame) in milliseconds."""
    frames = [*model.run.embed_each(audio, model.sample_rate, pooling=FRAME_POOLING, hop=HOP)]
    vectors = np.stack([one.vectors for one in frames])
    middles = np.stack([1000 * (one.start + HOP / 2) for one in frames])
    return (
        torch.from_numpy(vectors).to(audio.device),
        torch.from_numpy(middles.astype(np.float32)).to(audio.device),
    )
'''


class Hear(Target):
    """A module for the HEAR benchmark: scene and timestamp embeddings of a run."""

    ending = ".py"
    takes = frozenset({"pooling"})

    def write(self, source: Source, path: Path) -> list[str]:
        """Write the module; see :meth:`Target.write`."""
        facts = facts_of(source)
        own = source.model.sample_rate
        rate = min((rate for rate in _RATES if rate >= own), default=_RATES[-1])
        path.write_text(adapter(_TEMPLATE, facts, sample_rate=rate), encoding="utf-8")
        notes = []
        if rate != own:
            notes.append(f"HEAR has no data at {own} Hz: it gives {rate} Hz, which is resampled")
        if facts.hop > _SUGGESTED_HOP:
            notes.append(
                f"a frame every {1000 * facts.hop:g} ms, one column of patches; for transcription "
                "HEAR suggests 50 ms or less"
            )
        return notes
