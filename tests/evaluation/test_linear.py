"""The linear probe: what it must learn, what it must not see, and labels that training never or always shows."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from melpatch.errors import MelpatchError
from melpatch.evaluation.linear import fit_linear


def linear_probabilities(train, targets, test, **settings):
    return fit_linear(train, targets, **settings).probabilities(test)


def clouds(clips=90, labels=3, seed=0):
    """Features whose class means differ, with one useless feature of a huge scale and one that never changes."""
    generator = np.random.default_rng(seed)
    classes = np.arange(clips) % labels
    useful = 3 * np.eye(labels)[classes] + generator.normal(size=(clips, labels))
    return np.column_stack(
        [useful, generator.normal(scale=1e4, size=clips), np.ones(clips)]
    ), np.eye(labels)[classes]


def test_it_separates_what_is_separable_whatever_the_scale_of_the_features():
    train, targets = clouds()
    test, truth = clouds(seed=1)
    found = linear_probabilities(train, targets, test, multi_label=False)
    assert np.mean(found.argmax(1) == truth.argmax(1)) > 0.85
    assert found.sum(axis=1) == pytest.approx(np.ones(90))


def test_rescaling_a_feature_changes_nothing():
    train, targets = clouds()
    scale = np.array([10.0, 0.1, 5.0, 1e-4, 3.0])
    ours, scaled = (
        linear_probabilities(train * s, targets, train[:9] * s, multi_label=False)
        for s in (1.0, scale)
    )
    assert ours == pytest.approx(scaled, abs=1e-6)


def test_a_clip_is_scored_alike_alone_and_among_others():
    train, targets = clouds()
    test, _ = clouds(seed=1)
    together = linear_probabilities(train, targets, test, multi_label=False)
    assert linear_probabilities(train, targets, test[4:5], multi_label=False)[0] == pytest.approx(
        together[4]
    )


@pytest.mark.parametrize("labels", [2, 3])
def test_more_features_than_clips_give_what_scikit_learn_gives(labels):
    generator = np.random.default_rng(2)
    train, targets = clouds(24, labels)
    wide = np.column_stack([train, generator.normal(size=(24, 200))])
    other = np.column_stack([clouds(24, labels, seed=3)[0], generator.normal(size=(24, 200))])
    found = linear_probabilities(wide, targets, other, multi_label=False, C=0.01)
    scaler = StandardScaler().fit(wide)
    regression = LogisticRegression(C=0.01, max_iter=10_000, tol=1e-9)
    regression.fit(scaler.transform(wide), targets.argmax(axis=1))
    expected = regression.predict_proba(scaler.transform(other))
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize(
    ("multi_label", "weights"), [(False, None), (True, None), (False, (0.1, 1.0, 5.0))]
)
def test_the_loss_is_at_its_minimum(multi_label, weights):
    """At the minimum of C * log-loss + |w|^2 / 2 the gradient is 0, so w = C * X^T (targets - probabilities)."""
    train, targets = clouds()
    C = 0.1
    of_clips = None if weights is None else targets @ weights
    found = linear_probabilities(
        train, targets, train, multi_label=multi_label, C=C, clip_weights=of_clips
    )
    scale = np.where(train.std(0) > 0, train.std(0), 1)
    X = (train - train.mean(0)) / scale
    of_loss = (targets - found) if of_clips is None else of_clips[:, None] * (targets - found)
    logits = X @ (C * X.T @ of_loss)
    if multi_label:
        ours = np.log(found / (1 - found))
    else:
        ours, logits = (x - x.mean(1, keepdims=True) for x in (np.log(found), logits))
    offset = (ours - logits).mean(axis=0)
    assert ours - logits == pytest.approx(np.broadcast_to(offset, ours.shape), abs=0.02)


def test_multi_label_scores_each_label_by_itself():
    train, targets = clouds()
    both = linear_probabilities(train, targets, train, multi_label=True)
    first = linear_probabilities(train, targets[:, :1], train, multi_label=True)
    assert both[:, :1] == pytest.approx(first)
    assert np.abs(both.sum(axis=1) - 1).max() > 0.01


@pytest.mark.parametrize("multi_label", [False, True])
def test_labels_that_training_never_shows_get_0(multi_label):
    train, targets = clouds()
    targets = np.column_stack([targets[:, :1], np.zeros(90), targets[:, 1:]])
    found = linear_probabilities(train, targets, train, multi_label=multi_label)
    assert (found[:, 1] == 0).all()
    assert found[:, [0, 2, 3]] == pytest.approx(
        linear_probabilities(train, targets[:, [0, 2, 3]], train, multi_label=multi_label)
    )


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_label_that_every_training_clip_has_gets_1(multi_label):
    train, _ = clouds()
    assert (
        linear_probabilities(train, np.ones((90, 1)), train, multi_label=multi_label) == 1
    ).all()


def test_embeddings_that_are_not_finite_are_refused():
    train, targets = clouds()
    train[3, 0] = np.inf
    with pytest.raises(MelpatchError, match="training features of 1 of 90 clips"):
        linear_probabilities(train, targets, train, multi_label=False)
