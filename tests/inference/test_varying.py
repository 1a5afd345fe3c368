"""Numbers that vary by no more than rounding do not vary, on whatever scale the vectors are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melpatch.evaluation.linear import fit_linear
from melpatch.evaluation.probe import ProbeInputs
from melpatch.evaluation.standardise import Standardiser
from melpatch.inference.components import fit
from melpatch.inference.varying import varies
from melpatch.nn.pooling import Pooling
from melpatch.protocols.knn import neighbour_shares

FLOOR = -3.7  # of a log-mel spectrogram, where a bin is empty
NOISY = [2, 5]
"""Numbers that are the mean, and the deviation, of a bin that stays at the floor."""


def vectors(clips=40, numbers=8, seed=0):
    """Vectors of two classes, in which some numbers vary by rounding alone."""
    generator = np.random.default_rng(seed)
    classes = np.arange(clips) % 2
    made = generator.normal(size=(clips, numbers)) + classes[:, None]
    # Rounding is not independent of the class where clips of the classes differ in length.
    made[:, 2] = FLOOR * (1 + 6e-8 * classes)
    made[:, 5] = 1e-7 * classes
    return made.astype(np.float32), np.eye(2)[classes]


def heard(made):
    """The same clips with a little sound in the bin that was empty."""
    changed = made.copy()
    changed[:, NOISY] += np.random.default_rng(1).normal(size=(len(made), 2)).astype(np.float32)
    return changed


@given(scale=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
def test_rounding_is_told_from_variation_on_every_scale(scale, seed):
    made = scale * vectors(seed=seed)[0].astype(np.float64)
    found = varies(made.mean(axis=0), made.std(axis=0))
    assert np.flatnonzero(~found).tolist() == NOISY


def test_a_small_number_beside_large_ones_still_varies():
    deviation = np.array([1.0, 1e-3, 1e2, 0.0])
    assert varies(np.zeros(4), deviation).tolist() == [True, True, True, False]
    assert not varies(np.ones(3), np.zeros(3)).any()


def test_a_standardiser_is_scikit_learns_but_for_what_does_not_vary():
    from sklearn.preprocessing import StandardScaler

    made, _ = vectors()
    expected = StandardScaler().fit_transform(made)
    expected[:, NOISY] = 0
    found = Standardiser.of(made)(made)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    assert not Standardiser.of(made)(heard(made))[:, NOISY].any()


@pytest.mark.parametrize("clips", [40, 6])
@pytest.mark.parametrize("multi_label", [False, True])
def test_sound_in_an_empty_bin_does_not_decide_a_linear_probe(clips, multi_label):
    made, targets = vectors(clips)
    head = fit_linear(made, targets, multi_label=multi_label)
    assert not head.weight[:, NOISY].any()
    assert head.scale[NOISY].tolist() == [1, 1]
    found, expected = head.probabilities(heard(made)), head.probabilities(made)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("scaling", ["standardised", "whitened"])
def test_nor_the_vote_of_neighbours(scaling):
    from melpatch.protocols.knn import KNN

    class Vectors:
        def __init__(self, made):
            self.vectors = made

    made, targets = vectors()
    learnt = ProbeInputs(Vectors(made), targets)
    votes = [
        KNN(k=3, scaling=scaling).fit_predict(
            learnt, None, ProbeInputs(Vectors(scored), targets), multi_label=False, seed=0
        )[0]
        for scored in (made, heard(made))
    ]
    np.testing.assert_array_equal(*votes)
    if scaling == "standardised":
        standardised = Standardiser.of(made)(made)
        np.testing.assert_array_equal(
            votes[0], neighbour_shares(standardised, targets, standardised, k=3)
        )


def test_nor_a_map_to_short_vectors():
    made, _ = vectors()
    pooling = fit(made, Pooling.parse("mean"), 4, whiten=True)
    assert not pooling.axes[NOISY].any()
