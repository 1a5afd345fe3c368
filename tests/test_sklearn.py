"""The transformer of scikit-learn: its checks, pipelines, searches, copies and pickles, on every kind of recordings."""

import pickle
import warnings
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from journeys.three_sounds import settings, wave, write_run, write_sound
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from melpatch import sklearn
from melpatch.errors import AudioError, CheckpointError, ConfigError
from melpatch.inference.model import load
from melpatch.sklearn import Embedder
from melpatch.training.config import build
from melpatch.training.run import Run

RATE = 16000
LABELS = ["low", "noise"] * 4
DO_NOT_APPLY = {
    "check_n_features_in": "columns are samples: recordings may have any length",
    "check_n_features_in_after_fitting": "columns are samples: recordings may have any length",
    "check_transformer_general": "its last step wants other lengths refused; see the test below",
    "check_fit_idempotent": "floats around 100 are no samples, which lie in [-1, 1]",
    "check_estimators_dtypes": "int64 is no type of samples; PCM has 8, 16 or 32 bits",
}
"""The checks of scikit-learn that audio cannot pass, with the reason."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("sklearn") / "run", settings())


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    return [
        str(write_sound(folder / f"{number}.wav", label, 0.3 + 0.1 * number, RATE, number))
        for number, label in enumerate(LABELS)
    ]


@pytest.fixture
def any_type(monkeypatch):
    """Arguments of other types than annotated reach the code, as they do outside the tests."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def samples(number, seconds=0.4):
    return wave(LABELS[number], seconds, RATE, number).astype(np.float32)


def kinds(files):
    """The same labels as file names, as an array, and as arrays of unequal length."""
    unequal = [samples(number, 0.2 + 0.1 * number) for number in range(len(LABELS))]
    return {
        "files": files,
        "paths": [Path(file) for file in files],
        "array of names": np.array(files),
        "column of names": np.array(files, dtype=object)[:, None],
        "array": np.stack([samples(number) for number in range(len(LABELS))]),
        "tensor": torch.from_numpy(np.stack([samples(number) for number in range(len(LABELS))])),
        "stereo": np.stack([[samples(number)] * 2 for number in range(len(LABELS))]),
        "unequal": unequal,
        "tensors": [*map(torch.from_numpy, unequal)],
        "mixed": [*files[:4], *unequal[4:]],
    }


KINDS = [*kinds(["x"] * len(LABELS))]


def test_scikit_learns_checks_pass_but_for_those_that_cannot_apply(run, any_type):
    embedder = Embedder(str(run), sample_rate=RATE)
    with warnings.catch_warnings(action="ignore"):
        results = check_estimator(embedder, on_fail=None)
    failed = {one["check_name"] for one in results if one["status"] == "failed"}
    assert failed == DO_NOT_APPLY.keys()
    assert sum(one["status"] == "passed" for one in results) > 30


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_recordings_has_the_vectors_of_the_model(kind, run, files):
    recordings = kinds(files)[kind]
    vectors = Embedder(run, sample_rate=RATE, batch_size=3).fit_transform(recordings)
    model = load(run)
    flat = recordings[:, 0] if kind == "column of names" else recordings
    expected = [model.embed(recording, RATE) for recording in flat]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, np.stack(expected), atol=1e-5)


@pytest.mark.parametrize("kind", ["files", "array", "unequal"])
def test_a_search_over_a_pipeline(kind, run, files):
    recordings = kinds(files)[kind]
    pipeline = make_pipeline(
        Embedder(run, sample_rate=RATE), StandardScaler(), LogisticRegression()
    )
    grid = {"embedder__pooling": ["mean", "mean+std"], "logisticregression__C": [0.1, 1.0]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(recordings, LABELS)
    assert search.best_score_ == 1.0
    assert [*search.predict(recordings)] == LABELS


def test_a_search_loads_the_network_once(run, files, monkeypatch):
    loads = []
    monkeypatch.setattr(sklearn, "load", lambda *a, **k: loads.append(a) or load(*a, **k))
    sklearn._open.cache_clear()
    pipeline = make_pipeline(Embedder(run), LogisticRegression())
    GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=2).fit(files, LABELS)
    assert len(loads) == 1


