"""Many logistic regressions at once against scikit-learn's, one by one, and against what a minimum is."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from melpatch.evaluation import logistic as module
from melpatch.evaluation.logistic import TOLERANCE, fit_logistic


def drawn(clips, features, labels=9, seed=0):
    """Standardised features that hang together, and labels, rare to common, that hang on them."""
    generator = np.random.default_rng(seed)
    hidden = generator.normal(size=(clips, features)) / np.sqrt(np.arange(1, features + 1))
    rows = StandardScaler().fit_transform(hidden @ generator.normal(size=(features, features)))
    says = rows @ generator.normal(size=(features, labels)) + generator.logistic(
        size=(clips, labels)
    )
    return rows, says > np.quantile(says, np.linspace(0.98, 0.3, labels), axis=0).diagonal()


@pytest.mark.parametrize(("clips", "features"), [(300, 20), (60, 90)])
@pytest.mark.parametrize("C", [0.01, 0.1, 10.0])
def test_they_are_those_of_scikit_learn(clips, features, C):  # noqa: N803
    rows, targets = drawn(clips, features)
    weights, bias = fit_logistic(rows, targets, C)
    for label, column in enumerate(targets.T):
        theirs = LogisticRegression(C=C, tol=1e-9, max_iter=20_000).fit(rows, column)
        ours = expit(rows @ weights[:, label] + bias[label])
        np.testing.assert_allclose(ours, theirs.predict_proba(rows)[:, 1], atol=2e-4)


@pytest.mark.parametrize("at_once", [1, 4, 64])
def test_they_are_at_their_minimum_however_many_at_once(monkeypatch, at_once):
    monkeypatch.setattr(module, "_LABELS_AT_ONCE", at_once)
    rows, targets = drawn(200, 30)
    weights, bias = fit_logistic(rows, targets, C=1.0)
    errors = expit(rows @ weights + bias) - targets
    assert np.abs(rows.T @ errors + weights).max() < 30 * TOLERANCE * len(
        rows
    )  # along the axes it is the tolerance
    assert np.abs(errors.sum(axis=0)).max() <= TOLERANCE * len(rows)


def test_features_that_repeat_each_other_or_never_change_share_the_weight():
    rows, targets = drawn(200, 5)
    weights, _ = fit_logistic(np.column_stack([rows, rows[:, 0], np.zeros(200)]), targets, C=1.0)
    np.testing.assert_allclose(weights[0], weights[5])
    np.testing.assert_allclose(weights[6], 0, atol=1e-12)
