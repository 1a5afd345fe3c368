"""The network from waveform to output is the run, whatever its front end."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from journeys.three_sounds import settings
from targets.runs import LABELS, ast, sound, ssast, write_run

from melpatch.audio import front_ends
from melpatch.audio.logmel import LogMel
from melpatch.export.source import Source
from melpatch.export.waveform import MatrixLogMel, Waveform, lengths_of
from melpatch.inference.calibration import Calibration
from melpatch.inference.model import load


def with_head(**changes):
    config = settings(LABELS)
    return replace(config, objective=replace(config.objective, **changes))


def network(folder, pooling=None):
    source = Source(folder, load(folder))
    return source, Waveform(source, source.model.network.resolve_pooling(pooling)).eval()


@pytest.mark.parametrize(
    "name", ["kaldi", "mae_ast", "maskspec", "panns", "cola", "atst", "dasheng"]
)
def test_the_matrix_is_the_fourier_transform(name):
    config = getattr(front_ends, name)()
    rate = config.sample_rate
    for seconds in (0.06, 0.5):
        wave = torch.from_numpy(sound(seconds, rate)).double()[None] + 0.01
        torch.testing.assert_close(MatrixLogMel(config)(wave), LogMel(config)(wave))


def test_legacy_padding_is_inside():
    config = ast().front_end
    wave = torch.from_numpy(sound(0.4)).double()[None]
    spectrogram, _ = LogMel(config)(wave, torch.tensor([wave.shape[1]]))
    torch.testing.assert_close(MatrixLogMel(config)(wave), spectrogram)


@pytest.mark.parametrize(
    "config",
    [
        settings(LABELS),
        settings(LABELS, multi_label=True),
        ast(),
        settings(LABELS, pooling="std+cls"),
        with_head(head="attentive", attentive_heads=2),
        with_head(head="prototype", prototypes=2),
    ],
    ids=["default", "multi-label", "ast", "statistics", "attentive", "prototype"],
)
def test_a_classifier_gives_its_probabilities_and_vectors(config, tmp_path):
    write_run(tmp_path, config)
    source, waveform = network(tmp_path)
    least, most = lengths_of(source)
    for samples in (least, (least + most) // 2, most):
        wave = sound(2.0)[-samples:]
        probabilities, vectors = waveform(torch.from_numpy(wave)[None])
        expected = source.model.predict(wave, 16000)[0].probabilities
        np.testing.assert_allclose(probabilities[0].detach(), [*expected.values()], atol=1e-4)
        np.testing.assert_allclose(
            vectors[0].detach(), source.model.embed(wave, 16000), atol=5e-4, rtol=0
        )


@pytest.mark.parametrize(
    "pooling", [None, "mean+max", "segments=2", "layers=1,2", "rows+std+input"]
)
def test_an_encoder_gives_its_vectors(pooling, tmp_path):
    write_run(tmp_path, settings())
    source, waveform = network(tmp_path, pooling)
    wave = sound(0.7)
    (vectors,) = waveform(torch.from_numpy(wave)[None])
    expected = source.model.embed(wave, 16000, pooling=pooling)
    np.testing.assert_allclose(vectors[0].detach(), expected, atol=5e-4, rtol=0)


def test_a_temperature_is_applied(tmp_path):
    write_run(tmp_path, ast())
    Calibration(multi_label=False, temperature=2.5, clips=9).save(tmp_path)
    source, waveform = network(tmp_path)
    wave = sound(1.0)
    probabilities, _ = waveform(torch.from_numpy(wave)[None])
    expected = source.model.predict(wave, 16000)[0].probabilities
    np.testing.assert_allclose(probabilities[0].detach(), [*expected.values()], atol=1e-4)


def test_a_pretraining_run_of_ssast_has_a_vector(tmp_path):
    write_run(tmp_path, ssast())
    source, waveform = network(tmp_path, "cls")
    (vectors,) = waveform(torch.from_numpy(sound(1.0))[None])
    expected = source.model.embed(sound(1.0), 16000, pooling="cls")
    np.testing.assert_allclose(vectors[0].detach(), expected, atol=5e-4, rtol=0)