def test_other_lengths_may_follow(run):
    embedder = Embedder(run, sample_rate=RATE).fit(np.zeros((2, 800)))
    assert embedder.transform(np.zeros((3, 1700))).shape[0] == 3


def test_pcm_is_scaled(run):
    floats = samples(0)[None]
    pcm = np.round(floats * 2**15).astype(np.int16)
    embedder = Embedder(run, sample_rate=RATE)
    np.testing.assert_allclose(
        embedder.fit_transform(pcm), embedder.transform(floats), atol=0.02, rtol=0.02
    )


def test_names_of_the_output(run):
    embedder = Embedder(run, sample_rate=RATE, pooling="mean").fit(np.zeros((1, 800)))
    names = embedder.get_feature_names_out()
    assert [*names] == [f"embedder{number}" for number in range(16)]


def test_a_table_of_pandas(run, files):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    column = pandas.Series(files, index=[f"r{number}" for number in range(len(files))])
    table = Embedder(run, pooling="mean").set_output(transform="pandas").fit_transform(column)
    assert [*table.index] == [*column.index]
    assert table.columns[1] == "embedder1"


def test_a_pickle_and_a_clone_have_the_same_vectors_and_stay_small(run, files):
    embedder = Embedder(run, pooling="mean").fit(files)
    pickled = pickle.dumps(embedder)
    assert len(pickled) < 2000
    expected = embedder.transform(files[:2])
    np.testing.assert_array_equal(pickle.loads(pickled).transform(files[:2]), expected)
    np.testing.assert_array_equal(clone(embedder).fit_transform(files[:2]), expected)


def test_an_open_run_can_be_copied(tmp_path, files):
    opened = Run.create(tmp_path / "run", settings())
    with opened.checkpoints:
        opened.publish(build(settings()).state_dict())
    assert clone(Embedder(opened)).fit_transform(files[:1]).shape[0] == 1


def test_other_weights_are_refused_until_the_next_fit(tmp_path, files):
    run = write_run(tmp_path / "run", settings())
    embedder = Embedder(run).fit(files)
    state = build(settings()).state_dict()
    opened = Run(run, settings())
    with opened.checkpoints:
        opened.publish({name: value + 0.1 for name, value in state.items()})
    with pytest.raises(CheckpointError, match="changed since fit; fit again"):
        embedder.transform(files[:1])
    assert embedder.fit_transform(files[:1]).shape[0] == 1


@pytest.mark.parametrize(
    ("recordings", "error", "message"),
    [
        ("a.wav", ConfigError, r"X = 'a.wav'; allowed: a list of files, such as \['a.wav'\]"),
        ([], ConfigError, "there is no recording"),
        ([0.1, 0.2], ValueError, "Expected 2D array, got 1D array"),
        (np.zeros(9), ValueError, "Expected 2D array, got 1D array"),
        (np.full((2, 9), np.nan), ValueError, "NaN"),
        ([np.zeros(9), np.full(9, np.nan)], ConfigError, "recording 1: .*not all are finite"),
        ([np.zeros(9), np.zeros(0)], ConfigError, "recording 1: .*there is no sample"),
        (["missing.wav"], AudioError, "missing.wav"),
    ],
)
def test_what_is_no_recording_is_named(run, recordings, error, message):
    with pytest.raises(error, match=message):
        Embedder(run, sample_rate=RATE).fit_transform(recordings)


def test_samples_without_a_rate_are_refused(run):
    with pytest.raises(ConfigError, match=r"recording 0: .*without sample_rate"):
        Embedder(run).fit_transform(np.zeros((2, 900)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "median"}, "pooling = 'median'"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"precision": "half"}, "precision = 'half'"),
    ],
)
def test_settings_are_checked(run, files, settings, message, any_type):
    with pytest.raises(ConfigError, match=message):
        Embedder(run, **settings).fit_transform(files)


def test_a_run_that_is_none_is_named(tmp_path, files, any_type):
    with pytest.raises(ConfigError, match=r"nowhere.*give a run folder"):
        Embedder(tmp_path / "nowhere").fit(files)
    with pytest.raises(ConfigError, match=r"run = .*allowed: the folder of a run"):
        Embedder(None).fit(files)
