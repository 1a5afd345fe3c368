import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melpatch.errors import ConfigError
from melpatch.training.config import TrainConfig
from melpatch.training.schedules import factor

SHARES = st.floats(0, 1)
PLAIN = partial(factor, warmup=0.0, floor=0.0, decay_start=0.5, decay_every=0.1, decay=0.5)


@given(st.floats(0.001, 0.9), SHARES)
def test_every_schedule_warms_up_linearly(warmup, share):
    done = share * warmup * 0.999
    for schedule in ("cosine", "step", "constant"):
        assert PLAIN(done, schedule=schedule, warmup=warmup) == pytest.approx(done / warmup)


def test_constant_stays():
    assert [PLAIN(done, schedule="constant", warmup=0.1) for done in (0.1, 0.5, 1.0)] == [1, 1, 1]


@given(SHARES, st.floats(0, 0.9), SHARES)
def test_cosine_falls_from_one_to_the_floor(share, warmup, floor):
    done = warmup + share * (1 - warmup)
    expected = floor + (1 - floor) * math.cos(math.pi / 2 * (done - warmup) / (1 - warmup)) ** 2
    assert PLAIN(done, schedule="cosine", warmup=warmup, floor=floor) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 1000), st.sampled_from([0.1, 0.3, 0.5]), st.sampled_from([0.01, 0.05, 0.1]))
def test_step_decays_once_for_every_mark_that_is_passed(thousandths, start, every):
    passed = sum(thousandths >= round(1000 * (start + number * every)) for number in range(100))
    found = PLAIN(thousandths / 1000, schedule="step", decay_start=start, decay_every=every, decay=0.7)
    assert found == pytest.approx(0.7**passed)


def test_a_step_schedule_that_would_never_move_on_is_refused():
    with pytest.raises(ConfigError, match=r"decay_every = 0\.0; allowed: a share of the run above 0"):
        TrainConfig(schedule="step", decay_every=0.0)
