"""The choice of the faster arithmetic, with a clock of the test's own."""

import pytest
import torch

from melpatch.inference import fastest


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where a test says so."""
    now = [0.0]
    monkeypatch.setattr(fastest.time, "process_time", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("bf16_seconds", "chosen", "timed"), [(0.5, True, 3), (0.95, False, 3), (3.0, False, 1)]
)
def test_bf16_is_taken_where_it_saves_a_tenth(clock, bf16_seconds, chosen, timed):
    passes = {"float32": 0, "bf16": 0}

    def way(name, seconds, vector):
        def run():
            passes[name] += 1
            # The first pass takes longer, and does not count.
            clock[0] += seconds if passes[name] > 1 else 100.0
            return torch.tensor([vector])

        return run

    measured = fastest.measure(
        way("float32", 1.0, [1.0, 0.0]), way("bf16", bf16_seconds, [0.6, 0.8]), torch.device("cpu")
    )
    assert passes == {"float32": 1 + timed, "bf16": 1 + timed}
    assert measured.float32_seconds == pytest.approx(1.0)
    assert measured.bf16_seconds == pytest.approx(bf16_seconds)
    assert measured.bf16_is_faster == chosen
    assert measured.cosine == pytest.approx(0.6)
    assert ("bf16-mixed" in str(measured)) == chosen
