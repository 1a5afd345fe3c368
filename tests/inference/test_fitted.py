"""Fitted vectors: principal components of standardised ones, the same wherever a run's vectors come from."""

import json

import numpy as np
import pytest
import torch
from journeys.three_sounds import melpatch, settings, wave, write_corpus, write_run

import melpatch as package
from melpatch import cli
from melpatch.errors import CheckpointError, ConfigError
from melpatch.inference.components import fit
from melpatch.inference.fitted import FILE, fitted_of_run, hash_of_weights, write_fitted
from melpatch.nn.pooling import Pooling

ROWS = Pooling.parse("rows+mean+std")
RATE = 16000


def made_up(clips=60, numbers=12, seed=0):
    """Vectors whose numbers are correlated, on different scales, and far from zero."""
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(clips, numbers)) @ generator.normal(size=(numbers, numbers))
    return (mixed * np.geomspace(0.01, 100, numbers) + 5).astype(np.float32)


def finished(pooling, vectors):
    return pooling.finish(torch.from_numpy(vectors).double()).numpy()


# --- the fit ---


@pytest.mark.parametrize("whiten", [False, True])
def test_vectors_are_the_principal_components_of_standardised_ones(whiten):
    vectors = made_up()
    short = finished(fit(vectors, ROWS, 5, whiten=whiten, ridge=0.0), vectors)
    standardised = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0)
    variance, axes = np.linalg.eigh(np.cov(standardised.T))
    expected = standardised @ axes[:, ::-1][:, :5]
    if whiten:
        expected /= np.sqrt(variance[::-1][:5])
    # The sign of an axis is free.
    signs = np.sign((short * expected).sum(axis=0))
    np.testing.assert_allclose(short * signs, expected, atol=2e-3)


def test_whitened_numbers_have_variance_one_and_no_correlation():
    vectors = made_up()
    short = finished(fit(vectors, ROWS, 12, whiten=True, ridge=0.0), vectors)
    np.testing.assert_allclose(np.cov(short.T), np.eye(12), atol=5e-3)


def test_a_ridge_keeps_small_components_small():
    vectors = made_up()
    variances = [
        finished(fit(vectors, ROWS, 12, whiten=True, ridge=ridge), vectors).var(axis=0)
        for ridge in (0.0, 1.0, 10.0)
    ]
    # Of 12 components of 12 numbers the mean variance is 1: v / (v + ridge) is left of each.
    standardised = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0)
    own = np.linalg.eigvalsh(np.cov(standardised.T))[::-1] * 59 / 60
    for ridge, found in zip((1, 10), variances[1:], strict=True):
        np.testing.assert_allclose(found, own / (own * 60 / 59 + ridge * 60 / 59), rtol=0.02)
    assert (np.diff(variances[1]) < 0).all()


def test_a_number_that_never_varies_says_nothing():
    vectors = made_up()
    vectors[:, 3] = 7.0
    pooling = fit(vectors, ROWS, 5, whiten=True)
    other = vectors[:1].copy()
    other[:, 3] = 1e6
    assert np.isfinite(finished(pooling, vectors)).all()
    np.testing.assert_array_equal(finished(pooling, other), finished(pooling, vectors[:1]))


@pytest.mark.parametrize(("clips", "dim", "most"), [(60, 13, 12), (8, 8, 7), (60, 0, 12)])
def test_no_more_numbers_than_clips_or_vectors_give(clips, dim, most):
    with pytest.raises(
        ConfigError, match=rf"dim = {dim}; allowed: 1 to {most}, with {clips} clips"
    ):
        fit(made_up(clips), ROWS, dim, whiten=True)


def test_numbers_beyond_what_varies_cannot_be_whitened():
    vectors = made_up(numbers=3) @ np.ones((3, 12), np.float32)
    with pytest.raises(ConfigError, match="dim = 5; allowed: 1 to 1: the clips vary no further"):
        fit(vectors, ROWS, 5, whiten=True)


