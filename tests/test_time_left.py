"""Rates and times left: measured after the warm-up, with slow starts and results in bursts."""

import pytest

from melpatch.time_left import RateEstimate, in_words


def first_estimate(times, total):
    """Return the number of steps and the estimate of seconds left when there is one at first."""
    estimate = RateEstimate(total, 0, 0.0)
    for done, now in enumerate(times, start=1):
        estimate.update(done, now)
        if estimate.seconds_left() is not None:
            return done, estimate.seconds_left()
    raise AssertionError("no estimate")


@pytest.mark.parametrize("start_up", [0.0, 3.0, 30.0])
@pytest.mark.parametrize("slow_steps", [0, 5])
def test_a_slow_start_does_not_count(start_up, slow_steps):
    times = []
    now = start_up
    for step in range(1000):
        now += 5.0 if step < slow_steps else 0.5
        times.append(now)
    done, seconds = first_estimate(times, 1000)
    assert seconds == pytest.approx(times[-1] - times[done - 1], rel=0.05)


@pytest.mark.parametrize("burst", [1, 7, 32, 200])
def test_results_that_come_in_bursts_do_not_look_fast(burst):
    steps = 100 * burst
    times = [10.0 * (step // burst + 1) + 1e-4 * (step % burst) for step in range(steps)]
    done, seconds = first_estimate(times, steps)
    assert seconds == pytest.approx(times[-1] - times[done - 1], rel=0.25)


def test_a_loop_of_few_steps_has_an_estimate_after_the_first():
    assert first_estimate([20.0], 3) == (1, 40.0)


def test_a_loop_of_unknown_length_has_a_rate_only():
    estimate = RateEstimate(None, 5, 0.0)
    estimate.update(9, 2.0)
    assert estimate.per_second() == 2.0
    assert estimate.seconds_left() is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "about 0 s"),
        (99.0, "about 99 s"),
        (100.0, "about 2 min"),
        (5000.0, "about 83 min"),
        (9000.0, "about 2.5 h"),
        (3e5, "about 3.5 days"),
    ],
)
def test_times_are_told_as_roughly_as_they_are_known(seconds, words):
    assert in_words(seconds) == words
