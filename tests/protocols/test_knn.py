"""k nearest neighbours against a loop over all pairs."""

import numpy as np
import pytest

from melpatch.errors import ConfigError, MelpatchError
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


def inputs(train, test, targets):
    return [ProbeInputs(ClipVectors((), vectors, ()), targets) for vectors in (train, test)]


def votes(train, test, targets, **settings):
    learnt, scored = inputs(train, test, targets)
    return KNN(k=3, **settings).fit_predict(learnt, None, scored, multi_label=False, seed=0)[0]


def mixed(clips, numbers, seed):
    """Vectors whose numbers are correlated, on different scales, and far from zero."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(numbers, numbers))
    made = generator.normal(size=(clips, numbers)) @ mixing
    return 100 + made * np.geomspace(0.1, 10, numbers)


def slowly_whitened(train, test, components, ridge):
    mean, scale = train.mean(axis=0), train.std(axis=0)
    train, test = (train - mean) / scale, (test - mean) / scale
    variances, axes = np.linalg.eigh(np.cov(train.T))
    possible = min(len(train) - 1, train.shape[1])
    added = ridge * variances.sum() / possible
    kept = [-1 - number for number in range(min(components, possible))]
    return [
        np.stack([vectors @ axes[:, i] / np.sqrt(variances[i] + added) for i in kept], axis=1)
        for vectors in (train, test)
    ]


TARGETS = np.eye(2)[np.random.default_rng(5).integers(0, 2, 20)]


@pytest.mark.parametrize("scaling", ["none", "standardised"])
def test_what_all_clips_share_decides_nothing_once_vectors_are_standardised(scaling):
    train, test = mixed(20, 3, 1), mixed(6, 3, 2)
    expected = train, test
    if scaling == "standardised":
        mean, scale = train.mean(axis=0), train.std(axis=0)
        expected = (train - mean) / scale, (test - mean) / scale
    own = votes(train, test, TARGETS, scaling=scaling)
    assert own == pytest.approx(slow(expected[0], TARGETS, expected[1], 3))


@pytest.mark.parametrize(("numbers", "components"), [(5, 3), (5, 128), (60, 8), (60, 128)])
@pytest.mark.parametrize("ridge", [0.0, 1.0])
def test_correlated_numbers_count_once_in_whitened_vectors(numbers, components, ridge):
    train, test = mixed(20, numbers, 1), mixed(6, numbers, 2)
    whitened = slowly_whitened(train, test, components, ridge)
    own = votes(train, test, TARGETS, components=components, ridge=ridge)
    assert own == pytest.approx(slow(whitened[0], TARGETS, whitened[1], 3))


def test_components_are_learnt_from_some_of_very_many_clips(monkeypatch):
    monkeypatch.setattr("melpatch.protocols.knn._CLIPS", 9)
    train, test = mixed(20, 30, 1), mixed(6, 30, 2)
    some = np.sort(np.random.default_rng(0).permutation(20)[:9])
    learnt = slowly_whitened(train[some], train, 128, 1.0)[1]
    scored = slowly_whitened(train[some], test, 128, 1.0)[1]
    assert votes(train, test, TARGETS) == pytest.approx(slow(learnt, TARGETS, scored, 3))


def test_a_copy_of_a_number_changes_nothing_in_whitened_vectors():
    train, test = mixed(20, 5, 1), mixed(6, 5, 2)
    copied = [np.concatenate([vectors, vectors], axis=1) for vectors in (train, test)]
    expected = votes(train, test, TARGETS, ridge=0.0)
    assert votes(*copied, TARGETS, ridge=0.0) == pytest.approx(expected)


@pytest.mark.parametrize("scaling", ["whitened", "standardised"])
@pytest.mark.parametrize("clips", [1, 4])
def test_training_clips_that_are_all_the_same_vote_as_one(scaling, clips):
    train, targets = np.full((clips, 5), 3.0), np.eye(2)[[0] * clips]
    assert votes(train, mixed(6, 5, 2), targets, scaling=scaling).tolist() == [[1, 0]] * 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": 0}, "components = 0; allowed: 1 or more"),
        ({"ridge": -1.0}, "ridge = -1.0; allowed: 0 or more"),
        ({"ridge": float("nan")}, "ridge = nan; allowed: 0 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        KNN(**settings)


def test_embeddings_that_are_not_finite_are_refused():
    good, bad = np.ones((3, 2)), np.array([[1.0, np.nan]])
    with pytest.raises(MelpatchError, match="test features of 1 of 1 clip"):
        neighbour_shares(good, np.eye(3), bad)
    with pytest.raises(MelpatchError, match="training features of 1 of 1 clip"):
        neighbour_shares(bad, np.eye(1), good)
