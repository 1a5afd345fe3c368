"""A head: the logistic regression of standardised vectors, and the same as a run, fitted pooling or not."""

import numpy as np
import pytest
from journeys.three_sounds import melpatch, settings, write_folder, write_run
from sklearn.linear_model import LogisticRegression

from melpatch.data.answers import Labelled
from melpatch.inference.model import load
from melpatch.search.build import model_of
from melpatch.search.index import Index
from melpatch.search.teach import keep_heads, teach


@pytest.fixture(scope="module", params=["mean+std", "fitted"])
def index(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teach")
    run = write_run(folder / "run", settings())
    sounds = write_folder(folder / "sounds", per_class=5)
    if request.param == "fitted":
        melpatch("fit-embedding", run, "--data", sounds, "--dim", 6)
    melpatch("index", run, sounds, "--pooling", request.param, "--out", folder / "index")
    return Index(folder / "index")


ROWS = np.array([0, 3, 4, 9, 12])
YES = np.array([True, True, False, False, False])


def test_it_is_scikit_learns_logistic_regression(index):
    head = teach(index, ROWS, YES)
    mean, deviation = index.scale
    standardised = ((index.vectors(np.arange(len(index))) - mean) / deviation).astype(np.float64)
    regression = LogisticRegression(C=0.1, tol=1e-10, max_iter=10000).fit(standardised[ROWS], YES)
    expected = regression.decision_function(standardised)
    np.testing.assert_allclose(head.logits(index), expected, atol=1e-3)


def test_one_kind_of_answer_teaches_nothing(index):
    assert teach(index, ROWS, np.ones(5, bool)) is None
    assert teach(index, ROWS, np.zeros(5, bool)) is None


def test_as_a_run_it_predicts_the_same(index, tmp_path):
    head = teach(index, ROWS, YES)
    place = index.rows[ROWS[0]]
    path = index.recordings[place["recording"]].path
    stretch = Labelled(path, 0.0, float(place["end"]), ("wren",), "train")
    keep_heads(model_of(index), index, {"wren": head}, [stretch], tmp_path / "kept", {})
    model = load(tmp_path / "kept")
    logits = head.logits(index)
    for row in np.flatnonzero(index.rows["start"] == 0)[:4]:
        recording = index.recordings[index.rows[row]["recording"]]
        if index.rows[row]["end"] < model.seconds:
            (prediction,) = model.predict(recording.path)
            expected = 1 / (1 + np.exp(-logits[row]))
            assert prediction.probabilities["wren"] == pytest.approx(expected, abs=2e-3)
