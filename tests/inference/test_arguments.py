"""Arguments of the Python API that cannot be meant are refused in one line, before anything is computed."""

import numpy as np
import pytest
from journeys.three_sounds import LABELS, settings, write_run, write_sound

import melpatch
from melpatch.errors import ConfigError
from melpatch.inference import arguments

WAVE = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return melpatch.load(write_run(tmp_path_factory.mktemp("runs") / "run", settings(LABELS)))


@pytest.mark.parametrize("rate", [16, 0, -1, 10**12])
def test_rates_that_cannot_be_meant(model, rate):
    with pytest.raises(ConfigError, match=r"sample_rate = .*1000 to 768000.*16 kHz is 16000"):
        model.embed(WAVE, rate)


@pytest.mark.parametrize("rate", [44.1, float("inf"), float("nan"), "16000", True, None])
def test_rates_of_other_types(rate):
    with pytest.raises(ConfigError, match="sample_rate = "):
        arguments.check_sample_rate(rate)


@pytest.mark.parametrize("rate", [16_000, 16_000.0, np.int64(16_000), np.float32(16_000)])
def test_rates_of_any_type_of_number_are_taken(rate):
    arguments.check_sample_rate(rate)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pooling", "Mean"),
        ("pooling", 3),
        ("layer", 1.5),
        ("layer", "last"),
        ("hop", 0),
        ("hop", -1.0),
        ("hop", float("nan")),
        ("hop", float("inf")),
        ("hop", "1"),
    ],
)
def test_settings_of_embeddings(name, value):
    given = {"pooling": None, "layer": None, "hop": None} | {name: value}
    with pytest.raises(ConfigError, match=f"{name} = "):
        arguments.check_embedding(**given)


def test_a_misspelt_pooling_is_told_the_name_of_a_fitted_one():
    with pytest.raises(
        ConfigError, match=r"pooling = 'fited'; allowed: mean, .*; or fitted, after"
    ):
        arguments.check_embedding("fited", None, None)


@pytest.mark.parametrize("hop", [0.0, -1.0, float("nan"), float("inf")])
def test_hops_are_checked_by_both_methods(model, hop):
    for method in (model.embed, model.predict):
        with pytest.raises(ConfigError, match="hop = "):
            method(WAVE, 16_000, hop=hop)


@pytest.mark.parametrize(
    ("name", "value"),
    [("workers", -1), ("workers", 1.5), ("batch_size", 0), ("batch_size", "8")],
)
def test_settings_of_many_files(name, value):
    with pytest.raises(ConfigError, match=f"{name} = "):
        arguments.check_many(**{"batch_size": None, "workers": None, name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("workers", -1), ("workers", 9999), ("batch_size", 0), ("hop", 0.0)]
)
def test_they_are_checked_by_the_methods(model, tmp_path, name, value):
    path = write_sound(tmp_path / "a.wav")
    with pytest.raises(ConfigError, match=f"{name} = "):
        model.embed_many([path], **{name: value})
    with pytest.raises(ConfigError, match=f"{name} = "):
        melpatch.predict(model, [path], **{name: value})


@pytest.mark.parametrize("precision", ["fp16", "bf16", 16, None])
def test_precisions(precision):
    with pytest.raises(ConfigError, match=r"precision = .*'bf16-mixed'"):
        arguments.check_precision(precision)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu", 1.5])
def test_devices(device):
    with pytest.raises(ConfigError, match=r"device = .*a device that is here"):
        arguments.device_of(device)


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        (np.full(500, np.nan, np.float32), "finite samples"),
        (np.full(500, np.inf), "finite samples"),
        (np.zeros(500, np.int16), "divide 16-bit samples"),
    ],
)
def test_samples_of_the_front_end(wave, message):
    with pytest.raises(ConfigError, match=message):
        melpatch.LogMel()(wave)
