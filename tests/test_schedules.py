import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melpatch.errors import ConfigError
from melpatch.schedules import cosine, lr_factor, ramp
from melpatch.training.config import TrainConfig

SHARES, NUMBERS = st.floats(0, 1), st.floats(-10, 10)
TOTALS = st.integers(1, 300)
PLAIN = partial(lr_factor, warmup=0.0, floor=0.0, step_start=0.5, step_every=0.1, step_factor=0.5)


@pytest.mark.parametrize("curve", [ramp, cosine])
@given(NUMBERS, NUMBERS)
def test_a_curve_goes_from_start_to_end_and_stays_there(curve, start, end):
    assert [curve(start, end, done) for done in (-1.0, 0.0)] == pytest.approx([start, start])
    assert [curve(start, end, done) for done in (1.0, 7.0)] == [
        pytest.approx(end),
        pytest.approx(end),
    ]
    assert curve(start, end, 0.5) == pytest.approx((start + end) / 2)


@given(NUMBERS, NUMBERS, SHARES)
def test_a_ramp_is_straight_and_a_cosine_round(start, end, done):
    assert ramp(start, end, done) == pytest.approx((1 - done) * start + done * end)
    turned = math.sin(math.pi / 2 * done) ** 2
    assert cosine(start, end, done) == pytest.approx((1 - turned) * start + turned * end, abs=1e-12)


@given(st.floats(0, 0.9), TOTALS)
def test_every_schedule_warms_up_linearly_to_the_middle_of_each_step(warmup, total):
    for step in range(total):
        if (step + 0.5) / total < warmup:
            for schedule in ("cosine", "linear", "step", "constant"):
                assert PLAIN(step, total, schedule=schedule, warmup=warmup) == pytest.approx(
                    (step + 0.5) / (warmup * total)
                )


def test_constant_stays():
    assert [PLAIN(step, 10, schedule="constant", warmup=0.1) for step in range(1, 10)] == [1] * 9


@given(TOTALS, st.floats(0, 0.9), SHARES)
def test_cosine_falls_from_one_to_the_floor(total, warmup, floor):
    for step in range(total):
        done = (step + 0.5) / total
        if done >= warmup:
            expected = (
                floor + (1 - floor) * math.cos(math.pi / 2 * (done - warmup) / (1 - warmup)) ** 2
            )
            found = PLAIN(step, total, schedule="cosine", warmup=warmup, floor=floor)
            assert found == pytest.approx(expected, abs=1e-12)


@given(TOTALS, st.floats(0, 0.9), SHARES)
def test_linear_falls_by_as_much_in_every_step_from_one_to_the_floor(total, warmup, floor):
    for step in range(total):
        left = (total - step - 0.5) / (total - warmup * total)
        if left < 1:
            found = PLAIN(step, total, schedule="linear", warmup=warmup, floor=floor)
            assert found == pytest.approx(floor + (1 - floor) * left)


@given(st.integers(0, 499), st.sampled_from([0.1, 0.3, 0.5]), st.sampled_from([0.01, 0.05, 0.1]))
def test_step_decays_once_for_every_mark_that_is_passed(step, start, every):
    thousandths = 2 * step + 1
    passed = sum(thousandths >= round(1000 * (start + number * every)) for number in range(100))
    found = PLAIN(step, 500, schedule="step", step_start=start, step_every=every, step_factor=0.7)
    assert found == pytest.approx(0.7**passed)


def test_dino_starts_at_zero_has_its_peak_twice_and_never_reaches_the_floor():
    found = [PLAIN(step, 10, schedule="dino", warmup=0.4, floor=0.1) for step in range(10)]
    assert found[:5] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert found[5:] == pytest.approx(
        [0.1 + 0.9 * math.cos(math.pi / 12 * number) ** 2 for number in range(1, 6)]
    )
    assert found[-1] > 0.1


@given(TOTALS, st.floats(0, 0.9))
def test_dino_is_defined_on_runs_shorter_than_their_warmup(total, warmup):
    found = [PLAIN(step, total, schedule="dino", warmup=warmup) for step in range(total)]
    assert all(0 <= value <= 1 for value in found)
    peak = max(range(total), key=found.__getitem__)
    assert found == sorted(found[: peak + 1]) + sorted(found[peak + 1 :], reverse=True)


def test_a_step_schedule_that_would_never_move_on_is_refused():
    with pytest.raises(
        ConfigError, match=r"lr_step_every = 0\.0; allowed: a share of the run above 0"
    ):
        TrainConfig(lr_schedule="step", lr_step_every=0.0)
