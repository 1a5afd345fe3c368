"""Temperature and calibration error against slow versions, and their properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from melpatch.evaluation.temperature import fit_temperature, reliability
from melpatch.inference.calibration import logits_of, rescaled


def softmax(logits):
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def made_up(clips, labels, multi_label, overconfidence=1.0, seed=0):
    """Return probabilities of a classifier that is this much too certain, and labels of clips."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(clips, labels)) - 1
    if multi_label:
        targets = random.uniform(size=logits.shape) < 1 / (1 + np.exp(-logits))
        probabilities = 1 / (1 + np.exp(-overconfidence * logits))
    else:
        # Adding Gumbel noise to logits and taking the largest draws from their softmax.
        drawn = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
        targets = np.arange(labels) == drawn[:, None]
        probabilities = softmax(overconfidence * logits)
    return probabilities.astype(np.float32), targets.astype(np.float32)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_temperature_of_a_made_up_classifier_is_found(multi_label):
    for overconfidence in (0.5, 1.0, 4.0):
        given_ = made_up(20_000, 5, multi_label, overconfidence)
        assert fit_temperature(*given_, multi_label) == pytest.approx(overconfidence, rel=0.05)


def slow_loss(log_temperature, probabilities, targets, multi_label):
    """Return the cross-entropy with smoothed targets, entry by entry."""
    temperature = np.exp(log_temperature)
    smoothing = 1 / (len(targets) + 2)
    rate = targets.mean()
    loss = 0.0
    for row, target in zip(probabilities.astype(float), targets, strict=True):
        if multi_label:
            powers = row ** (1 / temperature)
            answers = powers / (powers + (1 - row) ** (1 / temperature))
        else:
            powers = row ** (1 / temperature)
            answers = powers / powers.sum()
        for answer, wanted in zip(answers, target, strict=True):
            goal = (1 - smoothing) * wanted + smoothing * rate
            loss -= goal * np.log(answer)
            if multi_label:
                loss -= (1 - goal) * np.log(1 - answer)
    return loss


@pytest.mark.parametrize("multi_label", [False, True])
def test_no_other_temperature_has_a_smaller_loss(multi_label):
    given_ = made_up(40, 4, multi_label, 3.0)
    found = minimize_scalar(
        slow_loss, args=(*given_, multi_label), bounds=(-4, 4), method="bounded"
    )
    assert fit_temperature(*given_, multi_label) == pytest.approx(np.exp(found.x), rel=1e-2)


def test_few_clips_that_are_all_right_do_not_make_a_classifier_certain():
    probabilities = np.array([[0.8, 0.2], [0.3, 0.7]], np.float32)
    temperature = fit_temperature(probabilities, np.eye(2, dtype=np.float32), False)
    assert 0.95 > rescaled(probabilities, temperature, False).max() > 0.6


@given(st.floats(0.02, 50), st.booleans(), st.integers(0, 100))
def test_a_temperature_keeps_the_order_of_labels(temperature, multi_label, seed):
    probabilities, _ = made_up(10, 6, multi_label, 2.0, seed)
    changed = rescaled(probabilities, temperature, multi_label)
    if not multi_label:
        np.testing.assert_allclose(changed.sum(axis=1), 1, atol=1e-5)
    best = probabilities.argmax(axis=1)[:, None]
    # Rounding to float32 may make two the same, but none less.
    assert (np.take_along_axis(changed, best, axis=1)[:, 0] == changed.max(axis=1)).all()
    for before, after in zip(probabilities, changed, strict=True):
        assert (np.diff(after[np.argsort(before)]) >= 0).all()


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_temperature_is_undone_by_its_inverse(multi_label):
    probabilities, _ = made_up(50, 4, multi_label)
    again = rescaled(rescaled(probabilities, 2.5, multi_label), 0.4, multi_label)
    np.testing.assert_allclose(again, probabilities, rtol=1e-3, atol=1e-6)
    assert rescaled(probabilities, 1.0, multi_label) is probabilities


def test_probabilities_of_0_and_1_stay_finite():
    for multi_label in (False, True):
        certain = np.array([[0.0, 1.0]], np.float32)
        assert np.isfinite(logits_of(certain, multi_label)).all()
        assert np.isfinite(rescaled(certain, 3.0, multi_label)).all()


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_error_of_a_calibrated_classifier_goes_to_0(multi_label):
    errors = [
        reliability(*made_up(clips, 4, multi_label), multi_label).error
        for clips in (100, 2_000, 40_000)
    ]
    assert errors[2] < 0.01
    assert errors[2] < errors[0]
    assert reliability(*made_up(40_000, 4, multi_label, 3.0), multi_label).error > 0.05


def slow_error(probabilities, targets):
    """Return the expected calibration error over 15 bins of equal numbers, clip by clip."""
    answers = sorted(
        (max(row), target[list(row).index(max(row))])
        for row, target in zip(probabilities.tolist(), targets.tolist(), strict=True)
    )
    bins = [answers[b * len(answers) // 15 : (b + 1) * len(answers) // 15] for b in range(15)]
    gaps = [abs(sum(r for _, r in b) - sum(p for p, _ in b)) for b in bins]
    return sum(gaps) / len(answers)


def test_the_error_is_that_of_a_slow_version():
    given_ = made_up(467, 3, False, 2.0)
    assert reliability(*given_, False).error == pytest.approx(slow_error(*given_), abs=1e-6)


@pytest.mark.parametrize(("clips", "bins"), [(1, 1), (39, 1), (40, 2), (10_000, 15)])
def test_bins_hold_equal_numbers_and_at_least_20(clips, bins):
    counts = reliability(*made_up(clips, 3, False), False).answers
    assert len(counts) == bins
    assert counts.sum() == clips
    assert counts.max() - counts.min() <= 1
