"""k nearest neighbours against a loop over all pairs."""

import numpy as np
import pytest

from melpatch.errors import MelpatchError
from melpatch.evaluation.features import ClipVectors
from melpatch.evaluation.probe import ProbeInputs
from melpatch.protocols.knn import KNN, neighbour_shares


def slow(train, targets, test, k):
    rows = []
    for x in test:
        similarity = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in train]
        nearest = sorted(range(len(train)), key=lambda i: -similarity[i])[:k]
        rows.append(np.mean([targets[i] for i in nearest], axis=0))
    return np.array(rows)


@pytest.mark.parametrize("k", [1, 10, 50])
@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_are_the_share_of_neighbours_that_have_the_label(k, multi_label):
    generator = np.random.default_rng(k)
    train, test = generator.normal(size=(30, 8)), generator.normal(size=(7, 8))
    targets = (
        generator.integers(0, 2, (30, 3))
        if multi_label
        else np.eye(3)[generator.integers(0, 3, 30)]
    )
    ours = neighbour_shares(train, targets, test, k=k)
    assert ours == pytest.approx(slow(train, targets, test, k))


def test_only_the_direction_counts():
    train, targets = np.array([[1.0, 0.0], [0.0, 1.0]]), np.eye(2)
    assert neighbour_shares(
        train, targets, np.array([[100.0, 1.0], [0.001, 0.002]]), k=1
    ).tolist() == [
        [1, 0],
        [0, 1],
    ]


@pytest.mark.parametrize("standardise", [False, True])
def test_what_all_clips_share_decides_nothing_once_vectors_are_standardised(standardise):
    generator = np.random.default_rng(5)
    offset = np.array([100.0, 100.0, 100.0])
    train = offset + generator.normal(size=(20, 3)) * [1, 0.1, 10]
    test = offset + generator.normal(size=(6, 3)) * [1, 0.1, 10]
    targets = np.eye(2)[generator.integers(0, 2, 20)]
    inputs = [ProbeInputs(ClipVectors((), vectors, ()), targets) for vectors in (train, test)]
    found, _ = KNN(k=3, standardise=standardise).fit_predict(
        inputs[0], None, inputs[1], multi_label=False, seed=0
    )
    if standardise:
        mean, scale = train.mean(axis=0), train.std(axis=0)
        train, test = (train - mean) / scale, (test - mean) / scale
    assert found == pytest.approx(slow(train, targets, test, 3))


def test_embeddings_that_are_not_finite_are_refused():
    good, bad = np.ones((3, 2)), np.array([[1.0, np.nan]])
    with pytest.raises(MelpatchError, match="test features of 1 of 1 clip"):
        neighbour_shares(good, np.eye(3), bad)
    with pytest.raises(MelpatchError, match="training features of 1 of 1 clip"):
        neighbour_shares(bad, np.eye(1), good)
