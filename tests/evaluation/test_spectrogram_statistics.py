"""Statistics of spectrograms: what a page of NumPy would compute, for clips of any length."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from journeys.three_sounds import write_sound

from melpatch.audio.files import read
from melpatch.audio.logmel import LogMel
from melpatch.data.corpus import Corpus
from melpatch.data.manifest import load_corpus
from melpatch.evaluation.frozen_features import FrozenFeatures
from melpatch.evaluation.spectrogram_statistics import POOLING, SpectrogramStatistics
from melpatch.nn.pooling import segment_bounds

FRONT_END = LogMel.Config(mean=3.0, std=0.5)
LENGTHS = (0.3, 0.02, 0.7)


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    for number, seconds in enumerate(LENGTHS):
        write_sound(tmp_path / "sounds" / f"{number}.wav", ("low", "noise")[number % 2], seconds)
    return load_corpus([tmp_path / "sounds"])


def page_of_numpy(path, transform):
    """Return mean and deviation of each row in four segments."""
    wave, _ = read(path, sample_rate=16000)
    config = replace(FRONT_END, n_mels=64, mean=0.0, std=1.0, scale=1.0)
    rows = transform(LogMel(config)(wave).numpy())
    parts = []
    for begin, end in segment_bounds(rows.shape[1], 4):
        segment = rows[:, begin:end]
        parts += [segment.mean(axis=1), segment.std(axis=1)]
    return np.concatenate(parts)


def cepstrum(rows):
    """Return 20 coefficients, from the definition of the orthonormal DCT-II."""
    size = len(rows)
    k, n = np.arange(20)[:, None], np.arange(size)[None]
    basis = np.cos(np.pi * (n + 0.5) * k / size) * np.sqrt(2 / size)
    basis[0] /= np.sqrt(2)
    return basis @ rows


@pytest.mark.parametrize(
    ("kind", "transform"), [("log-mel", lambda rows: rows), ("MFCC", cepstrum)]
)
def test_statistics_are_those_of_the_definition(corpus, tmp_path, kind, transform):
    source = SpectrogramStatistics(kind, FRONT_END, torch.device("cpu"))
    features = FrozenFeatures(
        source, tmp_path / "features", fingerprint=source.fingerprint, seconds=1.0, batch_size=2
    )
    found = features.vectors(corpus, POOLING).vectors
    expected = [page_of_numpy(clip.path, transform) for clip in corpus.clips]
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_the_normalisation_of_a_run_does_not_matter_and_its_range_does():
    def fingerprint(**changes):
        return SpectrogramStatistics(
            "log-mel", replace(FRONT_END, **changes), torch.device("cpu")
        ).fingerprint

    assert fingerprint() == fingerprint(mean=0.0, std=7.0) == fingerprint(n_mels=64)
    assert fingerprint() != fingerprint(low_hz=500.0)
    assert fingerprint() != fingerprint(n_mels=32)
