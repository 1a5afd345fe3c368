"""The distance from training clips: against a slow version, its false alarms, and what it finds."""

import numpy as np
import pytest

from melpatch.evaluation.novelty import fit_novelty
from melpatch.inference.novelty import clips_needed, is_novel


def drawn(clips, dim=12, seed=0):
    """Return vectors that vary by 1 in four directions and by 0.1 in the others, around 5."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(99).normal(size=(dim, dim)))[0]
    deviation = np.where(np.arange(dim) < 4, 1.0, 0.1)
    return (5 + (random.normal(size=(clips, dim)) * deviation) @ basis).astype(np.float32)


@pytest.mark.parametrize(("clips", "dim"), [(40, 12), (30, 50)])
def test_the_parts_are_those_of_a_slow_version(clips, dim):
    train = drawn(clips, dim)
    novelty = fit_novelty(train, drawn(20, dim, 1))
    new = drawn(3, dim, 2)
    z = (new - train.mean(axis=0)) / train.std(axis=0)
    rows = (train - train.mean(axis=0)) / train.std(axis=0)
    _, singular, axes = np.linalg.svd(rows, full_matrices=False)
    number = min(clips // 4, dim // 2)
    assert len(novelty.variances) == number
    for vector, (along, across) in zip(z, np.exp(novelty.log_lengths(new)), strict=True):
        slow = 0.0
        rest = vector.astype(float)
        for axis, value in zip(axes[:number], singular, strict=False):
            slow += (axis @ vector) ** 2 / (value**2 / clips)
            rest = rest - (axis @ vector) * axis
        assert along == pytest.approx(slow, rel=1e-3)
        assert across == pytest.approx(rest @ rest, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("false_alarms", [0.05, 0.2])
def test_clips_like_the_validation_clips_are_found_novel_at_the_stated_rate(false_alarms):
    rates = []
    for seed in range(40):
        novelty = fit_novelty(drawn(60, seed=3 * seed), drawn(60, seed=3 * seed + 1))
        ranks = novelty.ranks(drawn(100, seed=3 * seed + 2))
        rates.append((ranks >= 1 - false_alarms - 1e-6).mean())
    # A little less, since validation clips are measured from one clip less than new ones are.
    assert false_alarms - 0.04 < np.mean(rates) < false_alarms + 0.01


def test_what_is_unlike_the_training_clips_is_found():
    novelty = fit_novelty(drawn(200), drawn(60, seed=1))
    new = drawn(50, seed=2)
    random = np.random.default_rng(3)
    mean = np.full_like(new, 5)  # silence, say, is nearer to the mean than any clip
    for other in (new + 8, 5 + random.normal(size=new.shape), np.zeros_like(new), mean):
        assert novelty.ranks(other.astype(np.float32)).min() >= 0.95


def test_distances_are_deviations_of_the_two_lengths_from_those_of_other_validation_clips():
    val = drawn(30, seed=1)
    novelty = fit_novelty(drawn(60), val)
    rows = novelty.log_lengths(val)
    inverse = np.linalg.inv(np.cov(rows.T, ddof=0))
    for row, distance in zip(rows, novelty.distances(val), strict=True):
        gap = row - rows.mean(axis=0)
        assert distance == pytest.approx(gap @ inverse @ gap, rel=1e-3)
    left_out = []
    for number, row in enumerate(rows):
        others = np.delete(rows, number, axis=0)
        gap = row - others.mean(axis=0)
        left_out.append(gap @ np.linalg.inv(np.cov(others.T, ddof=0)) @ gap)
    np.testing.assert_allclose(novelty.held_out, sorted(left_out), rtol=1e-3)


def test_what_always_is_the_same_is_no_reason_for_a_crash():
    train = drawn(50)
    train[:, 0] = 3
    val = drawn(20, seed=1)
    val[:, 0] = 3
    novelty = fit_novelty(train, val)
    assert np.isfinite(novelty.distances(val)).all()
    assert fit_novelty(np.ones((20, 4), np.float32), np.ones((9, 4), np.float32)) is not None


def test_it_is_the_same_after_it_was_kept():
    novelty = fit_novelty(drawn(60), drawn(30, seed=1))
    again = type(novelty).from_state(novelty.state(), 12)
    new = drawn(40, seed=2)
    np.testing.assert_allclose(again.distances(new), novelty.distances(new), rtol=1e-4)
    assert type(novelty).from_state({}, 12) is None


def test_a_vector_behind_other_values_becomes_its_rank():
    novelty = fit_novelty(drawn(60), drawn(30, seed=1))
    vectors = drawn(4, seed=2)
    for vector, rank in zip(vectors, novelty.ranks(vectors), strict=True):
        values = novelty.rank_vector(np.concatenate([np.float32([0.25, 0.75]), vector]))
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, np.float32([0.25, 0.75, rank]))


def test_another_novelty_has_another_digest():
    novelty = fit_novelty(drawn(60), drawn(30, seed=1))
    again = type(novelty).from_state(novelty.state(), 12)
    assert again.digest() == novelty.digest()
    assert fit_novelty(drawn(60), drawn(30, seed=2)).digest() != novelty.digest()


def test_few_clips_say_nothing():
    assert fit_novelty(drawn(20), drawn(7)) is None
    assert fit_novelty(drawn(7), drawn(20)) is None


@pytest.mark.parametrize("false_alarms", [0.01, 0.05, 1 / 3, 0.5])
def test_the_least_clips_with_which_any_is_novel_are_just_enough(false_alarms):
    needed = clips_needed(false_alarms)
    # The highest rank among n validation clips, as float32 keeps it.
    highest = np.array([needed - 1, needed, needed + 1]) / np.array(
        [needed, needed + 1, needed + 2]
    )
    assert is_novel(highest.astype(np.float32), false_alarms).tolist() == [False, True, True]


def test_without_false_alarms_nothing_is_novel():
    assert not is_novel(np.array([0.5, 1.0]), 0.0).any()
    assert is_novel(np.array([0.949, 0.95])).tolist() == [False, True]