# --- kept with a run ---


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a fitted pooling, made by the command."""
    folder = tmp_path_factory.mktemp("fitted")
    write_corpus(folder / "sounds")
    run = write_run(folder / "run", settings())
    words = ["--data", folder / "sounds" / "corpus.csv", "--pooling", "rows+mean+std"]
    melpatch("fit-embedding", run, *words, "--dim", "4")
    return run


def sound(seconds=1.0, seed=0):
    return wave("high", seconds, RATE, seed).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.05, 1.0, 3.7])
def test_a_recording_of_any_length_has_the_mapped_vector(run, seconds):
    model = package.load(run)
    long = model.embed(sound(seconds), RATE, pooling="rows+mean+std")
    short = model.embed(sound(seconds), RATE, pooling="fitted")
    assert short.shape == (4,)
    expected = finished(fitted_of_run(run), long)
    np.testing.assert_allclose(short, expected, rtol=1e-3, atol=1e-4)


def test_the_command_learns_from_training_clips_only(run):
    sounds = run.parent / "sounds"
    model = package.load(run)
    lines = (sounds / "corpus.csv").read_text(encoding="utf-8").splitlines()[1:]
    paths = [sounds / line.split(",")[0] for line in lines if line.split(",")[2] == "train"]
    vectors = np.stack([model.embed(path, pooling="rows+mean+std") for path in paths])
    expected = fit(vectors, ROWS, 4, whiten=True)
    np.testing.assert_allclose(fitted_of_run(run).mean, expected.mean, atol=1e-5)


def test_tables_and_protocols_take_it(run, tmp_path):
    sounds = run.parent / "sounds"
    melpatch("embed", run, sounds, "--out", tmp_path / "e.npz", "--pooling", "fitted")
    with np.load(tmp_path / "e.npz") as table:
        assert table["embeddings"].shape[1] == 4
    words = ["--data", sounds / "corpus.csv", "--protocol", "knn", "--set", "pooling=fitted", "k=3"]
    melpatch("evaluate", run, *words, "--out", tmp_path / "scores")
    (scores,) = (tmp_path / "scores").glob("*/scores.json")
    record = json.loads(scores.read_text(encoding="utf-8"))
    assert record["settings"]["pooling"] == "fitted"
    # Random weights have the pooling that was fitted, not the map.
    assert "random weights" in [floor["name"] for floor in record["floors"]]


def test_frames_have_none(run):
    with pytest.raises(ConfigError, match=r"pooling = 'fitted .*allowed: mean or rows"):
        package.load(run).embed(sound(), RATE, pooling="fitted", hop=0.2)


def test_another_layer_has_none(run):
    with pytest.raises(ConfigError, match="layer = 0; allowed: None beside"):
        package.load(run).embed(sound(), RATE, pooling="fitted", layer=0)


def test_what_is_there_is_replaced_only_if_told(run, capsys):
    words = ["fit-embedding", str(run), "--data", str(run.parent / "sounds" / "corpus.csv")]
    before = (run / FILE).read_bytes()
    assert cli.main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (run / FILE).read_bytes() == before


# --- what may be wrong with it ---


def test_a_run_without_one_says_how_to_get_it(tmp_path):
    run = write_run(tmp_path / "run", settings())
    with pytest.raises(ConfigError, match=r"melpatch fit-embedding .*run --data"):
        package.load(run).embed(sound(), RATE, pooling="fitted")


def test_other_weights_are_refused(tmp_path):
    run = write_run(tmp_path / "run", settings())
    dim = len(package.load(run).embed(sound(), RATE, pooling="rows+mean+std"))
    fitted = fit(made_up(numbers=dim), ROWS, 3, whiten=True)
    write_fitted(run / FILE, fitted, hash_of_weights(run))
    weights = run / "model.safetensors"
    model = package.load(run)
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match="fitted on other weights"):
        model.embed(sound(), RATE, pooling="fitted")


def test_a_damaged_one_costs_nothing_else(tmp_path):
    run = write_run(tmp_path / "run", settings())
    (run / FILE).write_bytes(b"nothing")
    model = package.load(run)
    assert model.embed(sound(), RATE).ndim == 1
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        model.embed(sound(), RATE, pooling="fitted")


def test_vectors_of_another_length_are_refused(tmp_path):
    run = write_run(tmp_path / "run", settings())
    fitted = fit(made_up(numbers=7), ROWS, 3, whiten=True)
    write_fitted(run / FILE, fitted, hash_of_weights(run))
    with pytest.raises(ConfigError, match="is for vectors of 7 numbers"):
        package.load(run).embed(sound(), RATE, pooling="fitted")
